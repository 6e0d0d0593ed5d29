"""Named agents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

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
from airflow_agentic.stores.redis.scripts import AGENTS, REGISTER, REPORT
from airflow_agentic.stores.redis.server import RedisServer, from_time, to_bytes, to_ms


class RedisAgentStore:
    """Implements :class:`airflow_agentic.agents.status.AgentStore`.

    Args:
        server: Where.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def register(self, agent_id: str, profile: AgentProfile, owner: str, alive_for: timedelta) -> None:
        """See the port."""
        about = json.dumps(asdict(profile))
        if not self._server.run(
            REGISTER, KEPT_INSTANCES, agent_id, profile.name, about, to_bytes(owner), to_ms(alive_for)
        ):
            raise StoreError(f"there is an instance {agent_id!r} already")

    def report(
        self, agent_id: str, state: AgentState, reason: str, *, add: PerformanceMetrics, alive_for: timedelta
    ) -> None:
        """See the port."""
        counts = (add.processed, add.succeeded, add.failed, add.degraded)
        seconds = (repr(float(add.total_seconds)), repr(float(add.max_seconds)))
        last_error = to_bytes(add.last_error or "")
        self._server.run(
            REPORT, agent_id, str(state), to_bytes(reason), to_ms(alive_for), *counts, *seconds, last_error
        )

    def get(self, name: str) -> AgentStatus | None:
        """See the port."""
        return next(iter(self._read(name)), None)

    def list(self) -> Sequence[AgentStatus]:
        """See the port."""
        return sorted(self._read(""), key=lambda status: status.name)

    def _read(self, name: str) -> Sequence[AgentStatus]:
        now, found = self._server.run(AGENTS, name)
        return [_status(about, instances, from_time(now)) for _, about, instances in found]


def _status(about: Any, instances: Any, now: datetime) -> AgentStatus:
    kept = {about[i].decode(): about[i + 1].decode() for i in range(0, len(about), 2)}
    metrics = PerformanceMetrics(
        processed=int(kept.get("processed", 0)),
        succeeded=int(kept.get("succeeded", 0)),
        failed=int(kept.get("failed", 0)),
        degraded=int(kept.get("degraded", 0)),
        total_seconds=float(kept.get("total_seconds", 0)),
        max_seconds=float(kept.get("max_seconds", 0)),
        last_error=kept.get("last_error"),
    )
    named = [(json.loads(instances[i + 1]), instances[i].decode()) for i in range(0, len(instances), 2)]
    named.sort(key=lambda each: int(each[0]["seq"]))
    known = [_instance(agent_id, each) for each, agent_id in named]
    return summarise(AgentProfile(**json.loads(kept["profile"])), metrics, known, now)


def _instance(agent_id: str, kept: Any) -> Instance:
    return Instance(
        agent_id,
        AgentState(kept["state"]),
        kept["reason"],
        kept["owner"],
        from_time(int(kept["at"])),
        from_time(int(kept["until"])),
    )
