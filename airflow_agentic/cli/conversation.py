"""Draws a conversation as a tree: under each message, what handling it caused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from airflow_agentic.cli.deliveries import UNREADABLE, attempt, due, expiry, kept_at, order
from airflow_agentic.cli.following import run_of, tasks_of
from airflow_agentic.cli.output import count, iso, shorten, shorten_middle
from airflow_agentic.messaging import DeliveryRecord, DeliveryState, Kind

_NAME_WIDTH = 60
_LONG_NAME_WIDTH = 120
_REASON_WIDTH = 160

Children = dict[int, list[int]]


def draw(records: Sequence[DeliveryRecord], asked: str, now: datetime) -> Iterator[str]:
    """Yield the lines of the tree.

    Args:
        records: Deliveries of one conversation, oldest first.
        asked: The id that was asked for; a message of that id is marked.
        now: For the time left of leases and delays.
    """
    yield _summary(records, asked)
    roots, children = _arrange(records)
    # A stack and not recursion: a conversation may be as deep as it is long.
    stack = [(root, "", "") for root in reversed(roots)]
    drawn: set[int] = set()
    while stack:
        position, first, rest = stack.pop()
        drawn.add(position)
        below = [child for child in children.get(position, ()) if child not in drawn]
        record = records[position]
        yield first + _who(record, asked)
        for line in _fate(record, now):
            yield rest + ("│  " if below else "   ") + line
        for child in reversed(below):
            last = child == below[-1]
            stack.append((child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  ")))


def _summary(records: Sequence[DeliveryRecord], asked: str) -> str:
    readable = [record.message for record in records if record.message]
    states = Counter(record.state for record in records)
    counts = ", ".join(f"{states[state]} {state}" for state in DeliveryState if states[state])
    names = list(dict.fromkeys(message.correlation_id for message in readable))
    name = next(
        (message.correlation_id for message in readable if asked in (message.id, message.correlation_id)),
        asked,
    )
    others = f" and {count(len(names) - 1, 'other')}" if len(names) > 1 else ""
    messages = len({(message.source, message.id) for message in readable}) + len(records) - len(readable)
    copies = f", {count(len(records), 'copy', 'copies')}" if messages < len(records) else ""
    return f"conversation {shorten(name, 500)}{others}: {count(messages, 'message')}{copies} ({counts})"


def _arrange(records: Sequence[DeliveryRecord]) -> tuple[list[int], Children]:
    """Return the positions of the roots, and of what each position caused. Every position is reached once."""
    by_id: dict[str, list[int]] = {}
    by_run: dict[str, list[int]] = {}
    for position, record in enumerate(records):
        if record.message:
            by_id.setdefault(record.message.id, []).append(position)
        for task in tasks_of(record):
            by_run.setdefault(run_of(task), []).append(position)
    parents: dict[int, int] = {}
    for position, record in enumerate(records):
        parent = _cause(records, record, by_id)
        if parent is None and record.message:
            # What a run sent on its own: below the first message that the run handled, if that is of somebody else.
            handled = by_run.get(record.message.correlation_id, ())
            parent = next((there for there in handled if _is_elsewhere(records[there], record)), None)
        if parent is not None and not _leads_to(parents, parent, position):
            parents[position] = parent
    children: Children = {}
    for position, parent in parents.items():
        children.setdefault(parent, []).append(position)
    return [position for position in range(len(records)) if position not in parents], children


def _cause(
    records: Sequence[DeliveryRecord], record: DeliveryRecord, by_id: dict[str, list[int]]
) -> int | None:
    """Return the copy of its cause that a message came of: the one of its sender's mailbox, else of its sender's task."""
    message = record.message
    copies = by_id.get(message.causation_id, []) if message and message.causation_id else []
    if message is None or not copies:
        return None
    ranks = {position: _rank(records[position], message.source, message.run) for position in copies}
    return min(copies, key=lambda position: ranks[position])


def _rank(copy: DeliveryRecord, source: str, run: str | None) -> int:
    if copy.mailbox == source:
        return 0
    return 1 if run in tasks_of(copy) else 2


def _is_elsewhere(handled: DeliveryRecord, sent: DeliveryRecord) -> bool:
    return (
        handled.message is not None
        and sent.message is not None
        and handled.message.correlation_id != sent.message.correlation_id
    )


def _leads_to(parents: dict[int, int], start: int, position: int) -> bool:
    """Whether ``position`` is above ``start``: causation ids come from outside and may go in a circle."""
    above: int | None = start
    while above is not None and above != position:
        above = parents.get(above)
    return above is not None


def _who(record: DeliveryRecord, asked: str) -> str:
    message = record.message
    if message is None:
        return f"{UNREADABLE} -> {record.mailbox}"
    kind = f" ({message.kind})" if message.kind is not Kind.NOTIFICATION else ""
    about = f"  about {shorten(message.subject, _NAME_WIDTH)}" if message.subject else ""
    about += f"  to {shorten(message.address, _NAME_WIDTH)}" if message.recipient is None else ""
    mark = "  <- asked for" if asked == message.id != message.correlation_id else ""
    return (
        f"{iso(message.time)} {shorten(message.source, _NAME_WIDTH)} -> {record.mailbox}  "
        f"{shorten(message.type, _NAME_WIDTH)}{kind}{about}  {shorten(message.id, _NAME_WIDTH)}{mark}"
    )


def _fate(record: DeliveryRecord, now: datetime) -> Iterator[str]:
    message = record.message
    if message is not None:
        sender = f"sent by {shorten(message.run, _LONG_NAME_WIDTH)}" if message.run else ""
        place = shorten_middle(kept_at(message), _LONG_NAME_WIDTH)
        if said := ", ".join(filter(None, (sender, order(record), place))):
            yield said
    parts = [f"delivery {record.delivery_id}: {record.state}", f"attempt {attempt(record)}"]
    if when := due(record, now):
        parts.append(when if record.state is DeliveryState.LEASED else f"due {when}")
    parts += filter(None, (expiry(record, now),))
    if record.owner:
        parts.append(f"by {shorten(record.owner, _LONG_NAME_WIDTH)}")
    if record.redrives:
        parts.append(f"redriven {count(record.redrives, 'time')}")
    yield ", ".join(parts)
    if record.reason:
        yield f"reason: {shorten_middle(record.reason, _REASON_WIDTH)}"
