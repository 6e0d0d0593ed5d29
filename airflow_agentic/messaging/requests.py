"""Requests and their answers: every request has a mailbox of its own for its answer, which a second try finds again."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

from airflow_agentic.errors import InvalidMessage, ReplyTimeout
from airflow_agentic.messaging.delivery import Delivery, DeliveryRecord, DeliveryState
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.messaging.ports import DeliveryQuery

_NAMESPACE = uuid.UUID("0e1c2f5a-8a53-5a0d-9c0e-3b6f2a6f7c11")


class Mailboxes(Protocol):
    """Whatever gives messages out and knows what became of them: the bus."""

    def receive(self, mailbox: str, *, wait: timedelta = timedelta(0)) -> list[Delivery]:
        """Lease messages of a mailbox."""
        ...

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """Read deliveries."""
        ...


def prepared(message: Message, timeout: timedelta) -> Message:
    """Make a request of a message: its mailbox for the answer, and its deadline.

    Raises:
        InvalidMessage: It names a mailbox for the answer itself, or is something else already.
    """
    if message.reply_to is not None:
        raise InvalidMessage(
            "a request that is waited for gets a mailbox for its answer: leave reply_to out. To collect answers in a "
            "mailbox of yours, send it."
        )
    if message.kind not in (Kind.REQUEST, Kind.NOTIFICATION):
        raise InvalidMessage(f"a message of kind {message.kind} is no request")
    return message.model_copy(
        update={
            "kind": Kind.REQUEST,
            "reply_to": reply_mailbox(message),
            "expires_at": message.expires_at or datetime.now(UTC) + timeout,
        }
    )


def span(given: timedelta | float | None, default: timedelta) -> timedelta:
    """Return how long to wait, of what was given in seconds or as a timedelta.

    Raises:
        InvalidMessage: It is not positive.
    """
    if given is None:
        return default
    found = given if isinstance(given, timedelta) else timedelta(seconds=given)
    if found <= timedelta(0):
        raise InvalidMessage(f"a timeout must be positive, it is {found}")
    return found


def reply_mailbox(message: Message) -> str:
    """Return the mailbox for the answer to a request: the same for the same request."""
    # With its length no other source and id look the same.
    return f"reply.{uuid.uuid5(_NAMESPACE, f'{len(message.source)} {message.source} {message.id}')}"


def reply(bus: Mailboxes, request: Message) -> Message | None:
    """Return the answer to a request, if there is one."""
    mailbox = str(request.reply_to)
    while deliveries := bus.receive(mailbox):
        [delivery] = deliveries
        if delivery.message.causation_id == request.id:
            delivery.ack()
            return delivery.message
        delivery.reject(f"it answers {delivery.message.causation_id}, and request {request.id} waits here")
    # A try before this one may have taken it.
    done = bus.find(DeliveryQuery(mailbox=mailbox, states=(DeliveryState.DONE,), limit=1))
    return done[0].message if done else None


def wait_for_reply(bus: Mailboxes, request: Message) -> Message:
    """Wait until a request is answered.

    Raises:
        ReplyTimeout: It was not, before its deadline.
    """
    if (found := reply(bus, request)) is not None:
        return found
    assert request.expires_at is not None
    deadline = time.monotonic() + (request.expires_at - datetime.now(UTC)).total_seconds()
    while (left := deadline - time.monotonic()) > 0:
        for delivery in bus.receive(str(request.reply_to), wait=timedelta(seconds=left)):
            if delivery.message.causation_id == request.id:
                delivery.ack()
                return delivery.message
            delivery.reject(
                f"it answers {delivery.message.causation_id}, and request {request.id} waits here"
            )
    raise timed_out(bus, request)


def timed_out(bus: Mailboxes, request: Message) -> ReplyTimeout:
    """Return the error for a request that nobody answered in time; it says what became of the request."""
    places = [
        f"{record.state} in {record.mailbox!r}" + (f" ({record.reason})" if record.reason else "")
        for record in bus.find(DeliveryQuery(message_id=request.id))
    ]
    where = "; ".join(places) or "not in this store"
    return ReplyTimeout(
        f"request {request.id} to {request.address} was not answered by {request.expires_at}; the request is {where}"
    )
