"""What is known of a named agent: its profile, its instances and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from airflow_agentic.agents.lifecycle import AgentState


@dataclass(frozen=True)
class PerformanceMetrics:
    """Numbers of an agent since it is known to its store (or since it was made, without one).

    Attributes:
        processed: Tasks that ``process`` was called with: succeeded + failed.
        succeeded: Those that gave a result, degraded ones included.
        failed: Those that raised, gave an invalid result or had invalid input.
        degraded: Those of ``succeeded`` that the agent called degraded.
        total_seconds: Time spent in ``process``.
        max_seconds: Longest single task.
        last_error: Text of the last failure.
    """

    processed: int = 0
    succeeded: int = 0
    failed: int = 0
    degraded: int = 0
    total_seconds: float = 0.0
    max_seconds: float = 0.0
    last_error: str | None = None

    @property
    def error_rate(self) -> float:
        """Share of failed tasks, 0.0 to 1.0."""
        return self.failed / self.processed if self.processed else 0.0

    @property
    def mean_seconds(self) -> float:
        """Mean time of a task."""
        return self.total_seconds / self.processed if self.processed else 0.0

    def __add__(self, other: PerformanceMetrics) -> PerformanceMetrics:
        """Return the numbers of both together; ``other`` is the later one."""
        return PerformanceMetrics(
            processed=self.processed + other.processed,
            succeeded=self.succeeded + other.succeeded,
            failed=self.failed + other.failed,
            degraded=self.degraded + other.degraded,
            total_seconds=self.total_seconds + other.total_seconds,
            max_seconds=max(self.max_seconds, other.max_seconds),
            last_error=other.last_error or self.last_error,
        )


@dataclass(frozen=True)
class AgentProfile:
    """What an agent is, as its store keeps it.

    Attributes:
        name: The name it is resolved by.
        agent_type: Class of agent, for example ``FunctionAgent``.
        description: First paragraph of its docstring.
        configuration: Its configuration as JSON; secrets are masked.
        input_schema: JSON Schema of what it takes.
        output_schema: JSON Schema of what it gives.
    """

    name: str
    agent_type: str
    description: str = ""
    configuration: dict[str, Any] = field(default_factory=dict)
    input_schema: dict[str, Any] = field(default_factory=dict)
    output_schema: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Instance:
    """One living or ended instance of a named agent.

    Attributes:
        agent_id: Unique.
        state: As it last reported.
        reason: Why it is in that state.
        owner: ``host:pid`` it runs in.
        updated_at: Its last report, by the store's clock.
        alive_until: Without a further report by then it counts as lost.
    """

    agent_id: str
    state: AgentState
    reason: str
    owner: str
    updated_at: datetime
    alive_until: datetime

    def is_lost(self, now: datetime) -> bool:
        """Whether it stopped reporting without shutting down, as after a SIGKILL."""
        return self.state is not AgentState.SHUTDOWN and self.alive_until < now


@dataclass(frozen=True)
class AgentStatus:
    """Status of a named agent over all its instances.

    Attributes:
        profile: What it is.
        state: ``processing`` if a living instance is; else the state of the instance that reported last;
            ``failed`` if that one was lost.
        reason: Why it is in that state.
        agent_id: The instance that ``state`` is taken from.
        live_instances: How many run now.
        metrics: Numbers of all instances together.
        updated_at: Last report of any instance.
    """

    profile: AgentProfile
    state: AgentState
    reason: str
    agent_id: str
    live_instances: int
    metrics: PerformanceMetrics
    updated_at: datetime

    @property
    def name(self) -> str:
        """The name it is resolved by."""
        return self.profile.name


def summarise(
    profile: AgentProfile, metrics: PerformanceMetrics, instances: Sequence[Instance], now: datetime
) -> AgentStatus:
    """Make the status of a named agent from its instances (at least one)."""
    latest = max(instances, key=lambda instance: instance.updated_at)
    live = [i for i in instances if i.state is not AgentState.SHUTDOWN and not i.is_lost(now)]
    shown = next((i for i in live if i.state is AgentState.PROCESSING), latest)
    state, reason = shown.state, shown.reason
    if shown.is_lost(now):
        state = AgentState.FAILED
        reason = f"lost: {shown.owner} stopped reporting while {shown.state}"
    return AgentStatus(
        profile=profile,
        state=state,
        reason=reason,
        agent_id=shown.agent_id,
        live_instances=len(live),
        metrics=metrics,
        updated_at=latest.updated_at,
    )


KEPT_INSTANCES = 20
"""Ended and lost instances kept for each name: enough to look back, and a store does not grow with the work."""


class AgentStore(Protocol):
    """Port: where named agents keep state and numbers. Times are the store's clock."""

    def register(self, agent_id: str, profile: AgentProfile, owner: str, alive_for: timedelta) -> None:
        """Make the profile known and add an instance in state ``initialized``.

        Ended and lost instances of the same name beyond the last ``KEPT_INSTANCES`` may be forgotten.
        """
        ...

    def report(
        self,
        agent_id: str,
        state: AgentState,
        reason: str,
        *,
        add: PerformanceMetrics,
        alive_for: timedelta,
    ) -> None:
        """Set an instance's state and add to the numbers of its name, in one transaction."""
        ...

    def get(self, name: str) -> AgentStatus | None:
        """Read the status of a named agent; ``None`` if it is not known."""
        ...

    def list(self) -> Sequence[AgentStatus]:
        """Read the status of every named agent, ordered by name."""
        ...
