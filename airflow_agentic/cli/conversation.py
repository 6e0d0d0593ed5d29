"""Draws a conversation as a tree: under each message, what handling it caused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from airflow_agentic.cli.deliveries import UNREADABLE, attempt, due
from airflow_agentic.cli.output import count, iso, shorten, shorten_middle
from airflow_agentic.messaging import DeliveryRecord, DeliveryState, Kind

_NAME_WIDTH = 60
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
    first = next((record.message for record in records if record.message), None)
    states = Counter(record.state for record in records)
    counts = ", ".join(f"{states[state]} {state}" for state in DeliveryState if states[state])
    name = first.correlation_id if first else asked
    return f"conversation {shorten(name, 500)}: {count(len(records), 'message')} ({counts})"


def _arrange(records: Sequence[DeliveryRecord]) -> tuple[list[int], Children]:
    """Return the positions of the roots, and of what each position caused. Every position is reached once."""
    by_id: dict[str, int] = {}
    for position, record in enumerate(records):
        if record.message:
            by_id.setdefault(record.message.id, position)
    parents: dict[int, int] = {}
    for position, record in enumerate(records):
        cause = record.message.causation_id if record.message else None
        parent = by_id.get(cause) if cause else None
        if parent is not None and not _leads_to(parents, parent, position):
            parents[position] = parent
    children: Children = {}
    for position, parent in parents.items():
        children.setdefault(parent, []).append(position)
    return [position for position in range(len(records)) if position not in parents], children


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
    mark = "  <- asked for" if asked == message.id != message.correlation_id else ""
    return (
        f"{iso(message.time)} {shorten(message.source, _NAME_WIDTH)} -> {record.mailbox}  "
        f"{shorten(message.type, _NAME_WIDTH)}{kind}{about}  {shorten(message.id, _NAME_WIDTH)}{mark}"
    )


def _fate(record: DeliveryRecord, now: datetime) -> Iterator[str]:
    parts = [f"delivery {record.delivery_id}: {record.state}", f"attempt {attempt(record)}"]
    if when := due(record, now):
        parts.append(when if record.state is DeliveryState.LEASED else f"due {when}")
    if record.owner:
        parts.append(f"by {shorten(record.owner, _NAME_WIDTH)}")
    if record.redrives:
        parts.append(f"redriven {count(record.redrives, 'time')}")
    yield ", ".join(parts)
    if record.reason:
        yield f"reason: {shorten_middle(record.reason, _REASON_WIDTH)}"
