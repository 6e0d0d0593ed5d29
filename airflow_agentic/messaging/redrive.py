"""Dead letters on their way back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from airflow_agentic.errors import ClaimCheckDamaged, MessageNotFound, Unroutable
from airflow_agentic.messaging.delivery import DeliveryRecord, DeliveryState
from airflow_agentic.messaging.filters import attributes, compiled
from airflow_agentic.messaging.message import Message
from airflow_agentic.messaging.ports import DeliveryBooks, DeliveryQuery
from airflow_agentic.messaging.routing import UNROUTABLE, Router

_MOST = 1_000_000


def redriven(
    books: DeliveryBooks,
    router: Router,
    query: DeliveryQuery,
    filter: str | None,  # noqa: A002  # as for subscribe
    *,
    actor: str,
    reason: str,
    to: str | None,
    spacing: timedelta,
    loaded: Callable[[Message], Message],
) -> list[int]:
    """Redrive what a query and a filter pick; see ``MessageBus.redrive``.

    Args:
        books: Where the dead letters are.
        router: Leads those that led to nobody.
        query: Which; all conditions must hold.
        filter: Only those that fit.
        actor: Who does it.
        reason: Why.
        to: Where they go instead.
        spacing: Time between one and the next.
        loaded: Returns a message with its data, wherever that is kept.

    Raises:
        MessageNotFound: One of the query's numbers is not a dead letter; nothing was redriven.
        Unroutable: One of those that led to nobody still does; nothing was redriven.
    """
    target = () if to is None else (to,)
    if query.ids is None and filter is None and (to is not None or query.mailbox != UNROUTABLE):
        return books.redrive(query, actor=actor, reason=reason, to=target, spacing=spacing)
    dead = _dead(books, query)
    if filter is not None:
        dead = [record for record in dead if _fits(filter, _whole(record, loaded))]
    groups: dict[tuple[str, ...], list[int]] = {}
    for record in dead:
        lost = to is None and record.mailbox == UNROUTABLE
        ways = _ways(router, record, _whole(record, loaded)) if lost else target
        groups.setdefault(ways, []).append(record.delivery_id)
    done: list[int] = []
    for ways, ids in groups.items():
        # All groups begin now: together they keep to the rate.
        step, chosen = spacing * len(groups), DeliveryQuery(ids=tuple(ids))
        done += books.redrive(chosen, actor=actor, reason=reason, to=ways, spacing=step)
    return sorted(done)


def _whole(record: DeliveryRecord, loaded: Callable[[Message], Message]) -> Message | None:
    """Return the message with its data, or without if that is gone."""
    try:
        return record.message and loaded(record.message)
    except ClaimCheckDamaged:
        return record.message


def _fits(filter: str, message: Message | None) -> bool:  # noqa: A002  # as for subscribe
    return message is not None and compiled(filter).matches(attributes(message))[0]


def _dead(books: DeliveryBooks, query: DeliveryQuery) -> list[DeliveryRecord]:
    limit = _MOST if query.ids is None else max(1, len(query.ids))
    states = (DeliveryState.DEAD,)
    dead = books.find(DeliveryQuery(query.mailbox, states, query.ids, limit=limit))
    if missing := sorted(set(query.ids or ()) - {record.delivery_id for record in dead}):
        raise MessageNotFound(
            f"not in the dead letters: {', '.join(map(str, missing))}. Nothing was redriven; "
            "`airflow agentic dead-letters list` shows what can be."
        )
    return dead


def _ways(router: Router, record: DeliveryRecord, message: Message | None) -> tuple[str, ...]:
    found = tuple(route.mailbox for route in router.routes(message)) if message else ()
    if not found:
        shown = message.address if message else "what cannot be read"
        raise Unroutable(
            f"delivery {record.delivery_id} still leads to nobody: nobody subscribed to {shown}. Nothing was redriven; "
            "subscribe, or say to which mailbox it shall go."
        )
    return found
