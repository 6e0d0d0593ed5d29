"""Runs agents: one task, every message of a mailbox, or all of its messages as one task."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.guarded import Done, GuardedAgent, MakeContext, Protection
from airflow_agentic.agents.handling import AgentHandler, left_over
from airflow_agentic.agents.leases import LeaseRenewer
from airflow_agentic.agents.worker import LINGER, MailboxReport, MailboxWorker, give_back
from airflow_agentic.errors import BulkheadFull, InvalidTask, LimitExceeded, NotAdmitted
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.delivery import Delivery
from airflow_agentic.resilience.failures import Classifier
from airflow_agentic.resilience.fallback import Degradation

if TYPE_CHECKING:
    from airflow_agentic.resilience.faults import Faults

__all__ = ["AgentRunner", "MailboxReport"]


class AgentRunner:
    """Runs one agent on a bus.

    Args:
        agent: Which.
        bus: Where its messages come from and go to.
        make_context: Makes the context of each piece of work from the messages it handles.
        lease: How long a message belongs to this runner at a time; renewed while the agent works.
        inbox: Handle no message again that an agent of this name handled, whatever delivery it comes by; see
            :class:`MailboxWorker`.
        protection: What guards the agent's work.
        classifier: Says what failures mean.
        faults: What is injected into its work; ``None`` for nothing.

    Attributes:
        degradation: Why the last task's result is not what it should be; ``None`` if it is.
    """

    def __init__(
        self,
        agent: BaseAgent[Any, Any],
        bus: MessageBus,
        make_context: MakeContext,
        lease: timedelta | None = None,
        *,
        inbox: bool = False,
        protection: Protection | None = None,
        classifier: Classifier | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._agent = agent
        self._bus = bus
        self._lease = lease or bus.options.lease
        self._guarded = GuardedAgent(agent, make_context, protection, faults)
        self._guard = protection.guard if protection else None
        self.degradation: Degradation | None = None
        handler = AgentHandler(agent, make_context, protection, faults)
        self._worker = MailboxWorker(
            bus, handler, self._lease, inbox=agent.name if inbox else None, classifier=classifier
        )
        self._held: list[Delivery] = []
        self._known: Done | None = None

    def run_task(self, task: Any) -> Any:
        """Process one task; its messages leave together afterwards, in one commit with the end of its durable run.

        Returns:
            The result as plain JSON.

        Raises:
            InvalidTask: The input does not fit.
            InvalidResult: The output does not fit or is not JSON.
            MessageTooLarge: A produced message is over the limit; none has left.
            NotAdmitted: A guard refuses.
            PersonNeeded: A person is to be asked instead.
            RunSuspended: Its durable run waits: call this again when what it waits for is there.
            Exception: Whatever ``process`` raises.
        """
        with LeaseRenewer(self._bus, (), self._lease, self._agent.heartbeat):
            done = self._known or self._guarded.do(task)
        self._bus.send_many(left_over(done.ctx, done.result, done.degradation))
        self.degradation = done.degradation
        return done.result

    def know(self) -> bool:
        """Look whether the task came to its end before, in a try that died afterwards; :meth:`run_task` returns that then."""
        self._known = self._guarded.known()
        return self._known is not None

    def drain(
        self, mailbox: str, *, max_messages: int | None = None, linger: timedelta = LINGER
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
        return self._worker.drain(mailbox, max_messages=max_messages, linger=linger)

    def gather(
        self, mailbox: str, *, max_messages: int = 10_000, linger: timedelta = LINGER
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
            RunSuspended: The durable run of these messages waits; they are given back.
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
    def references(self) -> list[dict[str, Any]]:
        """References of the first messages that were handled."""
        return self._worker.references

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._worker.stopping

    def use_turn(self) -> None:
        """Say that the rates of the policy let the next piece of work go: its turn was set aside."""
        if self._guard is not None:
            self._guard.use_turn()

    def reserve(self, refusal: NotAdmitted, ahead: float) -> datetime | None:
        """Set a turn aside after a rate of the agent's own policy refused; ``None`` if it was something else.

        Args:
            refusal: What was said.
            ahead: How far ahead it may be, in seconds.
        """
        is_rate = isinstance(refusal, LimitExceeded) and not isinstance(refusal, BulkheadFull)
        if self._guard is None or not is_rate or refusal.key not in self._guard.limit_names:
            return None
        try:
            return self._guard.reserve(ahead)
        except LimitExceeded:
            return None

    @property
    def waiting(self) -> int:
        """How many messages were given back because their durable runs wait."""
        return self._worker.waiting

    @property
    def refusal(self) -> NotAdmitted | None:
        """What a guard said when it refused a message; the messages were given back, uncounted."""
        return self._worker.refusal

    def stop(self) -> None:
        """Take no further message. The one at hand may still end well; if not, its lease ends by itself."""
        self._worker.stop()

    def release(self) -> None:
        """Give back what is held; the attempts are not counted."""
        held, self._held = self._held, []
        give_back(self._bus, held)

    # -- inside ----------------------------------------------------------------------------------------

    def _process_all(self, mailbox: str) -> tuple[MailboxReport, Any]:
        deliveries, rejected = self._held, 0
        try:
            while True:
                try:
                    with LeaseRenewer(self._bus, deliveries, self._lease, self._agent.heartbeat):
                        done = self._guarded.do(
                            [d.message.data for d in deliveries], tuple(d.message for d in deliveries)
                        )
                    break
                except InvalidTask as error:
                    if not error.positions:
                        raise
                    for position in error.positions:
                        delivery = deliveries[position]
                        self._worker.refuse(delivery, self._fault_of(delivery, error))
                    rejected += len(error.positions)
                    deliveries = [d for i, d in enumerate(deliveries) if i not in error.positions]
                    self._held = deliveries
            sent = len(done.ctx.outbox)
            self._bus.ack(*deliveries, send=left_over(done.ctx, done.result, done.degradation))
        except BaseException:
            self.release()
            raise
        self._held = []
        self._worker.remember(deliveries)
        report = MailboxReport(
            mailbox,
            handled=len(deliveries),
            rejected=rejected,
            sent=sent,
            open=self._bus.stats(mailbox).current,
        )
        self.degradation = done.degradation
        return report, done.result

    def _fault_of(self, delivery: Delivery, error: InvalidTask) -> InvalidTask:
        """Say what is wrong with this one; ``error`` is of all of them together, and cut."""
        try:
            self._agent.contract.task([delivery.message.data])
        except InvalidTask as own:
            return own
        return error
