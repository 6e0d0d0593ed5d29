"""A message on its way to one mailbox: its states, its lease and its history.

::

    READY ─claim─> LEASED ─ack(token)──────────────> DONE
      ^              │ ├─extend(token)─> LEASED
      │<─release─────┤ ├─lease expired─> claimable again, by the same query
      │<─nack(delay)─┘ └─attempts spent | reject | expired ──> DEAD ─redrive(who, why)─> READY

Deliveries of one mailbox with the same ordering key form a lane. The first open one can be claimed; the others wait
(``READY``, and in nobody's reach) until it is done or dead. So a lane is handled in order, one at a time, and what waits
in it costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from airflow_agentic.errors import StaleLease
from airflow_agentic.messaging.message import Message


class DeliveryState(StrEnum):
    """Where a delivery stands. ``done`` and ``dead`` are its two ends."""

    READY = "ready"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"


@dataclass(frozen=True)
class HistoryEntry:
    """One thing that went wrong with a delivery, or was done about it by a person.

    Attributes:
        at: When, by the store's clock.
        event: ``nack``, ``reject``, ``lease-expired``, ``expired`` or ``redrive``.
        attempt: The attempt it happened in.
        actor: The lease owner, or the person.
        detail: The reason given.
    """

    at: datetime
    event: str
    attempt: int
    actor: str
    detail: str


@dataclass(frozen=True)
class DeliveryRecord:
    """What the store knows of one delivery; reading it takes no lease.

    Attributes:
        delivery_id: Number of the delivery, unique in its store.
        mailbox: Where it is going.
        state: See :class:`DeliveryState`.
        attempts: How often it was handed out since it was sent or redriven.
        max_attempts: After so many it goes to the dead letters.
        visible_at: From when on it can be claimed; for a leased one, when the lease ends.
        updated_at: Last change, by the store's clock.
        message: The envelope, or ``None`` if it cannot be read by this version (see ``reason``).
        reason: Why it is dead, or what the last attempt said.
        owner: Who holds the lease, or held it when the delivery was done.
        waiting: Whether an earlier delivery of its lane must end first.
        redrives: How often it came back from the dead letters.
        history: Failures and interventions, oldest first.
    """

    delivery_id: int
    mailbox: str
    state: DeliveryState
    attempts: int
    max_attempts: int
    visible_at: datetime
    updated_at: datetime
    message: Message | None
    reason: str | None = None
    owner: str | None = None
    waiting: bool = False
    redrives: int = 0
    history: tuple[HistoryEntry, ...] = ()


@dataclass(frozen=True)
class MailboxStats:
    """Counts of one mailbox. ``total`` is always ``ready + leased + done + dead``.

    Attributes:
        ready: Waiting to be claimed, delayed ones included.
        waiting: Those of ``ready`` that wait for an earlier one of their lane.
        delayed: Those of ``ready`` that are not to be claimed yet and do not wait for another one.
        scheduled: Those of ``delayed`` that were sent for later and never handed out.
        leased: In somebody's hands, ``expired`` ones included.
        expired: Those of ``leased`` whose lease ended; the next receiver gets them.
        done: Acked.
        dead: In the dead letters.
        oldest_ready_seconds: Age of the oldest one that could be claimed now, or ``None``.
        newest_claimable: Highest delivery number among those that could be claimed now, or ``None``.
    """

    mailbox: str
    ready: int = 0
    waiting: int = 0
    delayed: int = 0
    scheduled: int = 0
    leased: int = 0
    expired: int = 0
    done: int = 0
    dead: int = 0
    oldest_ready_seconds: float | None = None
    newest_claimable: int | None = None

    @property
    def open(self) -> int:
        """Deliveries that have not ended: ``ready + leased``."""
        return self.ready + self.leased

    @property
    def current(self) -> int:
        """Those of ``open`` that are today's work: all but what was sent for later."""
        return self.open - self.scheduled

    @property
    def claimable(self) -> int:
        """Deliveries that a receiver would get now."""
        return self.ready - self.delayed - self.waiting + self.expired

    @property
    def total(self) -> int:
        """All deliveries ever made to this mailbox that are still kept."""
        return self.open + self.done + self.dead


class Settles(Protocol):
    """Whatever handed a delivery out and can end it: the bus."""

    def ack(
        self,
        *deliveries: Delivery,
        send: Sequence[Message] = (),
        state: Mapping[str, Any] | None = None,
        versions: Mapping[str, int] | None = None,
        inbox: str | None = None,
    ) -> None:
        """End as done, send and keep state in one commit."""

    def nack(
        self,
        delivery: Delivery,
        *,
        delay: timedelta | None = None,
        reason: str = "",
        send: Sequence[Message] = (),
    ) -> None:
        """Give back as failed."""

    def reject(self, delivery: Delivery, *, reason: str, send: Sequence[Message] = ()) -> None:
        """Put into the dead letters."""

    def release(self, *deliveries: Delivery) -> None:
        """Give back unhandled."""

    def extend(self, delivery: Delivery, lease: timedelta | None = None) -> datetime:
        """Renew the lease; return when it ends."""
        ...


@dataclass
class Delivery:
    """A leased message in the hands of its receiver. End it with exactly one of ack, nack, reject, release.

    Attributes:
        delivery_id: Number of the delivery, unique in its store.
        mailbox: Where it came from.
        message: The envelope.
        attempt: 1 for the first time it is handed out.
        max_attempts: After so many failed attempts it goes to the dead letters.
        token: Proof of the lease; every call below carries it.
        lease_until: When the lease ends unless it is extended.
        ordering_key: The key of its lane, if it has one.
    """

    delivery_id: int
    mailbox: str
    message: Message
    attempt: int
    max_attempts: int
    token: str
    lease_until: datetime
    ordering_key: str | None = None
    bus: Settles = field(repr=False, compare=False, kw_only=True)

    def ack(
        self,
        send: Sequence[Message] = (),
        state: Mapping[str, Any] | None = None,
        versions: Mapping[str, int] | None = None,
        inbox: str | None = None,
    ) -> None:
        """The message was handled. What follows from it takes effect in the same commit, or not at all.

        Args:
            send: Messages that the handling produced.
            state: Values to keep for this mailbox, as JSON (``None`` forgets one); see ``MessageBus.state``.
            versions: Versions that those values must still have: 0 for one that must not be there yet.
            inbox: Name of a consumer: note that it handled this message, whatever delivery it came by.

        Raises:
            StaleLease: The lease ended or was lost; nothing was acked, sent or kept.
            StateConflict: A value has another version; nothing was acked, sent or kept. It is ``AlreadyHandled`` if
                the consumer handled the message before: then ack without effects.
            MessageTooLarge: One of ``send`` is over the limit; nothing was acked, sent or kept.
            MailboxFull: There is no room for one of ``send``; nothing was acked, sent or kept.
        """
        self.bus.ack(self, send=send, state=state, versions=versions, inbox=inbox)

    def nack(self, delay: timedelta | None = None, reason: str = "", send: Sequence[Message] = ()) -> None:
        """The attempt failed: come again later, or go to the dead letters if the attempts are spent.

        Args:
            delay: Time until it can be claimed again. Default: exponential backoff with full jitter.
            reason: What went wrong; kept in the history.
            send: Messages that leave in the same commit.

        Raises:
            StaleLease: The lease ended or was lost; nothing was changed.
        """
        self.bus.nack(self, delay=delay, reason=reason, send=send)

    def reject(self, reason: str, send: Sequence[Message] = ()) -> None:
        """It can never be handled: go to the dead letters now.

        Args:
            reason: Why; kept with the dead letter.
            send: Messages that leave in the same commit.

        Raises:
            StaleLease: The lease ended or was lost; nothing was changed.
        """
        self.bus.reject(self, reason=reason, send=send)

    def release(self) -> None:
        """Give it back unhandled; the attempt is not counted.

        Raises:
            StaleLease: The lease ended or was lost; nothing was changed.
        """
        self.bus.release(self)

    def extend(self, lease: timedelta | None = None) -> None:
        """Keep it for ``lease`` from now on (default: the bus's lease).

        Raises:
            StaleLease: The lease ended or was lost.
        """
        self.lease_until = self.bus.extend(self, lease)


def reference(message: Message) -> dict[str, Any]:
    """Return what a task may put into XCom to point at a message: plain JSON, without the data."""
    return {
        "id": message.id,
        "source": message.source,
        "recipient": message.recipient,
        **{name: value for name in ("topic", "audience") if (value := getattr(message, name)) is not None},
        "type": message.type,
        "correlation_id": message.correlation_id,
    }


def stale_lease(delivery_id: int) -> StaleLease:
    """Return the error for a lease that is not held any more."""
    return StaleLease(
        f"the lease of delivery {delivery_id} ended or was settled before; nothing was changed. "
        "Receive with a longer lease, or extend it while working."
    )
