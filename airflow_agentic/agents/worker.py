"""Works off a mailbox: claims, hands over, acks in one commit with what was produced, and takes the next."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_agentic.agents.durable import WAITS
from airflow_agentic.agents.handling import Handler, Leaving
from airflow_agentic.agents.leases import LeaseRenewer
from airflow_agentic.errors import (
    AlreadyHandled,
    Category,
    InvalidMessage,
    LifecycleError,
    MailboxFull,
    NotAdmitted,
    RejectMessage,
    RunTaken,
    StaleLease,
    StoreError,
)
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.delivery import Delivery, reference
from airflow_agentic.messaging.message import Message
from airflow_agentic.persistence import AwaitingMessage, Sleeping
from airflow_agentic.resilience.failures import Classifier

_log = logging.getLogger(__name__)

MOST_REFERENCES = 100
"""So many handled messages are remembered by reference."""

LINGER = timedelta(seconds=2)

_LOOK_FOR_MESSAGE = timedelta(seconds=10)
_LOOK_FOR_PERSON = timedelta(seconds=30)


@dataclass(frozen=True)
class MailboxReport:
    """What became of the messages of a mailbox in one go.

    Attributes:
        mailbox: Which.
        handled: Acked.
        failed: Given back after an error; they come again or, attempts spent, go to the dead letters.
        rejected: Put into the dead letters.
        lost: Handled after their lease had ended; they come again.
        sent: Messages sent in the same commits.
        open: Deliveries that had not ended when this go did, in whoever's hands, without those sent for later.
    """

    mailbox: str
    handled: int = 0
    failed: int = 0
    rejected: int = 0
    lost: int = 0
    sent: int = 0
    open: int = 0

    def __add__(self, other: MailboxReport) -> MailboxReport:
        """Return both goes together; ``other`` is the later one."""
        mine, theirs = asdict(self), asdict(other)
        counts = {key: mine[key] + theirs[key] for key in mine if key not in ("mailbox", "open")}
        return MailboxReport(self.mailbox, open=other.open, **counts)

    @property
    def settled(self) -> int:
        """Messages that were dealt with, one way or the other."""
        return self.handled + self.failed + self.rejected


class MailboxWorker:
    """Works off a mailbox with a handler.

    A handler that is refused by a guard ends the go: ``refusal`` says why, and the messages are given back uncounted.
    A message whose durable run waits, or is in other hands, is given back uncounted for later, and the others are handled;
    ``waiting`` says how many there were.

    Args:
        bus: Where the messages come from and go to.
        handler: Does the work.
        lease: How long a message belongs to this worker at a time; renewed while the handler works.
        batch: So many messages are handed over at once. They are acked together; if the handler fails on them, each
            is handed over alone, so that one bad message costs the others no attempt.
        inbox: Name of a consumer: a message that it handled before, whatever delivery it came by, is acked without
            effects. Costs a read and a row for each message.
        classifier: Says what failures mean: a message whose failure is permanent fails the same way for everybody.
    """

    def __init__(
        self,
        bus: MessageBus,
        handler: Handler,
        lease: timedelta | None = None,
        *,
        batch: int = 1,
        inbox: str | None = None,
        classifier: Classifier | None = None,
    ) -> None:
        self._bus = bus
        self._handler = handler
        self._lease = lease or bus.options.lease
        self._batch = batch
        self._inbox = inbox
        self._classifier = classifier or Classifier()
        self._held: list[Delivery] = []
        self._stopping = False
        self.refusal: NotAdmitted | None = None
        self.waiting = 0
        self.references: list[dict[str, Any]] = []

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping

    def stop(self) -> None:
        """Take no further message. The one at hand may still end well; if not, its lease ends by itself."""
        self._stopping = True

    def drain(
        self, mailbox: str, *, max_messages: int | None = None, linger: timedelta = LINGER
    ) -> MailboxReport:
        """Handle the messages of a mailbox until none is open, or none came for ``linger``.

        A message is acked in one commit with what handling it produced, and the next one is claimed in the same
        commit. One that can never be handled goes to the dead letters; any other failure gives it back with a delay.
        Whoever waits for an answer is told when there will be none.

        Args:
            mailbox: Whose messages.
            max_messages: Stop after so many.
            linger: How long to wait here for one that is delayed or in other hands.

        Returns:
            What became of them.

        Raises:
            LifecycleError: The handler cannot work any more; the messages at hand were given back, uncounted.
        """
        report = MailboxReport(mailbox)
        try:
            while not self._stopping and not self.refusal and (room := _room(report, max_messages)) > 0:
                taken = self._held or self._next(mailbox, linger, min(self._batch, room))
                if not taken:
                    break
                self._held = taken
                report += self._handle(mailbox, taken, room - len(taken))
        finally:
            self.release()
        # Those that wait count as sent for later in the mailbox, and not as its present work.
        return replace(report, open=self._bus.stats(mailbox).current + self.waiting)

    def release(self) -> None:
        """Give back what is held; the attempts are not counted."""
        held, self._held = self._held, []
        give_back(self._bus, held)

    def refuse(self, delivery: Delivery, error: Exception) -> MailboxReport:
        """Put a message into the dead letters, and tell whoever waits for its answer."""
        reason = str(error) if isinstance(error, RejectMessage) else self._said(error)
        reason = self._handler.discreet(reason)
        _log.warning(
            "message %s goes to the dead letters of %r: %s", delivery.message.id, delivery.mailbox, reason
        )
        return self._give_up(delivery, error, reason, rejected=True)

    def remember(self, deliveries: Sequence[Delivery]) -> None:
        """Keep the references of the first handled messages."""
        room = MOST_REFERENCES - len(self.references)
        self.references += [reference(each.message) for each in deliveries[: max(0, room)]]

    # -- inside ----------------------------------------------------------------------------------------

    def _next(self, mailbox: str, linger: timedelta, limit: int) -> list[Delivery]:
        deadline = time.monotonic() + linger.total_seconds()
        while True:
            taken = self._bus.receive(mailbox, max_messages=limit, lease=self._lease)
            if taken or time.monotonic() >= deadline or self._bus.stats(mailbox).current == 0:
                return taken
            time.sleep(self._bus.options.poll.total_seconds())

    def _handle(self, mailbox: str, taken: list[Delivery], room: int) -> MailboxReport:
        """Hand over what is held; ``room`` says how many more may be claimed after it."""
        taken, report = self._not_handled_before(taken, MailboxReport(mailbox))
        if not taken:
            return report
        try:
            sent, following = self._try(taken, room)
        except StaleLease:
            return report + self._without_lost(mailbox, taken)
        except LifecycleError:
            # The handler cannot work any more, and that is no fault of the messages'.
            raise
        except NotAdmitted as refusal:
            # A guard keeps the handler from working: the messages are given back at the end, uncounted.
            self.refusal = refusal
            return report
        except (*WAITS, RunTaken) as waiting:
            if len(taken) > 1:
                return report + self._each(mailbox, taken)
            return report + self._later(taken[0], waiting)
        except Exception as error:  # noqa: BLE001  # whatever it is, the messages come again
            if len(taken) > 1 and not isinstance(error, StoreError):
                _log.warning(
                    "a batch of %s failed (%s); each is tried alone", len(taken), type(error).__name__
                )
                return report + self._each(mailbox, taken)
            self._held = []
            for delivery in taken:
                report += self._failed(delivery, error)
            return report
        self.remember(taken)
        self._held = following
        return report + MailboxReport(mailbox, handled=len(taken), sent=sent)

    def _try(self, taken: list[Delivery], room: int) -> tuple[int, list[Delivery]]:
        """Hand over, ack, and claim what follows; return how many messages were sent, and the claims."""
        try:
            with LeaseRenewer(self._bus, taken, self._lease, self._handler.beat):
                send = self._handler.handle(tuple(each.message for each in taken))
            return self._ack(taken, send, room)
        finally:
            self._handler.recover()

    def _later(self, delivery: Delivery, waiting: BaseException) -> MailboxReport:
        """Give a message back, uncounted, until what its run waits for may be there."""
        self._held = []
        _log.info("message %s is given back for now: %s", delivery.message.id, waiting)
        try:
            self._bus.release(delivery, delay=until_again(waiting))
        except StaleLease:
            return MailboxReport(delivery.mailbox, lost=1)
        self.waiting += 1
        return MailboxReport(delivery.mailbox)

    def _each(self, mailbox: str, taken: list[Delivery]) -> MailboxReport:
        report = MailboxReport(mailbox)
        for position, delivery in enumerate(taken):
            if self._stopping:
                self._held = taken[position:]
                break
            self._held = taken[position:]
            with LeaseRenewer(self._bus, taken[position + 1 :], self._lease, lambda: None):
                report += self._handle(mailbox, [delivery], 0)
            self._held = taken[position + 1 :]
        return report

    def _without_lost(self, mailbox: str, taken: list[Delivery]) -> MailboxReport:
        """Of a batch that could not be acked, handle again those that are still held."""
        lost = taken if len(taken) == 1 else self._bus.extend_all(taken, self._lease)
        left = [each for each in taken if each not in lost]
        self._held = left
        report = MailboxReport(mailbox, lost=len(lost))
        return report + self._each(mailbox, left) if left else report

    def _not_handled_before(
        self, taken: list[Delivery], report: MailboxReport
    ) -> tuple[list[Delivery], MailboxReport]:
        before = [each for each in taken if self._was_handled(each)]
        for delivery in before:
            report += self._ack_again(delivery)
        left = [each for each in taken if each not in before]
        self._held = left
        return left, report

    def _was_handled(self, delivery: Delivery) -> bool:
        if self._inbox is not None and self._bus.handled(self._inbox, delivery.message):
            return True
        # The first time nobody asks: a durable run that is finished says so itself when it is used.
        return delivery.attempt > 1 and self._handler.is_done(delivery.message)

    def _ack_again(self, delivery: Delivery) -> MailboxReport:
        _log.info("message %s was handled before", delivery.message.id)
        try:
            delivery.ack()
        except StaleLease:
            return MailboxReport(delivery.mailbox, lost=1)
        return MailboxReport(delivery.mailbox, handled=1)

    def _ack(self, taken: list[Delivery], send: Sequence[Message], room: int) -> tuple[int, list[Delivery]]:
        if self._inbox is not None:
            try:
                self._bus.ack(*taken, send=send, inbox=self._inbox)
            except AlreadyHandled:
                if len(taken) > 1:
                    raise
                # Somebody was faster, by another delivery.
                taken[0].ack()
                return 0, []
        elif room < 1 or self._stopping:
            self._bus.ack(*taken, send=send)
        else:
            limit = min(self._batch, room)
            following = self._bus.ack_and_receive(*taken, send=send, max_messages=limit, lease=self._lease)
            return _count(send), following
        return _count(send), []

    def _failed(self, delivery: Delivery, error: Exception) -> MailboxReport:
        if self._classifier.failure(error).category is Category.PERMANENT:
            return self.refuse(delivery, error)
        reason = self._handler.discreet(self._said(error))
        _log.warning("message %s: %s", delivery.message.id, reason, exc_info=error)
        if delivery.attempt < delivery.max_attempts:
            return _ended(delivery, reason, (), rejected=False, delay=self._asked_delay(error))
        return self._give_up(delivery, error, reason, rejected=False)

    def _said(self, error: Exception) -> str:
        return f"[{self._classifier.failure(error).category}] {type(error).__name__}: {error}"

    def _asked_delay(self, error: Exception) -> timedelta | None:
        """Return how long the other side wants to be left alone, and a little more for each; ``None`` if it said nothing."""
        asked = self._classifier.failure(error).retry_after_seconds
        return None if asked is None else timedelta(seconds=asked * random.uniform(1, 1.2))  # noqa: S311

    def _give_up(self, delivery: Delivery, error: Exception, reason: str, *, rejected: bool) -> MailboxReport:
        """End a message as dead, and tell whoever waits for its answer in the same commit."""
        answer = self._handler.refusal(delivery.message, error)
        if answer is not None:
            try:
                return _ended(delivery, reason, (answer,), rejected=rejected)
            except (MailboxFull, InvalidMessage) as fault:
                _log.warning("the answer to message %s cannot be sent: %s", delivery.message.id, fault)
        return _ended(delivery, reason, (), rejected=rejected)


def until_again(waiting: BaseException) -> timedelta:
    """Return after how long it is worth while to look again at what waits."""
    if isinstance(waiting, Sleeping):
        return max(timedelta(0), waiting.until - datetime.now(UTC))
    if isinstance(waiting, AwaitingMessage):
        return _LOOK_FOR_MESSAGE
    if isinstance(waiting, RunTaken) and waiting.retry_at is not None:
        return min(_LOOK_FOR_PERSON, max(timedelta(seconds=1), waiting.retry_at - datetime.now(UTC)))
    return _LOOK_FOR_PERSON


def _count(send: Sequence[Message]) -> int:
    return len(send) + (send.gone if isinstance(send, Leaving) else 0)


def give_back(bus: MessageBus, held: Sequence[Delivery]) -> None:
    """Give deliveries back, if there are any; the attempts are not counted. If that fails, their leases end."""
    if held:
        try:
            bus.release(*held)
        except StaleLease:
            _log.info("messages were already in other hands when they were given back")
        except StoreError as error:
            _log.warning("%s messages could not be given back and come again later: %s", len(held), error)


def _ended(
    delivery: Delivery,
    reason: str,
    send: Sequence[Message],
    *,
    rejected: bool,
    delay: timedelta | None = None,
) -> MailboxReport:
    try:
        if rejected:
            delivery.reject(reason, send)
        else:
            delivery.nack(delay, reason, send)
    except StaleLease:
        return MailboxReport(delivery.mailbox, lost=1)
    return MailboxReport(delivery.mailbox, failed=int(not rejected), rejected=int(rejected), sent=len(send))


def _room(report: MailboxReport, max_messages: int | None) -> int:
    return sys.maxsize if max_messages is None else max_messages - report.settled
