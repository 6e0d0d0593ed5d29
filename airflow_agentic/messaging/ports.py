"""What a store must do for the bus. ``stores/`` implements it; the bus does everything else.

All times are the store's own clock. Every method is one transaction that is on disk when it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from airflow_agentic.messaging.delivery import DeliveryRecord, DeliveryState, MailboxStats


@dataclass(frozen=True)
class Outgoing:
    """A message as the store takes it: encoded, with the attributes that it searches by."""

    message_id: str
    source: str
    mailbox: str
    correlation_id: str
    envelope: bytes
    max_attempts: int
    delay: timedelta = timedelta(0)


@dataclass(frozen=True)
class Claim:
    """A delivery as the store hands it out."""

    delivery_id: int
    token: str
    attempt: int
    max_attempts: int
    lease_until: datetime
    envelope: bytes


@dataclass(frozen=True)
class Settlement:
    """How one leased delivery ends or goes back.

    Attributes:
        delivery_id: Which.
        token: Proof of the lease.
        outcome: ``ack`` (done), ``nack`` (ready after ``delay``, or dead when the attempts are spent),
            ``reject`` (dead), ``release`` (ready now, the attempt is not counted).
        delay: For ``nack``.
        reason: For ``nack`` and ``reject``; kept in the history.
    """

    delivery_id: int
    token: str
    outcome: Literal["ack", "nack", "reject", "release"]
    delay: timedelta = timedelta(0)
    reason: str = ""


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


class MessageStore(Protocol):
    """Port: the durable part of the bus."""

    def append(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """Store each message with its delivery, unless ``(source, message_id)`` is known already.

        Returns:
            One flag a message: ``True`` if it was stored, ``False`` if it is a duplicate.
        """
        ...

    def claim(self, mailbox: str, *, limit: int, lease: timedelta, owner: str) -> list[Claim]:
        """Lease up to ``limit`` deliveries that are ready or whose lease ended; the attempt is counted.

        A delivery whose lease ended with its last attempt goes to the dead letters instead.
        """
        ...

    def settle(self, settlements: Sequence[Settlement], outgoing: Sequence[Outgoing] = ()) -> None:
        """Settle deliveries and store ``outgoing`` in one transaction.

        Raises:
            StaleLease: One of the leases is not held any more; nothing was changed at all.
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

    def redrive(self, query: DeliveryQuery, *, actor: str, reason: str) -> list[int]:
        """Make dead deliveries ready again, with no attempts counted, and record who and why.

        Returns:
            Numbers of the deliveries that were dead and match the query.
        """
        ...

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """Read deliveries without touching them."""
        ...

    def stats(self, mailbox: str | None = None) -> list[MailboxStats]:
        """Count deliveries by mailbox, ordered by name; one entry, or none, for a named mailbox."""
        ...
