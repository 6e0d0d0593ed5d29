"""Puts messages into a store: new ones, and those that handling another one produced."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from airflow_agentic.errors import InvalidMessage, MailboxFull
from airflow_agentic.messaging.delivery import Delivery
from airflow_agentic.messaging.dispatch import Dispatcher
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.messaging.options import BusOptions
from airflow_agentic.messaging.ports import BusStore, Claim, Outgoing, Settlement, StateChange, Wanted

_NO_TIME = timedelta(0)


class Sender:
    """Sends, and settles with what leaves in the same commit.

    Args:
        store: Where.
        options: Limits and times.
        dispatch: Prepares messages.
    """

    def __init__(self, store: BusStore, options: BusOptions, dispatch: Dispatcher) -> None:
        self._store = store
        self._options = options
        self._dispatch = dispatch

    def prepared(self, message: Message, delay: timedelta) -> Outgoing:
        """Return a message as the store takes it.

        Raises:
            InvalidMessage: It breaks a rule of its kind, or has expired already.
            MessageTooLarge: It is over the limit.
        """
        outgoing = self._dispatch.outgoing(message, delay)
        if outgoing.ttl is not None and outgoing.ttl <= _NO_TIME:
            raise InvalidMessage(
                f"message {message.id} expired at {message.expires_at}, before it was sent: give it a later expires_at"
            )
        return outgoing

    def append(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """Store messages; wait for room where a mailbox blocks.

        Raises:
            MailboxFull: There is no room, or there was none in time.
        """
        deadline = time.monotonic() + self._options.block.total_seconds()
        blocks = any(address.overflow == "block" for each in outgoing for address in each.addresses)
        while True:
            try:
                return self._store.messages.append(outgoing)
            except MailboxFull:
                if not blocks or time.monotonic() >= deadline:
                    raise
            time.sleep(self._options.poll.total_seconds())

    def beats(self, messages: Iterable[Message]) -> list[tuple[str, bytes, timedelta]]:
        """Return the heartbeats among messages, as the store takes them."""
        return [self._dispatch.sign_of_life(each) for each in messages if each.kind is Kind.HEARTBEAT]

    def beat(self, beats: Iterable[tuple[str, bytes, timedelta]]) -> None:
        """Keep heartbeats."""
        for beat in beats:
            self._store.heartbeats.beat(*beat)

    def settle(
        self,
        settlements: Sequence[Settlement],
        send: Sequence[Message],
        changed: Sequence[StateChange] = (),
        then: Wanted | None = None,
    ) -> list[Claim]:
        """Settle deliveries with what follows from it, in one commit; see the port."""
        outgoing, beats = self._produced(send), self.beats(send)
        claims = self._store.messages.settle(settlements, outgoing, changed, then)
        self.beat(beats)
        return claims

    def _produced(self, messages: Iterable[Message]) -> list[Outgoing]:
        """What handling a message produced must not fail for being late: it is a dead letter then."""
        return [self._dispatch.outgoing(m, _NO_TIME) for m in messages if m.kind is not Kind.HEARTBEAT]


def settlement(delivery: Delivery, outcome: Any) -> Settlement:
    """Return how a delivery ends or goes back."""
    return Settlement(
        delivery.delivery_id,
        delivery.token,
        outcome,
        mailbox=delivery.mailbox,
        ordering_key=delivery.ordering_key,
    )


def plain(text: str) -> str:
    """Return a text that every store takes: half a surrogate pair, as in names of files, has no bytes."""
    return text.encode(errors="replace").decode()
