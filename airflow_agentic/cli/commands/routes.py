"""``airflow agentic routes``: who gets which messages, and why."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_agentic.cli.access import opened
from airflow_agentic.cli.command import command, recorded
from airflow_agentic.cli.commands.messages import message_of
from airflow_agentic.cli.deliveries import unknown_mailbox
from airflow_agentic.cli.output import count, listing, note, shorten
from airflow_agentic.errors import InvalidMessage
from airflow_agentic.messaging import Subscription
from airflow_agentic.messaging.routing import UNROUTABLE, Route

_NAME_WIDTH = 40
_FILTER_WIDTH = 60
_BY_API = "api"


@command
def list_routes(args: Namespace) -> None:
    """List subscriptions: first those of the project file, then the others."""
    with opened(args) as store:
        found = store.bus.subscriptions()
    mine = [each for each in found if args.mailbox in (None, each.mailbox)]
    listing(args.output, [_data(each) for each in mine], map(_row, mine))
    if args.mailbox and not mine:
        note(f"mailbox {args.mailbox!r} subscribed to nothing: it gets what is sent to it by name")


@command
def explain_routes(args: Namespace) -> None:
    """Say who would get a message and who would not; nothing is sent."""
    message = message_of(args, args.to)
    with opened(args) as store:
        found = store.bus.routes(message)
        remark = unknown_mailbox(store.bus, args.to) if args.to else None
    answers = _answers(found, for_group=message.audience is not None)
    listing(args.output, answers, map(_answer_row, answers))
    if not any(route.taken for route in found):
        note(f"nobody would get it: it would go to the dead letters of {UNROUTABLE}")
    if remark:
        note(remark)


@command
@recorded
def subscribe(args: Namespace) -> None:
    """Make or change a subscription, and print it."""
    # The configured store is made by its first use, as everywhere; a path typed by hand must exist.
    with opened(args, create=not args.store_url) as store:
        made = store.bus.subscribe(
            args.mailbox,
            args.topic,
            args.filter,
            role=args.role,
            tags=args.tags or (),
            max_attempts=args.max_attempts,
        )
    listing(args.output, [_data(made)], [_row(made)])


@command
@recorded
def unsubscribe(args: Namespace) -> None:
    """End subscriptions that were made by API, and say how many."""
    if args.filter is not None and args.topic is None:
        raise InvalidMessage(
            "--filter names one subscription together with --topic: give both, or --topic alone"
        )
    with opened(args) as store:
        mine = [each for each in store.bus.subscriptions() if _is_meant(each, args)]
        made = [each for each in mine if each.origin == _BY_API]
        if len(made) > 1 and not args.yes and sys.stdin.isatty():
            note(f"End {count(len(made), 'subscription')} of mailbox {args.mailbox!r}? [y/N]")
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise SystemExit("nothing was ended")
        ended = store.bus.unsubscribe(args.mailbox, args.topic, args.filter)
    listing(args.output, [_data(each) for each in made], map(_row, made))
    note(f"ended: {count(ended, 'subscription')}")
    for origin in dict.fromkeys(each.origin for each in mine if each.origin != _BY_API):
        note(f"it still has what the project declares at {origin}: take that out there")


def _is_meant(each: Subscription, args: Namespace) -> bool:
    topics = (None, each.topic)
    return each.mailbox == args.mailbox and args.topic in topics and args.filter in (None, each.filter)


def _data(each: Subscription) -> dict[str, Any]:
    return {
        "mailbox": each.mailbox,
        "topic": each.topic,
        "filter": each.filter,
        "role": each.role,
        "tags": list(each.tags),
        "max_attempts": each.max_attempts,
        "origin": each.origin,
    }


def _row(each: Subscription) -> dict[str, object]:
    return {
        "mailbox": shorten(each.mailbox, _NAME_WIDTH),
        "topic": each.topic or "",
        "filter": shorten(each.filter or "", _FILTER_WIDTH),
        "role": each.role or "",
        "tags": ", ".join(each.tags),
        "attempts": "" if each.max_attempts is None else each.max_attempts,
        "origin": each.origin,
    }


def _answers(found: Sequence[Route], *, for_group: bool) -> list[dict[str, Any]]:
    """Return one answer for each mailbox: what leads the message there, or all that does not."""
    by_mailbox: dict[str, list[Route]] = {}
    for route in found:
        by_mailbox.setdefault(route.mailbox, []).append(route)
    answers = []
    for mailbox, routes in by_mailbox.items():
        taken = [route for route in routes if route.taken]
        # That a membership does not listen to topics, or a topic to groups, tells nobody anything.
        telling = taken or [route for route in routes if _is_member(route) == for_group] or routes
        answers.append(
            {
                "mailbox": mailbox,
                "gets_it": telling[0].taken,
                "why": "; ".join(dict.fromkeys(route.why for route in telling)),
                "origins": list(dict.fromkeys(_origin(route) for route in telling if route.subscription)),
                "subscriptions": [
                    {"gets_it": route.taken, "why": route.why, "origin": _origin(route)} for route in routes
                ],
            }
        )
    return answers


def _is_member(route: Route) -> bool:
    return route.subscription is not None and route.subscription.topic is None


def _origin(route: Route) -> str | None:
    return route.subscription.origin if route.subscription else None


def _answer_row(answer: Mapping[str, Any]) -> dict[str, object]:
    return {
        "mailbox": shorten(answer["mailbox"], _NAME_WIDTH),
        "gets it": "yes" if answer["gets_it"] else "no",
        "why": answer["why"],
        "origin": ", ".join(answer["origins"]),
    }
