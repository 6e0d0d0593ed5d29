"""What a store must do for the bus. ``stores/`` implements it; the bus does everything else.

All times are the store's own clock. Every method is one transaction that is on disk when it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from airflow_agentic.messaging.delivery import DeliveryRecord, DeliveryState, MailboxStats
from airflow_agentic.messaging.message import DEFAULT_PRIORITY
from airflow_agentic.messaging.routing import Subscription

Overflow = Literal["block", "refuse", "dead-letter"]
_NO_TIME = timedelta(0)

EXPIRED = "expired: nobody took it in time"
"""Reason of dead letters whose message was of no use any more."""


@dataclass(frozen=True)
class Address:
    """One mailbox that a message goes to.

    Attributes:
        mailbox: Which.
        max_attempts: How often it may be handed out there.
        limit: Largest number of open deliveries (ready or leased) of the mailbox; 0 for none.
        overflow: What to do beyond it; to a store ``block`` and ``refuse`` are the same.
        dead: Reason to make it a dead letter at once.
    """

    mailbox: str
    max_attempts: int
    limit: int = 0
    overflow: Overflow = "refuse"
    dead: str | None = None

    @property
    def full(self) -> str:
        """What is said where the mailbox has no room."""
        return f"the mailbox {self.mailbox!r} is full: it may have {self.limit} open messages"


@dataclass(frozen=True)
class Outgoing:
    """A message as the store takes it: encoded, with the attributes that it searches and orders by.

    Attributes:
        message_id: With ``source``, what duplicates are known by.
        source: Who says it.
        correlation_id: The conversation.
        envelope: The encoded message.
        addresses: Where it goes: one delivery each. No mailbox comes twice.
        ordering_key: Deliveries of a mailbox with the same key form a lane.
        priority: 0 to 9.
        delay: Time before which nobody can receive it.
        ttl: Time after which it is of no use, from now; if that is not positive, its deliveries are dead at once.
    """

    message_id: str
    source: str
    correlation_id: str
    envelope: bytes
    addresses: tuple[Address, ...]
    ordering_key: str | None = None
    priority: int = DEFAULT_PRIORITY
    delay: timedelta = _NO_TIME
    ttl: timedelta | None = None


@dataclass(frozen=True)
class Claim:
    """A delivery as the store hands it out."""

    delivery_id: int
    token: str
    attempt: int
    max_attempts: int
    lease_until: datetime
    envelope: bytes
    ordering_key: str | None = None
    priority: int = DEFAULT_PRIORITY


@dataclass(frozen=True)
class Settlement:
    """How one leased delivery ends or goes back.

    Attributes:
        delivery_id: Which.
        token: Proof of the lease.
        outcome: ``ack`` (done), ``nack`` (ready after ``delay``, or dead when the attempts are spent),
            ``reject`` (dead), ``release`` (ready after ``delay``, the attempt is not counted).
        delay: For ``nack`` and ``release``.
        reason: For ``nack`` and ``reject``; kept in the history.
        mailbox: Where it was claimed.
        ordering_key: The key it was claimed with, if any.
    """

    delivery_id: int
    token: str
    outcome: Literal["ack", "nack", "reject", "release"]
    delay: timedelta = _NO_TIME
    reason: str = ""
    mailbox: str = ""
    ordering_key: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What is to be claimed.

    Attributes:
        mailbox: Whose.
        limit: At most so many.
        lease: How long they belong to the owner.
        owner: Who.
    """

    mailbox: str
    limit: int
    lease: timedelta
    owner: str


@dataclass(frozen=True)
class DeliveryQuery:
    """Which deliveries to read; all conditions must hold. Order: oldest first.

    Attributes:
        mailbox: Only of this mailbox.
        states: Only in one of these states; empty means all.
        ids: Only these delivery numbers.
        message_id: Only of the message with this id.
        correlation_id: Only of this conversation or DAG run.
        limit: At most so many rows.
    """

    mailbox: str | None = None
    states: tuple[DeliveryState, ...] = ()
    ids: tuple[int, ...] | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    limit: int = 100


@dataclass(frozen=True)
class Heartbeat:
    """The last sign of life of a source.

    Attributes:
        source: Whose.
        at: When it came.
        due_at: When the next one is late.
        late: Whether it is.
        reported: Whether somebody was told of that.
        envelope: The encoded message.
    """

    source: str
    at: datetime
    due_at: datetime
    late: bool
    reported: bool
    envelope: bytes


@dataclass(frozen=True)
class StateEntry:
    """A value that consumers keep in the store.

    Attributes:
        scope: Whose: by default the mailbox.
        key: Its name.
        value: JSON, encoded.
        version: 1 when it is made, and one more with each change.
        updated_at: When.
    """

    scope: str
    key: str
    value: bytes
    version: int
    updated_at: datetime


@dataclass(frozen=True)
class StateChange:
    """A value to keep.

    Attributes:
        scope: Whose.
        key: Its name.
        value: JSON, encoded; ``None`` to forget it.
        expected: Version that it must have now; 0 if it must not be there; ``None`` if that does not matter.
    """

    scope: str
    key: str
    value: bytes | None
    expected: int | None = None


class MessageStore(Protocol):
    """Port: messages and their deliveries, on the way. State machine and lanes: ``messaging/delivery.py``."""

    def append(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """Store each message with its deliveries, unless ``(source, message_id)`` is known already.

        A delivery of a lane (mailbox and ordering key) that has an open delivery waits until that one has ended.

        Returns:
            One flag a message: ``True`` if it was stored, ``False`` if it is a duplicate.

        Raises:
            MailboxFull: A mailbox that refuses or blocks has no room; nothing was stored.
        """
        ...

    def claim(self, wanted: Wanted) -> list[Claim]:
        """Lease deliveries that are ready or whose lease ended, and do not wait; the attempt is counted.

        Higher priorities come first; within one, what became visible first. A delivery whose lease ended with its
        last attempt, or whose message has expired, goes to the dead letters instead.

        Returns:
            The claims, by priority (highest first) and number.
        """
        ...

    def settle(
        self,
        settlements: Sequence[Settlement],
        outgoing: Sequence[Outgoing] = (),
        changes: Sequence[StateChange] = (),
        then: Wanted | None = None,
    ) -> list[Claim]:
        """Settle deliveries, store ``outgoing``, change state and claim what comes ``then``, in one transaction.

        What ends a delivery lets the next one of its lane (lowest number) be claimed.

        Returns:
            The claims; it may be fewer than there are, even none, where some went to the dead letters instead.

        Raises:
            StaleLease: One of the leases is not held any more; nothing was changed at all.
            MailboxFull: As for :meth:`append`; nothing was changed at all.
            StateConflict: A value is not of the expected version; nothing was changed at all.
        """
        ...

    def extend(self, held: Mapping[int, str], lease: timedelta) -> dict[int, datetime]:
        """Make leases end ``lease`` from now, in one transaction.

        Args:
            held: Token by delivery number.
            lease: How long from now.

        Returns:
            When each lease ends now, by delivery number; those that are not held any more are missing.
        """
        ...

    def wait(self, mailbox: str, timeout: timedelta) -> None:
        """Return when something may have come to a mailbox, at the latest after ``timeout``. A hint, no promise."""
        ...


class DeliveryBooks(Protocol):
    """Port: what became of messages, and what people do about it."""

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """Read deliveries without touching them."""
        ...

    def stats(self, mailbox: str | None = None) -> list[MailboxStats]:
        """Count deliveries by mailbox, ordered by name; one entry, or none, for a named mailbox."""
        ...

    def redrive(
        self,
        query: DeliveryQuery,
        *,
        actor: str,
        reason: str,
        to: Sequence[str] = (),
        spacing: timedelta = _NO_TIME,
    ) -> list[int]:
        """Make dead deliveries ready again, with no attempts counted and no expiry, and record who and why.

        In its lane a delivery waits as a new one does; among those that wait, its number decides.

        Args:
            query: Which; ``limit`` does not count.
            actor: Who does it.
            reason: Why.
            to: Mailboxes instead of its own: the first one gets the delivery, the others copies without history.
            spacing: The n-th (from 0) can be claimed n times this from now.

        Returns:
            Numbers of the deliveries that were dead and match the query.
        """
        ...

    def purge(self, older_than: timedelta, limit: int) -> list[bytes]:
        """Bury what has expired, and forget old messages that are done everywhere.

        Args:
            older_than: Forget messages that were sent longer ago than this and whose deliveries are all done.
            limit: Forget at most so many.

        Returns:
            The envelopes of the forgotten messages.
        """
        ...


class SubscriptionStore(Protocol):
    """Port: who wants to hear what."""

    def subscribe(self, subscription: Subscription) -> None:
        """Keep a subscription; one of the same mailbox, topic and filter is replaced."""
        ...

    def unsubscribe(self, mailbox: str, topic: str | None = None, filter: str | None = None) -> int:  # noqa: A002
        """Forget subscriptions of a mailbox: all, those of a topic, or the one of a topic and filter.

        Returns:
            How many there were.
        """
        ...

    def subscriptions(self) -> list[Subscription]:
        """Read all subscriptions, ordered by mailbox, topic and filter."""
        ...


class HeartbeatStore(Protocol):
    """Port: the last sign of life of every source."""

    def beat(self, source: str, envelope: bytes, alive_for: timedelta) -> None:
        """Keep a heartbeat in place of the one before; the next one is due in ``alive_for``."""
        ...

    def heartbeats(self) -> list[Heartbeat]:
        """Read the last heartbeat of every source, ordered by source."""
        ...

    def mark_reported(self, source: str, due_at: datetime) -> None:
        """Note that somebody was told of a late heartbeat, unless another one has come since."""
        ...


class StateStore(Protocol):
    """Port: values that consumers keep beside their messages."""

    def read(self, scope: str, key: str) -> StateEntry | None:
        """Read a value; ``None`` if there is none."""
        ...

    def entries(self, scope: str, limit: int = 100) -> list[StateEntry]:
        """Read the values of a scope, ordered by key."""
        ...

    def write(self, changes: Sequence[StateChange]) -> None:
        """Change values, all or none. No value comes twice.

        Raises:
            StateConflict: A value is not of the expected version.
        """
        ...


class Blobs(Protocol):
    """Port: where data is kept that is too large to travel (claim checks)."""

    def put(self, name: str, content: bytes) -> str:
        """Keep content under a name, which it has for ever.

        Returns:
            Where it is.

        Raises:
            StoreUnavailable: It cannot be kept now.
        """
        ...

    def get(self, where: str) -> bytes:
        """Read what :meth:`put` kept.

        Raises:
            ClaimCheckDamaged: It is gone.
            StoreUnavailable: It cannot be read now.
        """
        ...

    def delete(self, where: str) -> None:
        """Forget it; nothing happens if it is gone already."""
        ...


@dataclass(frozen=True)
class BusStore:
    """All that a bus needs of a store.

    Attributes:
        messages: Messages on the way.
        books: What became of them.
        subscriptions: Who wants to hear what.
        heartbeats: Signs of life.
        state: Values that consumers keep.
    """

    messages: MessageStore
    books: DeliveryBooks
    subscriptions: SubscriptionStore
    heartbeats: HeartbeatStore
    state: StateStore
