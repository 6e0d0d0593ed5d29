"""What started a DAG run: the messages, or the mailboxes, that its asset events tell of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import pass_context

from airflow_agentic.errors import UndecodableMessage
from airflow_agentic.messaging.codec import from_event
from airflow_agentic.messaging.message import Message


@dataclass(frozen=True)
class Start:
    """One event of ``AgentMessageTrigger`` that a DAG run was started by.

    Attributes:
        mailbox: Where messages came to.
        message: The message itself, if the trigger delivers; ``None`` if it announced the mailbox.
        delivery_id: Number of its delivery.
        ready: How many messages waited, if it announced.
    """

    mailbox: str
    message: Message | None = None
    delivery_id: int | None = None
    ready: int | None = None


@pass_context
def started_by(context: Mapping[str, Any]) -> list[Start]:
    """Return what started the DAG run that a task belongs to, oldest first; empty if no message did.

    In templates, give it to the DAG: ``user_defined_macros={"started_by": runtime.started_by}``, and write
    ``{{ started_by()[0].message.data }}``.

    Args:
        context: The task's context; templates pass it by themselves.
    """
    try:
        events = context["triggering_asset_events"]
    except KeyError:
        return []
    found = sorted(
        (event for several in events.values() for event in several), key=lambda event: event.timestamp
    )
    starts: list[Start] = []
    for event in found:
        start = _start((event.extra or {}).get("payload"))
        # An event of an asset with aliases is there more than once.
        if start is not None and start not in starts:
            starts.append(start)
    return starts


def _start(payload: Any) -> Start | None:
    if not isinstance(payload, dict) or not isinstance(payload.get("mailbox"), str):
        return None
    if "message" not in payload:
        return Start(payload["mailbox"], ready=payload.get("ready"))
    try:
        message = from_event(payload["message"])
    except UndecodableMessage:
        return None
    return Start(payload["mailbox"], message, payload.get("delivery_id"))
