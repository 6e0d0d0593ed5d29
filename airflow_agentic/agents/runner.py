"""Runs agents: one task, every message of a mailbox, or all of its messages as one task."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.handling import AgentHandler, MakeContext
from airflow_agentic.agents.leases import LeaseRenewer
from airflow_agentic.agents.worker import LINGER, MailboxReport, MailboxWorker, give_back
from airflow_agentic.errors import InvalidTask
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.delivery import Delivery

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
    """

    def __init__(
        self,
        agent: BaseAgent[Any, Any],
        bus: MessageBus,
        make_context: MakeContext,
        lease: timedelta | None = None,
        *,
        inbox: bool = False,
    ) -> None:
        self._agent = agent
        self._bus = bus
        self._make_context = make_context
        self._lease = lease or bus.options.lease
        handler = AgentHandler(agent, make_context)
        self._worker = MailboxWorker(bus, handler, self._lease, inbox=agent.name if inbox else None)
        self._held: list[Delivery] = []

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
                ctx = self._make_context(tuple(d.message for d in deliveries))
                try:
                    with LeaseRenewer(self._bus, deliveries, self._lease, self._agent.heartbeat):
                        result = self._agent.run([d.message.data for d in deliveries], ctx)
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
            self._bus.ack(*deliveries, send=ctx.outbox)
        except BaseException:
            self.release()
            raise
        self._held = []
        self._worker.remember(deliveries)
        report = MailboxReport(
            mailbox,
            handled=len(deliveries),
            rejected=rejected,
            sent=len(ctx.outbox),
            open=self._bus.stats(mailbox).current,
        )
        return report, self._agent.contract.to_json(result)

    def _fault_of(self, delivery: Delivery, error: InvalidTask) -> InvalidTask:
        """Say what is wrong with this one; ``error`` is of all of them together, and cut."""
        try:
            self._agent.contract.task([delivery.message.data])
        except InvalidTask as own:
            return own
        return error
