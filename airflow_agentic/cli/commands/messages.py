"""``airflow agentic messages``: mailboxes, conversations, and a message by hand."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_agentic.cli import conversation
from airflow_agentic.cli.access import opened, store_options
from airflow_agentic.cli.command import command, recorded
from airflow_agentic.cli.deliveries import (
    as_data,
    as_row,
    attempt,
    due,
    envelope,
    expiry,
    history,
    unknown_mailbox,
)
from airflow_agentic.cli.following import followed
from airflow_agentic.cli.output import count, fields, is_machine, iso, listing, note, say, single, span
from airflow_agentic.errors import InvalidMessage, MessageNotFound
from airflow_agentic.messaging import DeliveryRecord, DeliveryState, Kind, MailboxStats, Message
from airflow_agentic.messaging.delivery import reference
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.messaging.routing import UNROUTABLE

_OPEN = (DeliveryState.READY, DeliveryState.LEASED)
_TRACE_LIMIT = 1_000
_PURGE_BATCH = 10_000


@command
def mailbox_stats(args: Namespace) -> None:
    """Count the deliveries of one mailbox, or of all."""
    with opened(args) as store:
        found = [store.bus.stats(args.mailbox)] if args.mailbox else store.bus.mailboxes()
        remark = unknown_mailbox(store.bus, args.mailbox) if args.mailbox else None
    listing(args.output, [_stats_data(s) for s in found], map(_stats_row, found))
    if remark:
        note(remark)


@command
def peek_mailbox(args: Namespace) -> None:
    """List deliveries of a mailbox, oldest first, without leasing them."""
    states = (DeliveryState(args.state),) if args.state else _OPEN
    with opened(args) as store:
        found = store.bus.find(DeliveryQuery(mailbox=args.mailbox, states=states, limit=args.limit))
        stats = store.bus.stats(args.mailbox)
        remark = unknown_mailbox(store.bus, args.mailbox)
    now = datetime.now(UTC)
    listing(args.output, [as_data(record) for record in found], [as_row(record, now) for record in found])
    total = sum(getattr(stats, state) for state in states)
    if remark:
        note(remark)
    elif total > len(found):
        note(f"showing the oldest {len(found):,} of {total:,}; --limit shows more")
    elif not found and not args.state:
        note(
            f"nothing is open in {args.mailbox!r}: {stats.done:,} done, {stats.dead:,} dead (--state shows them)"
        )


@command
def trace_conversation(args: Namespace) -> None:
    """Show every delivery of a conversation: as a tree, or as a flat list for programs."""
    with opened(args) as store:
        found = followed(store.bus, args.identifier, _TRACE_LIMIT)
    now = datetime.now(UTC)
    if args.output == "table":
        say(*conversation.draw(found, args.identifier, now))
    else:
        listing(args.output, [as_data(r) for r in found], [_trace_row(r, now) for r in found])
    if len(found) == _TRACE_LIMIT:
        note(f"only {_TRACE_LIMIT:,} deliveries are shown; there may be more")


@command
def show_message(args: Namespace) -> None:
    """Show a message in full, with every delivery of it."""
    with opened(args) as store:
        found = store.bus.find(DeliveryQuery(message_id=args.message_id, limit=_TRACE_LIMIT))
    if not found:
        raise MessageNotFound(
            f"this store has no message {args.message_id!r}. `airflow agentic messages peek MAILBOX` shows what is in a "
            "mailbox, and `airflow agentic messages trace ID` takes the id of a conversation."
        )
    now = datetime.now(UTC)
    single(
        args.output, {"deliveries": [as_data(record) for record in found]}, lambda: _message_lines(found, now)
    )


@command
def send_message(args: Namespace) -> None:
    """Send one message, and print the reference that points at it."""
    message = message_of(args, args.mailbox)
    # The configured store is made by its first use, as everywhere; a path typed by hand must exist.
    with opened(args, create=not args.store_url) as store:
        is_heartbeat = message.kind is Kind.HEARTBEAT
        if is_heartbeat or message.recipient is not None:
            store.bus.send(message, delay=args.delay)
            said = reference(message)
        else:
            said = {**reference(message), "mailboxes": store.bus.publish(message, delay=args.delay)}
    single(args.output, said, lambda: fields(_for_people(said)))
    if not said.get("mailboxes", True):
        note(f"nobody subscribed to {message.address}: it is in the dead letters of {UNROUTABLE}")
    if not is_machine(args.output):
        look = "heartbeats list" if is_heartbeat else f"messages trace {message.id}"
        note(f"follow it: airflow agentic {look}{store_options(args)}")


@command
@recorded
def purge_messages(args: Namespace) -> None:
    """Forget old messages that are done everywhere, and what guards keep no longer; say how many."""
    with opened(args) as store:
        window = store.bus.options.dedup_window
        forgotten = batch = store.bus.purge(args.older_than, limit=_PURGE_BATCH)
        while batch == _PURGE_BATCH:
            batch = store.bus.purge(args.older_than, limit=_PURGE_BATCH)
            forgotten += batch
        documents = store.guards.purge()
    age = max(args.older_than or window, window).total_seconds()
    answer = {"forgotten": forgotten, "older_than_seconds": age, "forgotten_guards": documents}
    were = "was" if forgotten == 1 else "were"
    said = (
        f"forgot {count(forgotten, 'message')} that {were} done everywhere and sent more than {span(age)} ago"
    )
    single(args.output, answer, lambda: [said])
    if documents:
        note(f"forgot {count(documents, 'document')} of guards that nobody changed for long, too")
    if args.older_than is not None and args.older_than < window:
        note(
            f"what is younger is kept for {span(age)}, to know a message that comes twice: [agentic] dedup_window_seconds"
        )


def message_of(args: Namespace, recipient: str | None) -> Message:
    """Make the message that the arguments describe.

    Raises:
        InvalidMessage: It cannot be one.
    """
    given = [value for value in (recipient, args.topic, args.audience) if value is not None]
    if len(given) != 1 and not (not given and args.kind == Kind.HEARTBEAT):
        raise InvalidMessage("say whom it is for in one way: a mailbox, --topic or --audience")
    expires_in = getattr(args, "expires_in", None)
    return Message(
        source=args.source,
        recipient=recipient,
        topic=args.topic,
        audience=args.audience,
        data=_parse(args.data),
        type=args.type,
        kind=Kind(args.kind),
        subject=args.subject,
        reply_to=getattr(args, "reply_to", None),
        ordering_key=args.ordering_key,
        priority=args.priority,
        expires_at=None if expires_in is None else datetime.now(UTC) + expires_in,
    )


def _for_people(said: Mapping[str, Any]) -> dict[str, object]:
    shown = {key: value for key, value in said.items() if value is not None}
    if "mailboxes" in shown:
        shown["mailboxes"] = ", ".join(shown["mailboxes"]) or "(none)"
    return shown


def _message_lines(found: Sequence[DeliveryRecord], now: datetime) -> Iterator[str]:
    shown: set[str] = set()
    for record in found:
        source = record.message.source if record.message else ""
        if source not in shown:
            shown.add(source)
            yield "Message"
            yield from envelope(record)
        when = ", ".join(filter(None, (due(record, now), expiry(record, now))))
        yield f"Delivery {record.delivery_id} to {record.mailbox}"
        yield from fields(
            {
                "state": f"{record.state}{', ' + when if when else ''}, since {iso(record.updated_at)}",
                "attempts": attempt(record),
                "owner": record.owner or "(none)",
                "redrives": record.redrives,
                "reason": record.reason or "(none)",
            },
            "  ",
        )
        yield "  history (failures and interventions, oldest first)"
        yield from (f"  {line}" for line in history(record))


def _stats_data(stats: MailboxStats) -> dict[str, Any]:
    return {
        "mailbox": stats.mailbox,
        "ready": stats.ready,
        "waiting": stats.waiting,
        "delayed": stats.delayed,
        "leased": stats.leased,
        "expired": stats.expired,
        "done": stats.done,
        "dead": stats.dead,
        "total": stats.total,
        "oldest_ready_seconds": stats.oldest_ready_seconds,
    }


def _stats_row(stats: MailboxStats) -> dict[str, object]:
    row = _stats_data(stats)
    oldest = row.pop("oldest_ready_seconds")
    return {**row, "oldest ready": "" if oldest is None else span(oldest)}


def _trace_row(record: DeliveryRecord, now: datetime) -> dict[str, object]:
    row = as_row(record, now)
    message = record.message
    return {
        "message": message.id if message else "",
        "caused by": (message.causation_id or "") if message else "",
        "mailbox": record.mailbox,
        **row,
    }


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise InvalidMessage("--data is nested too deeply to be read as JSON") from None
    except ValueError as error:
        raise InvalidMessage(
            f"--data is not JSON: {error}. In a shell, put single quotes around it and double quotes around "
            """texts: --data '{"name": "value"}' or --data '"a text"'"""
        ) from None
