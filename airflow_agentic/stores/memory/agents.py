"""Named agents in the memory of one process."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.agents.status import (
    KEPT_INSTANCES,
    AgentProfile,
    AgentStatus,
    Instance,
    PerformanceMetrics,
    summarise,
)
from airflow_agentic.errors import StoreError
from airflow_agentic.stores.memory.clock import Clock, utc_now


@dataclass
class _Named:
    """All that is kept of one name."""

    profile: AgentProfile
    metrics: PerformanceMetrics = field(default_factory=PerformanceMetrics)
    instances: dict[str, Instance] = field(default_factory=dict)

    def forget(self, now: datetime) -> None:
        ended = [i for i in self.instances.values() if i.state is AgentState.SHUTDOWN or i.is_lost(now)]
        ended.sort(key=lambda instance: instance.updated_at, reverse=True)
        for instance in ended[KEPT_INSTANCES:]:
            del self.instances[instance.agent_id]

    def status(self, now: datetime) -> AgentStatus:
        return summarise(copy.deepcopy(self.profile), self.metrics, list(self.instances.values()), now)


class MemoryAgentStore:
    """Implements :class:`airflow_agentic.agents.status.AgentStore`; safe to share between threads.

    Args:
        clock: Tells the time, with a time zone.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Named] = {}

    def register(self, agent_id: str, profile: AgentProfile, owner: str, alive_for: timedelta) -> None:
        """See the port."""
        with self._lock:
            now = self._clock()
            if self._named(agent_id):
                raise StoreError(f"there is an instance {agent_id!r} already")
            named = self._known.get(profile.name, _Named(profile))
            named.forget(now)
            new = Instance(agent_id, AgentState.INITIALIZED, "", owner, now, now + alive_for)
            instances = {**named.instances, agent_id: new}
            self._known[profile.name] = _Named(copy.deepcopy(profile), named.metrics, instances)

    def report(
        self, agent_id: str, state: AgentState, reason: str, *, add: PerformanceMetrics, alive_for: timedelta
    ) -> None:
        """See the port."""
        with self._lock:
            now = self._clock()
            if named := self._named(agent_id):
                owner = named.instances[agent_id].owner
                named.instances[agent_id] = Instance(agent_id, state, reason, owner, now, now + alive_for)
                named.metrics += add

    def get(self, name: str) -> AgentStatus | None:
        """See the port."""
        return next((status for status in self.list() if status.name == name), None)

    def list(self) -> list[AgentStatus]:
        """See the port."""
        with self._lock:
            return [self._known[name].status(self._clock()) for name in sorted(self._known)]

    def _named(self, agent_id: str) -> _Named | None:
        return next((named for named in self._known.values() if agent_id in named.instances), None)
