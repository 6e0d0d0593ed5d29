"""Who works on a run: its lease is taken, or it is said who has it."""

from __future__ import annotations

from datetime import timedelta

from airflow_agentic.errors import ConfigurationError, JournalCorrupt
from airflow_agentic.persistence.journal import taken
from airflow_agentic.persistence.ports import Facilities, Hold, RunStatus, RunStores


def take(
    stores: RunStores, facilities: Facilities, key: str, agent: str, owner: str, lease: timedelta
) -> Hold:
    """Take a run, to go on with it.

    Args:
        stores: Where it is.
        facilities: Knows which owners are gone.
        key: Names it.
        agent: Whose it must be.
        owner: Who wants it.
        lease: For how long.

    Returns:
        How it stands now; without a head if there is none of that key.

    Raises:
        RunTaken: Somebody else works on it.
        ConfigurationError: It belongs to another agent.
        JournalCorrupt: It is in quarantine.
    """
    runs = stores.runs
    hold = runs.hold(key, owner, lease)
    if hold.head is not None and not hold.taken and facilities.is_gone(hold.head.owner):
        hold = runs.hold(key, owner, lease, instead_of=hold.head.owner)
    head = hold.head
    if head is None:
        return hold
    if not hold.taken:
        raise taken(head, key)
    if head.agent != agent:
        runs.hold(key, owner, timedelta(0))
        raise ConfigurationError(
            f"the run {key!r} belongs to the agent {head.agent!r}, and {agent!r} asks for it: use another key"
        )
    if head.status == RunStatus.QUARANTINED:
        runs.hold(key, owner, timedelta(0))
        raise JournalCorrupt(
            f"the run {key!r} is in quarantine: {head.error}. Fork it from a version before the damage (`airflow agentic "
            f"runs fork {key} --at VERSION`), or restore the store from a backup",
            key,
            0,
            head.error,
        )
    return hold
