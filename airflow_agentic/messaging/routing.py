"""Who gets a message: the recipient it names, a group, or whoever subscribed to its topic and content.

Receivers of one mailbox compete for its messages; every mailbox that a message leads to gets a copy of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_agentic.errors import InvalidFilter, InvalidMessage
from airflow_agentic.messaging.filters import attributes, compiled
from airflow_agentic.messaging.message import Message
from airflow_agentic.messaging.topics import TopicIndex, check_pattern
from airflow_agentic.observability.metrics import Metrics, NoMetrics

UNROUTABLE = "agentic.unroutable"
"""Mailbox whose dead letters are the messages that led to nobody."""


@dataclass(frozen=True)
class Subscription:
    """What a mailbox wants to hear.

    Attributes:
        mailbox: Who gets the messages.
        topic: A pattern; ``None`` for a mailbox that only takes part in broadcasts.
        filter: A CEL condition on ``msg``; see :class:`airflow_agentic.messaging.filters.Filter`.
        role: Broadcasts to ``role:…`` reach it.
        tags: Broadcasts to ``tag:…`` reach it.
        max_attempts: Attempts of messages that come by this subscription; default the mailbox's.
        origin: Where it is declared: ``api``, or a place in the project file.
    """

    mailbox: str
    topic: str | None = None
    filter: str | None = None
    role: str | None = None
    tags: tuple[str, ...] = ()
    max_attempts: int | None = None
    origin: str = "api"


def asked_for(
    mailbox: str,
    topic: str | None = None,
    filter: str | None = None,  # noqa: A002  # the field's own word
    *,
    role: str | None = None,
    tags: Iterable[str] = (),
    max_attempts: int | None = None,
) -> Subscription:
    """Make a subscription of what somebody asks for; see ``MessageBus.subscribe``.

    Raises:
        InvalidMessage: The mailbox, the pattern, the role or a tag cannot be one, or there are no attempts.
        InvalidFilter: The filter does not compile.
    """
    tags = (tags,) if isinstance(tags, str) else tuple(tags)
    if topic is None and (filter is not None or not (role or tags)):
        topic = "#"
    if topic is not None:
        check_pattern(topic)
    if filter is not None:
        compiled(filter)
    if max_attempts is not None and max_attempts < 1:
        raise InvalidMessage(f"max_attempts must be positive, it is {max_attempts}")
    # The rules of a message for names hold.
    Message(source="bus", recipient=mailbox)
    for audience in (*([] if role is None else [f"role:{role}"]), *(f"tag:{tag}" for tag in tags)):
        Message(source="bus", audience=audience)
    return Subscription(mailbox, topic, filter, role, tags, max_attempts)


@dataclass(frozen=True)
class Route:
    """One mailbox that a message leads to, or does not.

    Attributes:
        mailbox: Which.
        taken: Whether the message goes there.
        why: The reason, for people.
        subscription: What was asked; ``None`` for a recipient that the message names.
    """

    mailbox: str
    taken: bool
    why: str
    subscription: Subscription | None = None


class Router:
    """Finds the mailboxes of messages.

    Args:
        subscriptions: All that are known.
        metrics: Counts filters that failed, as ``bus.filter_errors``.
    """

    def __init__(self, subscriptions: Sequence[Subscription], metrics: Metrics | None = None) -> None:
        self._subscriptions = tuple(subscriptions)
        self._metrics = metrics or NoMetrics()

    def routes(self, message: Message) -> list[Route]:
        """Return where a message goes: each mailbox once, ordered by name."""
        taken = {route.mailbox: route for route in reversed(list(self._asked(message))) if route.taken}
        return [taken[mailbox] for mailbox in sorted(taken)]

    def explain(self, message: Message) -> list[Route]:
        """Return every mailbox that was thought of, and why it gets the message or not; takers first."""
        known = list(self._asked(message))
        asked = {route.subscription for route in known}
        others = [
            Route(each.mailbox, taken=False, why=_passed_over(each, message), subscription=each)
            for each in self._subscriptions
            if message.recipient is None and each not in asked
        ]
        return sorted(known + others, key=lambda route: (not route.taken, route.mailbox))

    @functools.cached_property
    def _index(self) -> TopicIndex[Subscription]:
        return TopicIndex([(each.topic, each) for each in self._subscriptions if each.topic is not None])

    def _asked(self, message: Message) -> Iterator[Route]:
        if message.recipient is not None:
            yield Route(message.recipient, taken=True, why="the message names it as its recipient")
        elif message.audience is not None:
            yield from self._members(message.audience)
        elif message.topic is not None:
            found = self._index.matching(message.topic)
            values = attributes(message) if any(each.filter for each in found) else {}
            for each in found:
                yield self._answer(each, values)

    def _members(self, audience: str) -> Iterator[Route]:
        kind, _, name = audience.partition(":")
        for each in self._subscriptions:
            if (
                kind == "all"
                or (kind == "role" and each.role == name)
                or (kind == "tag" and name in each.tags)
            ):
                why = "it takes part in broadcasts" if kind == "all" else f"it has the {kind} {name}"
                yield Route(each.mailbox, taken=True, why=why, subscription=each)

    def _answer(self, each: Subscription, values: dict[str, Any]) -> Route:
        why = f"it subscribed to {each.topic}"
        if each.filter is None:
            return Route(each.mailbox, taken=True, why=why, subscription=each)
        holds, fault = _held(each.filter, values)
        if fault is not None:
            self._metrics.count("bus.filter_errors", tags={"mailbox": each.mailbox})
            said = f"the filter {each.filter} could not be answered: {fault}"
        else:
            said = f"the filter {each.filter} {'holds' if holds else 'does not hold'}"
        return Route(each.mailbox, holds, f"{why}, and {said}", each)


def _held(text: str, values: dict[str, Any]) -> tuple[bool, str | None]:
    """Say whether a filter holds; one that was kept by another version may not compile here."""
    try:
        return compiled(text).matches(values)
    except InvalidFilter as error:
        return False, str(error)


def _passed_over(each: Subscription, message: Message) -> str:
    if message.audience is not None:
        return f"it is not in the audience {message.audience}"
    if each.topic is None:
        return "it takes part in broadcasts only"
    return f"the topic does not match {each.topic}"
