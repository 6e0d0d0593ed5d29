"""The message bus: what agents, operators and people call."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_agentic.errors import InvalidMessage, MessageNotFound, MessageTooLarge, UndecodableMessage
from airflow_agentic.messaging.codec import decode, encode
from airflow_agentic.messaging.delivery import (
    Delivery,
    DeliveryRecord,
    DeliveryState,
    MailboxStats,
    stale_lease,
)
from airflow_agentic.messaging.message import Message
from airflow_agentic.messaging.ports import Claim, DeliveryQuery, MessageStore, Outgoing, Settlement

_NO_TIME = timedelta(0)


@dataclass(frozen=True)
class BusOptions:
    """Limits and times of a bus; the defaults are those of ``[agentic]``.

    Attributes:
        max_message_bytes: Largest encoded message, in bytes.
        max_attempts: How often a message is handed out before it goes to the dead letters.
        lease: How long a received message belongs to its receiver.
        retry_base: Upper bound of the first random delay after a nack; doubles with each attempt.
        retry_max: Upper bound of all such delays.
        poll: How often a waiting ``receive`` looks again.
        attempts: Mailboxes with a ``max_attempts`` of their own.
    """

    max_message_bytes: int = 1_048_576
    max_attempts: int = 5
    lease: timedelta = timedelta(seconds=60)
    retry_base: timedelta = timedelta(seconds=1)
    retry_max: timedelta = timedelta(seconds=300)
    poll: timedelta = timedelta(seconds=0.5)
    attempts: Mapping[str, int] = field(default_factory=dict, hash=False)


class MessageBus:
    """Sends, receives and settles messages on a store. Delivery is at least once.

    Args:
        store: The durable part.
        options: Limits and times.
        owner: Name of this receiver in leases and histories; default ``host:pid``.
    """

    def __init__(
        self, store: MessageStore, options: BusOptions | None = None, owner: str | None = None
    ) -> None:
        self._store = store
        self.options = options or BusOptions()
        self._owner = owner

    def with_options(self, **changes: Any) -> MessageBus:
        """Return the same bus with other limits or times."""
        return MessageBus(self._store, replace(self.options, **changes), self._owner)

    def send(self, message: Message, *, delay: timedelta = _NO_TIME) -> bool:
        """Send one message. When this returns, it is on disk.

        Args:
            message: What to send.
            delay: Time before which nobody can receive it.

        Returns:
            ``False`` if a message with the same source and id was sent before; nothing is sent twice.

        Raises:
            MessageTooLarge: The encoded message is over the limit.
        """
        return self.send_many([message], delay=delay)[0]

    def send_many(self, messages: Iterable[Message], *, delay: timedelta = _NO_TIME) -> list[bool]:
        """Send messages in one transaction: all of them or, on an error, none.

        Returns:
            One flag a message, as for :meth:`send`.

        Raises:
            MessageTooLarge: One of the messages is over the limit.
        """
        outgoing = self._outgoing(messages, delay)
        return self._store.append(outgoing) if outgoing else []

    def receive(
        self,
        mailbox: str,
        *,
        max_messages: int = 1,
        lease: timedelta | None = None,
        wait: timedelta = _NO_TIME,
    ) -> list[Delivery]:
        """Lease messages of a mailbox; the attempt is counted for each.

        A message that this version cannot decode goes to the dead letters with the reason and is not returned.

        Args:
            mailbox: Whose messages.
            max_messages: At most so many.
            lease: How long they belong to the caller (default: the bus's lease).
            wait: How long to wait for the first one; the caller's thread sleeps.

        Returns:
            The deliveries, oldest first; empty if there was none in time.

        Raises:
            InvalidMessage: ``max_messages`` or ``lease`` is not positive.
        """
        lease = self._lease(lease)
        if max_messages < 1:
            raise InvalidMessage(f"max_messages must be positive, it is {max_messages}")
        deadline = time.monotonic() + wait.total_seconds()
        while True:
            claims = self._store.claim(mailbox, limit=max_messages, lease=lease, owner=self._me())
            deliveries = [d for claim in claims if (d := self._delivery(mailbox, claim)) is not None]
            left = deadline - time.monotonic()
            if claims and not deliveries:
                continue  # All were undecodable: there can be good ones behind them.
            if deliveries or left <= 0:
                return deliveries
            time.sleep(min(self.options.poll.total_seconds(), left))

    def ack(self, *deliveries: Delivery, send: Sequence[Message] = ()) -> None:
        """End deliveries as done and send what handling them produced, in one commit; see ``Delivery.ack``."""
        self._store.settle(
            [Settlement(d.delivery_id, d.token, "ack") for d in deliveries], self._outgoing(send, _NO_TIME)
        )

    def nack(self, delivery: Delivery, *, delay: timedelta | None = None, reason: str = "") -> None:
        """Give a failed delivery back; see ``Delivery.nack``."""
        if delay is None:
            delay = self._backoff(delivery.attempt)
        self._store.settle([Settlement(delivery.delivery_id, delivery.token, "nack", delay, reason)])

    def reject(self, delivery: Delivery, *, reason: str) -> None:
        """Put a delivery into the dead letters; see ``Delivery.reject``."""
        self._store.settle([Settlement(delivery.delivery_id, delivery.token, "reject", reason=reason)])

    def release(self, *deliveries: Delivery) -> None:
        """Give deliveries back unhandled; see ``Delivery.release``."""
        self._store.settle([Settlement(d.delivery_id, d.token, "release") for d in deliveries])

    def extend(self, delivery: Delivery, lease: timedelta | None = None) -> datetime:
        """Make the lease end ``lease`` from now; see ``Delivery.extend``."""
        ends = self._store.extend({delivery.delivery_id: delivery.token}, self._lease(lease))
        if delivery.delivery_id not in ends:
            raise stale_lease(delivery.delivery_id)
        return ends[delivery.delivery_id]

    def extend_all(self, deliveries: Sequence[Delivery], lease: timedelta | None = None) -> list[Delivery]:
        """Make the leases of many deliveries end ``lease`` from now, in one commit.

        Returns:
            Those whose lease was lost; the others have their new ``lease_until``.
        """
        ends = self._store.extend({d.delivery_id: d.token for d in deliveries}, self._lease(lease))
        for delivery in deliveries:
            delivery.lease_until = ends.get(delivery.delivery_id, delivery.lease_until)
        return [delivery for delivery in deliveries if delivery.delivery_id not in ends]

    def dead_letters(self, mailbox: str | None = None, *, limit: int = 100) -> list[DeliveryRecord]:
        """Read dead letters with reason and history, oldest first.

        Args:
            mailbox: Only of this mailbox; default all.
            limit: At most so many.
        """
        return self.find(DeliveryQuery(mailbox=mailbox, states=(DeliveryState.DEAD,), limit=limit))

    def redrive(
        self,
        ids: Iterable[int] | int | None = None,
        *,
        actor: str,
        reason: str,
        mailbox: str | None = None,
    ) -> list[int]:
        """Give dead letters another chance. Who did it and why is kept in the history.

        Args:
            ids: Delivery numbers, as ``dead_letters`` shows them.
            actor: Who does it.
            reason: Why.
            mailbox: Instead of ``ids``: all dead letters of this mailbox.

        Returns:
            Numbers of the deliveries that are ready again.

        Raises:
            InvalidMessage: Neither or both of ``ids`` and ``mailbox``, or an empty actor or reason.
            MessageNotFound: One of ``ids`` is not a dead letter; nothing was redriven.
        """
        if (ids is None) == (mailbox is None):
            raise InvalidMessage("redrive takes delivery numbers or a mailbox, one of the two")
        if not actor.strip() or not reason.strip():
            raise InvalidMessage("redrive needs an actor and a reason: both are kept in the history")
        if ids is None:
            return self._store.redrive(DeliveryQuery(mailbox=mailbox), actor=actor, reason=reason)
        wanted = (ids,) if isinstance(ids, int) else tuple(ids)
        dead = {record.delivery_id for record in self.find(DeliveryQuery(ids=wanted, limit=len(wanted) or 1))
                if record.state is DeliveryState.DEAD}  # fmt: skip
        if missing := sorted(set(wanted) - dead):
            raise MessageNotFound(
                f"not in the dead letters: {', '.join(map(str, missing))}. Nothing was redriven; "
                "`airflow agentic dead-letters list` shows what can be."
            )
        return self._store.redrive(DeliveryQuery(ids=wanted), actor=actor, reason=reason)

    def stats(self, mailbox: str) -> MailboxStats:
        """Count the deliveries of one mailbox; zeros if nothing was ever sent to it."""
        return next(iter(self._store.stats(mailbox)), MailboxStats(mailbox))

    def mailboxes(self) -> list[MailboxStats]:
        """Count the deliveries of every mailbox, ordered by name."""
        return self._store.stats()

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """Read deliveries without touching them, oldest first."""
        return self._store.find(query)

    def trace(self, identifier: str, *, limit: int = 1_000) -> list[DeliveryRecord]:
        """Read every delivery of a conversation, oldest first.

        Args:
            identifier: A correlation id, or the id of any message in the conversation.
            limit: At most so many.

        Raises:
            MessageNotFound: Nothing has that id.
        """
        found = self.find(DeliveryQuery(correlation_id=identifier, limit=limit))
        if not found:
            named = self.find(DeliveryQuery(message_id=identifier, limit=1))
            if not named:
                raise MessageNotFound(f"no message or conversation has the id {identifier!r} in this store")
            if named[0].message is None:
                return named
            found = self.find(DeliveryQuery(correlation_id=named[0].message.correlation_id, limit=limit))
        return found

    def _me(self) -> str:
        return self._owner or process_name()

    def _lease(self, lease: timedelta | None) -> timedelta:
        if lease is None:
            return self.options.lease
        if lease <= _NO_TIME:
            raise InvalidMessage(f"a lease must be positive, it is {lease}")
        return lease

    def _backoff(self, attempt: int) -> timedelta:
        """Exponential backoff with full jitter (M. Brooker, AWS Architecture Blog, 2015)."""
        bound = min(
            self.options.retry_max.total_seconds(),
            self.options.retry_base.total_seconds() * 2.0 ** min(attempt - 1, 30),
        )
        return timedelta(seconds=random.uniform(0, bound))  # noqa: S311  # jitter, not a secret

    def _delivery(self, mailbox: str, claim: Claim) -> Delivery | None:
        try:
            message = decode(claim.envelope)
        except UndecodableMessage as error:
            self._store.settle([Settlement(claim.delivery_id, claim.token, "reject", reason=str(error))])
            return None
        return Delivery(
            delivery_id=claim.delivery_id,
            mailbox=mailbox,
            message=message,
            attempt=claim.attempt,
            max_attempts=claim.max_attempts,
            token=claim.token,
            lease_until=claim.lease_until,
            bus=self,
        )

    def _outgoing(self, messages: Iterable[Message], delay: timedelta) -> list[Outgoing]:
        outgoing = []
        for message in messages:
            envelope = encode(message)
            if len(envelope) > self.options.max_message_bytes:
                raise MessageTooLarge(
                    f"message {message.id} from {message.source!r} to {message.recipient!r} is "
                    f"{len(envelope):,} bytes; the limit is {self.options.max_message_bytes:,}. Send a reference "
                    "to the data (an object storage path), or raise [agentic] max_message_bytes."
                )
            outgoing.append(
                Outgoing(
                    message_id=message.id,
                    source=message.source,
                    mailbox=message.recipient,
                    correlation_id=message.correlation_id,
                    envelope=envelope,
                    max_attempts=self.options.attempts.get(message.recipient, self.options.max_attempts),
                    delay=delay,
                )
            )
        return outgoing


def process_name() -> str:
    """Return ``host:pid``; not to be kept, since a forked child must not work under its parent's name."""
    return f"{socket.gethostname()}:{os.getpid()}"
