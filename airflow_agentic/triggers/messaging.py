"""Waiting for messages without a worker slot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent
from airflow.triggers.shared_stream import AdvanceItem, SharedStreamProducer

from airflow_agentic import runtime
from airflow_agentic.errors import AgenticError, StaleLease, StoreError
from airflow_agentic.messaging.codec import to_event
from airflow_agentic.messaging.delivery import Delivery, MailboxStats

if TYPE_CHECKING:
    from airflow_agentic.stores import Store

_log = logging.getLogger(__name__)

# Events per poll: enough to keep up, few enough that each is in Airflow's database before its lease ends.
_BATCH = 20

Condition = Literal["message", "work", "all"]

_CONDITIONS: dict[Condition, Callable[[MailboxStats], bool]] = {
    "message": lambda box: box.claimable > 0,
    "work": lambda box: box.claimable > 0 or box.open == 0,
    "all": lambda box: box.claimable == box.open,
}


class MailboxTrigger(BaseTrigger):
    """Fires once when a mailbox is in a condition. It looks, and takes nothing.

    Args:
        mailbox: Which.
        condition: ``message``: something can be received. ``work``: that, or nothing is open any more.
            ``all``: whatever is open can be received.
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
            yield TriggerEvent({"error": f"{type(error).__name__}: {error}"})
            return
        yield TriggerEvent({"mailbox": asdict(box)})

    async def _wait(self) -> MailboxStats:
        holds = _CONDITIONS[self.condition]
        store: Store | None = None
        found = await asyncio.to_thread(runtime.target, self.agentic_conn_id)
        try:
            while True:
                try:
                    if store is None:
                        store = await asyncio.to_thread(found.open)
                    box: MailboxStats = await asyncio.to_thread(store.bus.stats, self.mailbox)
                    if holds(box):
                        return box
                except StoreError as error:
                    if not error.retry_helps:
                        raise
                    _log.warning("mailbox %r cannot be looked at now: %s", self.mailbox, error)
                await asyncio.sleep(found.settings.poll_seconds)
        finally:
            if store is not None:
                store.close()


class AgentMessageTrigger(BaseEventTrigger):
    """Fires for each message of a mailbox; for ``AssetWatcher``, directly or as a message queue.

    The event's payload is ``{"mailbox": …, "delivery_id": …, "message": {CloudEvents attributes}}``. The
    message is acked only when the event is in Airflow's database (the ack mode of shared streams), so no
    crash of the triggerer loses it; after one, the same message can fire again.

    Args:
        mailbox: Which.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    def __init__(self, mailbox: str, agentic_conn_id: str | None = None) -> None:
        super().__init__()
        self.mailbox = mailbox
        self.agentic_conn_id = agentic_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"mailbox": self.mailbox, "agentic_conn_id": self.agentic_conn_id},
        )

    def shared_stream_key(self) -> Hashable | None:
        """Return the identity of the mailbox: all its watchers share one poll."""
        return ("agentic", self.agentic_conn_id, self.mailbox)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the receiver of the mailbox."""
        return MailboxProducer(kwargs["mailbox"], kwargs.get("agentic_conn_id"))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Fire for every message."""
        async for event in shared_stream:
            yield TriggerEvent(event)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for every message, for callers that do not share streams; acked after the event was taken."""
        producer = MailboxProducer(self.mailbox, self.agentic_conn_id)
        try:
            async for event, delivery in producer.open_stream():
                yield TriggerEvent(event)
                await asyncio.to_thread(delivery.ack)
        finally:
            await producer.aclose()


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
