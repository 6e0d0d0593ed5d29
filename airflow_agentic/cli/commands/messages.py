"""``airflow agentic messages``: mailboxes, conversations, and a message by hand."""

from __future__ import annotations

import json
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any

from airflow_agentic.cli import conversation
from airflow_agentic.cli.access import opened, store_options
from airflow_agentic.cli.command import command
from airflow_agentic.cli.deliveries import as_data, as_row, unknown_mailbox
from airflow_agentic.cli.output import fields, is_machine, listing, note, say, single, span
from airflow_agentic.errors import InvalidMessage
from airflow_agentic.messaging import DeliveryRecord, DeliveryState, MailboxStats, Message
from airflow_agentic.messaging.delivery import reference
from airflow_agentic.messaging.ports import DeliveryQuery

_OPEN = (DeliveryState.READY, DeliveryState.LEASED)
_TRACE_LIMIT = 1_000


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
        found = store.bus.trace(args.identifier, limit=_TRACE_LIMIT)
    now = datetime.now(UTC)
    if args.output == "table":
        say(*conversation.draw(found, args.identifier, now))
    else:
        listing(args.output, [as_data(r) for r in found], [_trace_row(r, now) for r in found])
    if len(found) == _TRACE_LIMIT:
        note(f"only the {_TRACE_LIMIT:,} oldest messages are shown")


@command
def send_message(args: Namespace) -> None:
    """Send one message, and print the reference that points at it."""
    message = Message(source=args.source, recipient=args.mailbox, data=_parse(args.data), type=args.type)
    # The configured store is made by its first use, as everywhere; a path typed by hand must exist.
    with opened(args, create=not args.store_url) as store:
        store.bus.send(message)
    single(args.output, reference(message), lambda: fields(reference(message)))
    if not is_machine(args.output):
        note(f"follow it: airflow agentic messages trace {message.id}{store_options(args)}")


def _stats_data(stats: MailboxStats) -> dict[str, Any]:
    return {
        "mailbox": stats.mailbox,
        "ready": stats.ready,
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
