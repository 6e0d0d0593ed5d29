"""``airflow agentic heartbeats``: who was heard of, and who is not any more."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from airflow_agentic.cli.access import opened
from airflow_agentic.cli.command import command
from airflow_agentic.cli.output import compact, count, exact, listing, note, shorten, span
from airflow_agentic.errors import UndecodableMessage
from airflow_agentic.messaging.codec import decode, to_event
from airflow_agentic.messaging.ports import Heartbeat

_NAME_WIDTH = 60
_DATA_WIDTH = 60


@command
def list_heartbeats(args: Namespace) -> None:
    """List the last heartbeat of every source, ordered by source."""
    with opened(args) as store:
        found = store.bus.heartbeats()
    now = datetime.now(UTC)
    listing(args.output, [_data(beat) for beat in found], [_row(beat, now) for beat in found])
    if late := sum(beat.late for beat in found):
        note(f"{count(late, 'source')} of {len(found):,} late")


def _data(beat: Heartbeat) -> dict[str, Any]:
    return {
        "source": beat.source,
        "at": exact(beat.at),
        "due_at": exact(beat.due_at),
        "late": beat.late,
        "reported": beat.reported,
        "message": _event(beat),
    }


def _row(beat: Heartbeat, now: datetime) -> dict[str, object]:
    left = (beat.due_at - now).total_seconds()
    event = _event(beat)
    return {
        "source": shorten(beat.source, _NAME_WIDTH),
        "last": f"{span((now - beat.at).total_seconds())} ago",
        "due": f"late by {span(-left)}" if beat.late else f"in {span(left)}",
        "late": "yes" if beat.late else "no",
        "reported": "yes" if beat.reported else "no",
        "data": compact(event.get("data"), _DATA_WIDTH) if event else "(unreadable)",
    }


def _event(beat: Heartbeat) -> dict[str, Any] | None:
    try:
        return to_event(decode(beat.envelope))
    except UndecodableMessage:
        return None
