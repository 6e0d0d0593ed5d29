"""Waiting for messages without a worker slot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from airflow_agentic import runtime
from airflow_agentic.errors import AgenticError, StaleLease, StoreError
from airflow_agentic.messaging.announcer import Announcer
from airflow_agentic.messaging.codec import to_event
from airflow_agentic.messaging.delivery import Delivery, MailboxStats
from airflow_agentic.triggers.failures import failure_event

if TYPE_CHECKING:
    from airflow_agentic.stores import Store

_log = logging.getLogger(__name__)

# Events per poll: enough to keep up, few enough that each is in Airflow's database before its lease ends.
_BATCH = 20

Condition = Literal["message", "work", "all"]

_CONDITIONS: dict[Condition, Callable[[MailboxStats], bool]] = {
    "message": lambda box: box.claimable > 0,
    "work": lambda box: box.claimable > 0 or box.current == 0,
    "all": lambda box: box.claimable == box.current,
}


class MailboxTrigger(BaseTrigger):
    """Fires once when a mailbox is in a condition. It looks, and takes nothing.

    Args:
        mailbox: Which.
        condition: ``message``: something can be received. ``work``: that, or nothing is left to wait for.
            ``all``: whatever there is can be received; what was sent for later does not count.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    def __init__(self, mailbox: str, condition: Condition, agentic_conn_id: str | None = None) -> None:
        super().__init__()
        self.mailbox = mailbox
        self.condition = condition
        self.agentic_conn_id = agentic_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "mailbox": self.mailbox,
                "condition": self.condition,
                "agentic_conn_id": self.agentic_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the condition holds; an error that waiting cannot help is the event."""
        try:
            box = await self._wait()
        except AgenticError as error:
            yield failure_event(error)
            return
        yield TriggerEvent({"mailbox": asdict(box)})

    async def _wait(self) -> MailboxStats:
        holds = _CONDITIONS[self.condition]
        found = await asyncio.to_thread(runtime.target, self.agentic_conn_id)
        async with contextlib.aclosing(_looks(found, self.mailbox)) as looks:
            async for box in looks:
                if holds(box):
                    return box
        raise AssertionError("looking at a mailbox has no end")


class AgentMessageTrigger(BaseEventTrigger):
    """Starts DAGs when messages come; for ``AssetWatcher``, directly or as a message queue.

    By default it *announces* a mailbox: the event says that messages wait, the DAG that it starts handles them
    (``RunAgentOperator(mailbox=…)``), and leases, attempts and dead letters hold until the work is really
    done. Messages that come within a second share an event. An announcement that led to nothing, because the
    DAG failed or Airflow lost the event, is repeated after ``[agentic] remind_seconds``.
    The payload is ``{"mailbox", "ready"}``.

    With ``deliver=True`` each message *is* the event: ``{"mailbox", "delivery_id", "message": {CloudEvents
    attributes}}``. It is acked when the event is in Airflow's database (the ack mode of shared streams), so no
    crash of the triggerer loses it, and what the DAG does with it is not the bus's business any more. Up to
    Airflow 3.3.2 events that come in a burst may start their run only with the next event
    (https://github.com/apache/airflow/issues/56050).

    Args:
        mailbox: Which.
        deliver: See above.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    def __init__(self, mailbox: str, deliver: bool = False, agentic_conn_id: str | None = None) -> None:
        super().__init__()
        self.mailbox = mailbox
        self.deliver = deliver
        self.agentic_conn_id = agentic_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"mailbox": self.mailbox, "deliver": self.deliver, "agentic_conn_id": self.agentic_conn_id},
        )

    def shared_stream_key(self) -> Hashable | None:
        """Return the identity of the mailbox if messages are delivered: all its watchers share one poll."""
        return ("agentic", self.agentic_conn_id, self.mailbox) if self.deliver else None

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the receiver of the mailbox."""
        return MailboxProducer(kwargs["mailbox"], kwargs.get("agentic_conn_id"))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Fire for every message."""
        async for event in shared_stream:
            yield TriggerEvent(event)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Announce the mailbox, for ever; a store that is away is waited for."""
        found = await asyncio.to_thread(runtime.target, self.agentic_conn_id)
        announcer = Announcer(found.settings.remind_seconds)
        async with contextlib.aclosing(_looks(found, self.mailbox)) as looks:
            async for box in looks:
                if announcer.is_due(box, time.monotonic()):
                    yield TriggerEvent({"mailbox": self.mailbox, "ready": box.claimable})


class MailboxProducer(SharedStreamProducer):
    """Receives a mailbox for all its watchers, and settles what became of each message.

    Args:
        mailbox: Which.
        conn_id: The store.
    """

    def __init__(self, mailbox: str, conn_id: str | None) -> None:
        self._mailbox = mailbox
        self._conn_id = conn_id
        self._store: Store | None = None

    async def open_stream(self) -> AsyncIterator[tuple[Any, Delivery]]:
        """Yield each message with its delivery, for ever; a store that is away is waited for."""
        found = await asyncio.to_thread(runtime.target, self._conn_id)
        while True:
            try:
                if self._store is None:
                    self._store = await asyncio.to_thread(found.open)
                deliveries = await asyncio.to_thread(
                    self._store.bus.receive, self._mailbox, max_messages=_BATCH
                )
            except StoreError as error:
                if not error.retry_helps:
                    raise
                _log.warning("mailbox %r cannot be received now: %s", self._mailbox, error)
                deliveries = []
            for delivery in deliveries:
                yield event_of(delivery), delivery
            if not deliveries:
                await asyncio.sleep(found.settings.poll_seconds)

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Ack what every watcher has in Airflow's database; reject what one refused; give back the rest."""
        for delivery, outcome in batch:
            try:
                if outcome.is_clean:
                    await asyncio.to_thread(delivery.ack)
                elif outcome.rejected:
                    await asyncio.to_thread(delivery.reject, "refused by a watcher of the mailbox")
                else:
                    await asyncio.to_thread(delivery.nack, None, "no watcher could store the event")
            except StaleLease:
                # It took longer than the lease: the message fires again, as at-least-once allows.
                _log.warning("delivery %s was settled too late and comes again", delivery.delivery_id)

    def get_advance_lane(self, broker_payload: Any) -> Hashable:
        """Settle each delivery by itself: a slow one does not hold the others."""
        return int(broker_payload.delivery_id)

    async def aclose(self) -> None:
        """Close the store; open leases end by themselves."""
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
            self._store = None


def event_of(delivery: Delivery) -> dict[str, Any]:
    """Return the payload of the event for a delivery."""
    return {
        "mailbox": delivery.mailbox,
        "delivery_id": delivery.delivery_id,
        "message": to_event(delivery.message),
    }


async def _looks(found: runtime.StoreTarget, mailbox: str) -> AsyncGenerator[MailboxStats]:
    """Look into a mailbox again and again; a store that is away is waited for."""
    store: Store | None = None
    try:
        while True:
            try:
                if store is None:
                    store = await asyncio.to_thread(found.open)
                box: MailboxStats = await asyncio.to_thread(store.bus.stats, mailbox)
            except StoreError as error:
                if not error.retry_helps:
                    raise
                _log.warning("mailbox %r cannot be looked at now: %s", mailbox, error)
            else:
                yield box
            await asyncio.sleep(found.settings.poll_seconds)
    finally:
        if store is not None:
            store.close()
