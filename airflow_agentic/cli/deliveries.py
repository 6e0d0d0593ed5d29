"""How a delivery is shown: in full for programs, as a row or a phrase for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from airflow_agentic.cli.output import compact, exact, fields, iso, pretty, shorten, shorten_middle, span
from airflow_agentic.config.masking import mask_text
from airflow_agentic.messaging import DeliveryRecord, DeliveryState, Message, MessageBus
from airflow_agentic.messaging.codec import to_event
from airflow_agentic.messaging.message import DEFAULT_PRIORITY

UNREADABLE = "(unreadable)"

_OPEN = (DeliveryState.READY, DeliveryState.LEASED)
_DATA_WIDTH = 60
_NAME_WIDTH = 40
_REASON_WIDTH = 80


def as_data(record: DeliveryRecord) -> dict[str, Any]:
    """Return all of a delivery as plain JSON; the message has its CloudEvents form."""
    return {
        "delivery_id": record.delivery_id,
        "mailbox": record.mailbox,
        "state": str(record.state),
        "attempts": record.attempts,
        "max_attempts": record.max_attempts,
        "visible_at": exact(record.visible_at),
        "updated_at": exact(record.updated_at),
        "waiting": record.waiting,
        "owner": record.owner,
        "reason": record.reason,
        "redrives": record.redrives,
        "message": to_event(record.message) if record.message else None,
        "history": [
            {
                "at": exact(entry.at),
                "event": entry.event,
                "attempt": entry.attempt,
                "actor": entry.actor,
                "detail": entry.detail,
            }
            for entry in record.history
        ],
    }


def as_row(record: DeliveryRecord, now: datetime) -> dict[str, object]:
    """Return a delivery as a row of ``messages peek``."""
    message = record.message
    return {
        "delivery": record.delivery_id,
        "state": record.state,
        "attempt": attempt(record),
        "due": ", ".join(filter(None, (due(record, now), expiry(record, now)))),
        "order": order(record),
        "age": age(record, now),
        "source": shorten(message.source, _NAME_WIDTH) if message else UNREADABLE,
        "type": shorten(message.type, _NAME_WIDTH) if message else "",
        "data": _brief_data(message) if message else shorten_middle(record.reason or "", _DATA_WIDTH),
    }


def as_dead_row(record: DeliveryRecord, now: datetime) -> dict[str, object]:
    """Return a dead letter as a row of ``dead-letters list``."""
    message = record.message
    return {
        "delivery": record.delivery_id,
        "mailbox": shorten(record.mailbox, _NAME_WIDTH),
        "dead since": f"{span((now - record.updated_at).total_seconds())} ago",
        "attempt": attempt(record),
        "redrives": record.redrives,
        "source": shorten(message.source, _NAME_WIDTH) if message else UNREADABLE,
        "type": shorten(message.type, _NAME_WIDTH) if message else "",
        "reason": shorten_middle(record.reason or "", _REASON_WIDTH),
    }


def attempt(record: DeliveryRecord) -> str:
    """Return the attempts made and allowed: ``1/5``."""
    return f"{record.attempts}/{record.max_attempts}"


def age(record: DeliveryRecord, now: datetime) -> str:
    """Return the time since the message was made, by its sender's clock; empty if it cannot be read."""
    return span((now - record.message.time).total_seconds()) if record.message else ""


def due(record: DeliveryRecord, now: datetime) -> str:
    """Return when a delivery can be claimed: the answer to "why is nobody handling this?"."""
    seconds = (record.visible_at - now).total_seconds()
    if record.state is DeliveryState.READY and record.waiting:
        return "after an earlier one of its key"
    if record.state is DeliveryState.READY:
        return "now" if seconds <= 0 else f"in {span(seconds)}"
    if record.state is DeliveryState.LEASED:
        return f"lease ended {span(-seconds)} ago" if seconds <= 0 else f"lease ends in {span(seconds)}"
    return ""


def expiry(record: DeliveryRecord, now: datetime) -> str:
    """Return when an open delivery is of no use any more, by its sender's clock; empty if that never comes."""
    message = record.message
    if message is None or message.expires_at is None or record.state not in _OPEN:
        return ""
    left = (message.expires_at - now).total_seconds()
    return f"expires in {span(left)}" if left > 0 else f"expired {span(-left)} ago"


def order(record: DeliveryRecord) -> str:
    """Return the ordering key and the priority of a message, if they are not the common ones."""
    message = record.message
    if message is None:
        return ""
    key = f"key {shorten(message.ordering_key, _NAME_WIDTH)}" if message.ordering_key else ""
    rank = f"priority {message.priority}" if message.priority != DEFAULT_PRIORITY else ""
    return ", ".join(filter(None, (key, rank)))


def kept_at(message: Message) -> str:
    """Return where the data of a message is, if it does not travel."""
    if message.data_ref is None:
        return ""
    return f"data at {mask_text(message.data_ref)} (SHA-256 {message.data_digest})"


def envelope(record: DeliveryRecord) -> Iterator[str]:
    """Yield a message in full, as lines."""
    message = record.message
    if message is None:
        yield "  cannot be read by this version; see the reason"
        return
    values = message.model_dump(exclude={"data", "data_ref", "data_digest"}, exclude_none=True)
    times = {name: exact(values[name]) for name in ("time", "expires_at") if name in values}
    yield from fields(values | times, "  ")
    if message.data_ref:
        yield f"  {kept_at(message)}"
        return
    yield "  data"
    yield from pretty(message.data, "    ")


def history(record: DeliveryRecord) -> Iterator[str]:
    """Yield what went wrong with a delivery and what people did about it, as lines."""
    for entry in record.history:
        yield f"  {iso(entry.at)}  {entry.event}  attempt {entry.attempt}  {entry.actor}  {entry.detail}"
    if not record.history:
        yield "  (none)"


def lease_ended_seconds(record: DeliveryRecord, now: datetime) -> float:
    """Return how long ago the lease of a leased delivery ended; negative while it lasts."""
    return (now - record.visible_at).total_seconds()


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint at the names most like ``name``, or at all of them if none is."""
    known = list(names)
    near = difflib.get_close_matches(name, known, n=3)
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    return f"Known: {', '.join(known[:20])}." if known else "None is known yet."


def unknown_mailbox(bus: MessageBus, mailbox: str) -> str | None:
    """Return a remark on a mailbox that never had a message; ``None`` if it had one.

    Such a mailbox is no error: it begins to exist with the first message that is sent to it.
    """
    if bus.stats(mailbox).total:
        return None
    return (
        f"mailbox {mailbox!r} never had a message. {nearest(mailbox, (s.mailbox for s in bus.mailboxes()))}"
    )


def _brief_data(message: Message) -> str:
    return (
        shorten_middle(kept_at(message), _DATA_WIDTH)
        if message.data_ref
        else compact(message.data, _DATA_WIDTH)
    )
