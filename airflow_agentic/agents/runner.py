"""Runs agents: one task, every message of a mailbox, or all of its messages as one task."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.context import AgentContext
from airflow_agentic.agents.leases import LeaseRenewer
from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.errors import (
    InvalidMessage,
    InvalidResult,
    InvalidTask,
    LifecycleError,
    RejectMessage,
    ServiceRefused,
    StaleLease,
)
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.delivery import Delivery
from airflow_agentic.messaging.message import Kind, Message

_log = logging.getLogger(__name__)

# A message that fails with one of these will fail the same way for everybody.
_PERMANENT = (RejectMessage, InvalidTask, InvalidResult, InvalidMessage, ServiceRefused)

MakeContext = Callable[[tuple[Message, ...]], AgentContext]


@dataclass(frozen=True)
class MailboxReport:
    """What became of the messages of a mailbox in one go.

    Attributes:
        mailbox: Which.
        handled: Acked.
        failed: Given back after an error; they come again or, attempts spent, go to the dead letters.
        rejected: Put into the dead letters.
        lost: Handled after their lease had ended; they come again.
        sent: Messages sent with the acks.
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


class AgentRunner:
    """Runs one agent on a bus.

    Args:
        agent: Which.
        bus: Where its messages come from and go to.
        make_context: Makes the context of each piece of work from the messages it handles.
        lease: How long a message belongs to this runner at a time; renewed while the agent works.
    """

    def __init__(
        self,
        agent: BaseAgent[Any, Any],
        bus: MessageBus,
        make_context: MakeContext,
        lease: timedelta | None = None,
    ) -> None:
        self._agent = agent
        self._bus = bus
        self._make_context = make_context
        self._lease = lease or bus.options.lease
        self._held: list[Delivery] = []
        self._stopping = False

    def run_task(self, task: Any) -> Any:
        """Process one task; its messages leave together afterwards.

        Returns:
            The result as plain JSON.

        Raises:
            InvalidTask: The input does not fit.
            InvalidResult: The output does not fit or is not JSON.
            MessageTooLarge: A produced message is over the limit; none has left.
            Exception: Whatever ``process`` raises.
        """
        ctx = self._make_context(())
        with LeaseRenewer(self._bus, (), self._lease, self._agent.heartbeat):
            result = self._agent.run(task, ctx)
        self._bus.send_many(ctx.outbox)
        return self._agent.contract.to_json(result)

    def drain(
        self, mailbox: str, *, max_messages: int | None = None, linger: timedelta = timedelta(seconds=2)
    ) -> MailboxReport:
        """Process the messages of a mailbox one by one until none is open or none came for ``linger``.

        A message is acked in one commit with what handling it produced. One that can never be handled goes to
        the dead letters; any other failure gives it back with a delay.

        Args:
            mailbox: Whose messages.
            max_messages: Stop after so many.
            linger: How long to wait here for one that is delayed or in other hands.

        Returns:
            What became of them.

        Raises:
            LifecycleError: The agent was shut down; the message at hand was given back, uncounted.
        """
        report = MailboxReport(mailbox)
        while not self._stopping and (
            max_messages is None or report.handled + report.failed + report.rejected < max_messages
        ):
            taken = self._next(mailbox, linger)
            if not taken:
                break
            report += self._handle(mailbox, taken)
        return replace(report, open=self._bus.stats(mailbox).current)

    def gather(
        self, mailbox: str, *, max_messages: int = 10_000, linger: timedelta = timedelta(seconds=2)
    ) -> tuple[MailboxReport, Any]:
        """Process all messages of a mailbox as one task, a list (empty if there are none); ack them in one commit.

        Messages whose data does not fit go to the dead letters, and the others are processed. While others are
        delayed or in other hands, nothing is processed: the report then has ``open`` above zero.

        Args:
            mailbox: Whose messages.
            max_messages: Hand over at most so many.
            linger: How long to wait here for missing ones.

        Returns:
            What became of them, and the result as plain JSON (``None`` if nothing was processed).

        Raises:
            Exception: Whatever ``process`` raises; the messages are given back first.
        """
        deadline = time.monotonic() + linger.total_seconds()
        while True:
            self._held = self._bus.receive(mailbox, max_messages=max_messages, lease=self._lease)
            unseen = self._bus.stats(mailbox).current - len(self._held)
            if unseen <= 0 or len(self._held) >= max_messages:
                return self._process_all(mailbox)
            self.release()
            if time.monotonic() >= deadline:
                return MailboxReport(mailbox, open=self._bus.stats(mailbox).current), None
            time.sleep(self._bus.options.poll.total_seconds())

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping

    def stop(self) -> None:
        """Take no further message. The one at hand may still end well; if not, its lease ends by itself."""
        self._stopping = True

    def release(self) -> None:
        """Give back what is held; the attempts are not counted."""
        held, self._held = self._held, []
        if held:
            try:
                self._bus.release(*held)
            except StaleLease:
                _log.info("messages were already in other hands when they were given back")

    # -- inside ----------------------------------------------------------------------------------------

    def _next(self, mailbox: str, linger: timedelta) -> list[Delivery]:
        deadline = time.monotonic() + linger.total_seconds()
        while True:
            taken = self._bus.receive(mailbox, lease=self._lease)
            if taken or time.monotonic() >= deadline or self._bus.stats(mailbox).current == 0:
                return taken
            time.sleep(self._bus.options.poll.total_seconds())

    def _handle(self, mailbox: str, taken: list[Delivery]) -> MailboxReport:
        delivery = taken[0]
        self._held = taken
        ctx = self._make_context((delivery.message,))
        try:
            with LeaseRenewer(self._bus, taken, self._lease, self._agent.heartbeat):
                result = self._agent.run(delivery.message.data, ctx)
            self._answer(ctx, delivery.message, result)
            delivery.ack(send=ctx.outbox)
        except StaleLease:
            return MailboxReport(mailbox, lost=1)
        except LifecycleError:
            # The agent cannot work any more, and that is no fault of the message's.
            self.release()
            raise
        except _PERMANENT as error:
            return self._refuse(mailbox, delivery, error)
        except Exception as error:  # noqa: BLE001  # whatever it is, the message comes again
            said = self._agent.discreet(f"{type(error).__name__}: {error}")
            _log.warning("message %s: %s", delivery.message.id, said, exc_info=True)
            return self._give_back(mailbox, delivery, error)
        except BaseException:
            self.release()
            raise
        finally:
            self._held = []
            if self._agent.state is AgentState.FAILED:
                self._agent.reset("ready for the next message")
        return MailboxReport(mailbox, handled=1, sent=len(ctx.outbox))

    def _process_all(self, mailbox: str) -> tuple[MailboxReport, Any]:
        deliveries, rejected = self._held, 0
        try:
            while True:
                ctx = self._make_context(tuple(d.message for d in deliveries))
                try:
                    with LeaseRenewer(self._bus, deliveries, self._lease, self._agent.heartbeat):
                        result = self._agent.run([d.message.data for d in deliveries], ctx)
                    break
                except InvalidTask as error:
                    if not error.positions:
                        raise
                    for position in error.positions:
                        self._refuse(
                            mailbox, deliveries[position], self._fault_of(deliveries[position], error)
                        )
                    rejected += len(error.positions)
                    deliveries = [d for i, d in enumerate(deliveries) if i not in error.positions]
                    self._held = deliveries
            self._bus.ack(*deliveries, send=ctx.outbox)
        except BaseException:
            self.release()
            raise
        self._held = []
        report = MailboxReport(
            mailbox,
            handled=len(deliveries),
            rejected=rejected,
            sent=len(ctx.outbox),
            open=self._bus.stats(mailbox).current,
        )
        return report, self._agent.contract.to_json(result)

    def _answer(self, ctx: AgentContext, message: Message, result: Any) -> None:
        """Send the result to whoever asked for one."""
        if message.reply_to is not None:
            ctx.send(message.reply_to, self._agent.contract.to_json(result), kind=Kind.RESPONSE, key="reply")

    def _fault_of(self, delivery: Delivery, error: InvalidTask) -> InvalidTask:
        """Say what is wrong with this one; ``error`` is of all of them together, and cut."""
        try:
            self._agent.contract.task([delivery.message.data])
        except InvalidTask as own:
            return own
        return error

    def _refuse(self, mailbox: str, delivery: Delivery, error: Exception) -> MailboxReport:
        said = str(error) if isinstance(error, RejectMessage) else f"{type(error).__name__}: {error}"
        reason = self._agent.discreet(said)
        _log.warning("message %s goes to the dead letters of %r: %s", delivery.message.id, mailbox, reason)
        try:
            delivery.reject(reason)
        except StaleLease:
            return MailboxReport(mailbox, lost=1)
        return MailboxReport(mailbox, rejected=1)

    def _give_back(self, mailbox: str, delivery: Delivery, error: Exception) -> MailboxReport:
        try:
            delivery.nack(reason=self._agent.discreet(f"{type(error).__name__}: {error}"))
        except StaleLease:
            return MailboxReport(mailbox, lost=1)
        return MailboxReport(mailbox, failed=1)
