"""Sources that were heard of, and are not any more."""

from __future__ import annotations

import logging
from collections.abc import Callable

from airflow_agentic.errors import MailboxFull
from airflow_agentic.messaging.message import Message
from airflow_agentic.messaging.ports import Heartbeat, HeartbeatStore

_log = logging.getLogger(__name__)

MISSED = "agentic.heartbeat.missed"
"""Topic and type of the notification that a heartbeat did not come."""


def report_late(publish: Callable[[Message], object], store: HeartbeatStore) -> list[str]:
    """Publish a notification for every late source that nobody was told of.

    Several may do this at once: the notification of one missed heartbeat has one id, and is sent once. One that finds
    no room is tried again the next time, and keeps no other one back.
    """
    reported = []
    for beat in store.heartbeats():
        if not beat.late or beat.reported:
            continue
        try:
            publish(_missed(beat))
        except MailboxFull as error:
            _log.warning("nobody can be told that the heartbeat of %s is late: %s", beat.source, error)
            continue
        store.mark_reported(beat.source, beat.due_at)
        reported.append(beat.source)
    return reported


def _missed(beat: Heartbeat) -> Message:
    return Message(
        source="agentic.bus",
        topic=MISSED,
        type=MISSED,
        id=f"{beat.source[:400]}@{beat.due_at.isoformat()}",
        subject=beat.source,
        data={"source": beat.source, "last": beat.at.isoformat(), "due": beat.due_at.isoformat()},
    )
