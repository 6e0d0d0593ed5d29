"""How the journal of a run begins, and what stands before what another session writes to it."""

from __future__ import annotations

from typing import Any

from airflow_agentic.persistence.options import RunOptions
from airflow_agentic.persistence.ports import RunHead, RunStatus
from airflow_agentic.persistence.records import FORMAT, RecordType


def new_head(key: str, agent: str, owner: str, options: RunOptions) -> RunHead:
    """Return the head of a run that is not written yet."""
    return RunHead(
        key,
        agent,
        options.persistence,
        correlation=options.correlation,
        task=options.task,
        owner=owner,
    )


def said_first(
    found: RunHead | None, head: RunHead, options: RunOptions
) -> tuple[RecordType, dict[str, Any]]:
    """Return what stands before the first thing that a session writes.

    Args:
        found: The head that was there before; ``None`` if the run is new.
        head: As it is now.
        options: How the run is kept.
    """
    if found is None:
        return RecordType.STARTED, {
            "format": FORMAT,
            "agent": head.agent,
            "mode": head.mode,
            "schema": options.schema.version,
            "owner": head.owner,
        }
    type_ = RecordType.CONTINUED if found.status == RunStatus.FINISHED else RecordType.RESUMED
    return type_, {"format": FORMAT, "owner": head.owner}
