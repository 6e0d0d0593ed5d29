"""``airflow agentic dead-letters``: what nobody could handle, why, and another chance for it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime

from airflow.utils.platform import getuser

from airflow_agentic.cli.access import opened, store_options
from airflow_agentic.cli.command import command, recorded
from airflow_agentic.cli.deliveries import (
    as_data,
    as_dead_row,
    attempt,
    due,
    envelope,
    history,
    unknown_mailbox,
)
from airflow_agentic.cli.output import count, fields, iso, listing, note, shorten, single, span
from airflow_agentic.errors import InvalidMessage, MessageNotFound
from airflow_agentic.messaging import DeliveryRecord, DeliveryState, MessageBus
from airflow_agentic.messaging.ports import DeliveryQuery

_WIDTH = 60


@command
def list_dead_letters(args: Namespace) -> None:
    """List dead letters, oldest first."""
    with opened(args) as store:
        found = store.bus.dead_letters(args.mailbox, limit=args.limit)
        total = _dead(store.bus, args.mailbox)
        remark = unknown_mailbox(store.bus, args.mailbox) if args.mailbox else None
    now = datetime.now(UTC)
    listing(
        args.output, [as_data(record) for record in found], [as_dead_row(record, now) for record in found]
    )
    if remark:
        note(remark)
    elif total > len(found):
        note(f"showing the oldest {len(found):,} of {total:,}; --limit shows more")


@command
def show_dead_letter(args: Namespace) -> None:
    """Show one delivery in full, and how to redrive it."""
    with opened(args) as store:
        found = store.bus.find(DeliveryQuery(ids=(args.delivery_id,), limit=1))
    if not found:
        raise MessageNotFound(
            f"this store has no delivery {args.delivery_id}. `airflow agentic dead-letters list` shows what there is."
        )
    record, now = found[0], datetime.now(UTC)
    redrive = _redrive_command(args) if record.state is DeliveryState.DEAD else None
    single(args.output, {**as_data(record), "redrive": redrive}, lambda: _lines(record, redrive, now))


@command
@recorded
def redrive_dead_letters(args: Namespace) -> None:
    """Make dead letters ready again, and print which."""
    _check_what_to_redrive(args)
    with opened(args) as store:
        if not args.delivery_ids and not args.yes and sys.stdin.isatty():
            _confirm(_dead(store.bus, args.mailbox), args)
        ids = store.bus.redrive(
            args.delivery_ids or None,
            actor=args.actor or getuser(),
            reason=args.reason,
            mailbox=args.mailbox,
            filter="true" if args.all else args.filter,
            to=args.to,
            rate=args.rate,
        )
        found = store.bus.find(DeliveryQuery(ids=tuple(ids), limit=max(1, len(ids))))
        remark = unknown_mailbox(store.bus, args.mailbox) if args.mailbox else None
    listing(args.output, [as_data(record) for record in found], map(_redriven_row, found))
    note(remark or f"redriven: {count(len(ids), 'dead letter')}")


def _dead(bus: MessageBus, mailbox: str | None) -> int:
    return bus.stats(mailbox).dead if mailbox else sum(stats.dead for stats in bus.mailboxes())


def _check_what_to_redrive(args: Namespace) -> None:
    ways = (bool(args.delivery_ids), bool(args.mailbox or args.filter), args.all)
    if sum(ways) != 1:
        raise InvalidMessage(
            "name what to redrive in one way: numbers of deliveries, --mailbox, --filter (with --mailbox or without), or "
            "--all"
        )
    if args.all and not args.yes:
        raise InvalidMessage("--all is every dead letter of every mailbox in this store: say so with --yes")


def _confirm(number: int, args: Namespace) -> None:
    if not number:
        return
    what = count(number, "dead letter")
    if args.filter:
        what = f"those of {what} for which {args.filter} holds"
    where = f"of mailbox {args.mailbox!r}" if args.mailbox else "of all mailboxes"
    note(f"Redrive {what} {where}? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SystemExit("nothing was redriven")


def _redrive_command(args: Namespace) -> str:
    return f"airflow agentic dead-letters redrive {args.delivery_id} --reason 'why'{store_options(args)}"


def _redriven_row(record: DeliveryRecord) -> dict[str, object]:
    message = record.message
    return {
        "delivery": record.delivery_id,
        "mailbox": record.mailbox,
        "state": record.state,
        "redrives": record.redrives,
        "message": shorten(message.id, _WIDTH) if message else "(unreadable)",
        "source": shorten(message.source, _WIDTH) if message else "",
    }


def _lines(record: DeliveryRecord, redrive: str | None, now: datetime) -> Iterator[str]:
    since = span((now - record.updated_at).total_seconds())
    when = due(record, now)
    yield from fields(
        {
            "Delivery": record.delivery_id,
            "Mailbox": record.mailbox,
            "State": f"{record.state}{', ' + when if when else ''}, since {iso(record.updated_at)} ({since})",
            "Attempts": attempt(record),
            "Redrives": record.redrives,
            "Reason": record.reason or "(none)",
        }
    )
    yield "Message"
    yield from envelope(record)
    yield "History (failures and interventions, oldest first)"
    yield from history(record)
    if redrive:
        yield "Give it another chance"
        yield f"  {redrive}"
