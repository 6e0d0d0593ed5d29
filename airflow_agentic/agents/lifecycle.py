"""The lifecycle of every agent, as a table.

::

    INITIALIZED ─configure─> READY ─run─> PROCESSING ─ok────────> READY
                              ^                │ ├─with losses─> DEGRADED ─run─> PROCESSING
                              └────reset───────│─┴─error───────> FAILED
                                               └───────────────> SHUTDOWN   (from every state, the end)
"""

from __future__ import annotations

from enum import StrEnum

from airflow_agentic.errors import IllegalTransition


class AgentState(StrEnum):
    """Where an agent stands in its lifecycle."""

    INITIALIZED = "initialized"
    READY = "ready"
    PROCESSING = "processing"
    DEGRADED = "degraded"
    FAILED = "failed"
    SHUTDOWN = "shutdown"


TRANSITIONS: dict[AgentState, frozenset[AgentState]] = {
    AgentState.INITIALIZED: frozenset({AgentState.READY, AgentState.FAILED, AgentState.SHUTDOWN}),
    AgentState.READY: frozenset({AgentState.PROCESSING, AgentState.FAILED, AgentState.SHUTDOWN}),
    AgentState.PROCESSING: frozenset(
        {AgentState.READY, AgentState.DEGRADED, AgentState.FAILED, AgentState.SHUTDOWN}
    ),
    AgentState.DEGRADED: frozenset(
        {AgentState.PROCESSING, AgentState.READY, AgentState.FAILED, AgentState.SHUTDOWN}
    ),
    AgentState.FAILED: frozenset({AgentState.READY, AgentState.SHUTDOWN}),
    AgentState.SHUTDOWN: frozenset(),
}


def check_transition(name: str, old: AgentState, new: AgentState) -> None:
    """Refuse a transition that the table does not have.

    Args:
        name: The agent, for the error text.
        old: Where it stands.
        new: Where it is to go.

    Raises:
        IllegalTransition: The table has no such arrow.
    """
    allowed = TRANSITIONS[old]
    if new not in allowed:
        ways = ", ".join(sorted(allowed)) or "nowhere: shutdown is the end, make a new agent"
        hint = "; call reset() first" if old is AgentState.FAILED and new is AgentState.PROCESSING else ""
        raise IllegalTransition(
            f"agent {name!r} cannot go from {old} to {new}; from {old} it can go to {ways}{hint}"
        )
