"""The receiver behind all watchers of a mailbox, in the ack mode of Airflow's shared streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from airflow.triggers.shared_stream import AdvanceItem, AdvanceOutcome, SharedStreamProducer

from airflow_agentic import runtime
from airflow_agentic.errors import AgenticError, StaleLease, StoreError
from airflow_agentic.messaging.codec import to_event
from airflow_agentic.messaging.delivery import Delivery
from airflow_agentic.triggers.looking import SharedStore

_log = logging.getLogger(__name__)

# Events at a time: enough to keep up, few enough that a watcher's queue (1,024 by default) never overflows.
_BATCH = 20
_MOST_UNSETTLED = 200
_WAIT = timedelta(seconds=1)
# Airflow says "failed" of what a watcher could not store in time, and of what it had not looked at when it left.
_YOUNG_SECONDS = 5.0


class MailboxProducer(SharedStreamProducer):
    """Receives a mailbox for all its watchers, and settles what became of each message.

    A message belongs to it until every watcher's event is in Airflow's database: its lease is renewed as long as that
    takes.

    Args:
        mailbox: Which.
        conn_id: The store.
    """

    def __init__(self, mailbox: str, conn_id: str | None) -> None:
        self._mailbox = mailbox
        self._conn_id = conn_id
        self._unsettled: dict[int, Delivery] = {}
        self._since: dict[int, float] = {}
        self._share: SharedStore | None = None
        self._renewer: asyncio.Task[None] | None = None
        # A thread of its own: it waits in the store for messages, and the others' threads must not.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agentic-mailbox")
        self._receiving: Future[list[Delivery]] | None = None

    async def open_stream(self) -> AsyncIterator[tuple[Any, Delivery]]:
        """Yield each message with its delivery, for ever; a store that is away is waited for.

        Raises:
            StoreError: Waiting does not help.
        """
        share = self._share = SharedStore.join(await asyncio.to_thread(runtime.target, self._conn_id))
        self._renewer = asyncio.create_task(self._renew(share))
        while True:
            for delivery in await self._received(share):
                yield event_of(delivery), delivery

    async def advance(self, batch: Sequence[AdvanceItem]) -> None:
        """Ack what every watcher has in Airflow's database; reject what one refused; give back the rest."""
        for delivery, outcome in batch:
            try:
                await self._settle(delivery, outcome)
            except StaleLease:
                # It took longer than the lease: the message fires again, as at-least-once allows.
                _log.warning("delivery %s was settled too late and comes again", delivery.delivery_id)
            finally:
                self._unsettled.pop(delivery.delivery_id, None)
                self._since.pop(delivery.delivery_id, None)

    def get_advance_lane(self, broker_payload: Any) -> Hashable:
        """Settle each delivery by itself: a slow one does not hold the others."""
        return int(broker_payload.delivery_id)

    async def aclose(self) -> None:
        """Give back what is not settled, so that it comes again at once, and leave the store."""
        if self._renewer is not None:
            self._renewer.cancel()
            await asyncio.gather(self._renewer, return_exceptions=True)
        await asyncio.to_thread(self._collect)
        self._thread.shutdown(wait=False)
        share, self._share = self._share, None
        if share is None:
            return
        try:
            for delivery in self._unsettled.values():
                with contextlib.suppress(StaleLease):
                    await asyncio.to_thread(delivery.release)
        except AgenticError as error:
            _log.warning("messages of %r come again when their leases end: %s", self._mailbox, error)
        finally:
            share.leave()

    # -- inside ----------------------------------------------------------------------------------------

    async def _received(self, share: SharedStore) -> list[Delivery]:
        room = min(_BATCH, _MOST_UNSETTLED - len(self._unsettled))
        poll = share.found.settings.poll_seconds
        if room < 1:
            await asyncio.sleep(poll)
            return []
        self._receiving = self._thread.submit(
            share.look, lambda store: store.bus.receive(self._mailbox, max_messages=room, wait=_WAIT)
        )
        try:
            found = await asyncio.wrap_future(self._receiving)
        except StoreError as error:
            self._receiving = None
            if not error.retry_helps:
                raise
            _log.warning("mailbox %r cannot be received now: %s", self._mailbox, error)
            await asyncio.sleep(poll)
            return []
        self._receiving = None
        self._unsettled.update({delivery.delivery_id: delivery for delivery in found})
        self._since.update(dict.fromkeys((delivery.delivery_id for delivery in found), time.monotonic()))
        return found

    def _collect(self) -> None:
        """Take what was received for nobody, because the stream ended in the middle of it."""
        if self._receiving is not None:
            with contextlib.suppress(CancelledError, AgenticError):
                found = self._receiving.result()
                self._unsettled.update({delivery.delivery_id: delivery for delivery in found})

    async def _settle(self, delivery: Delivery, outcome: AdvanceOutcome) -> None:
        settle = _settlement(delivery, outcome, time.monotonic() - self._since.get(delivery.delivery_id, 0.0))
        patience = time.monotonic() + self._lease.total_seconds()
        while True:
            try:
                await asyncio.to_thread(settle)
            except StoreError as error:
                if not error.retry_helps or time.monotonic() >= patience:
                    _log.warning(
                        "delivery %s is not settled and comes again: %s", delivery.delivery_id, error
                    )
                    return
                _log.warning("delivery %s cannot be settled now: %s", delivery.delivery_id, error)
            else:
                return
            await asyncio.sleep(1)

    async def _renew(self, share: SharedStore) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            held = list(self._unsettled.values())
            if not held:
                continue
            try:
                lost = await asyncio.to_thread(share.use, lambda store, held=held: store.bus.extend_all(held))
            except AgenticError as error:
                _log.warning("the leases of %s deliveries were not renewed: %s", len(held), error)
                continue
            for delivery in lost:
                self._unsettled.pop(delivery.delivery_id, None)

    @property
    def _lease(self) -> timedelta:
        return self._share.found.options.lease if self._share else _WAIT


def event_of(delivery: Delivery) -> dict[str, Any]:
    """Return the payload of the event for a delivery."""
    return {
        "mailbox": delivery.mailbox,
        "delivery_id": delivery.delivery_id,
        "message": to_event(delivery.message),
    }


def _settlement(delivery: Delivery, outcome: AdvanceOutcome, age_seconds: float) -> Callable[[], None]:
    if outcome.is_clean:
        return delivery.ack
    if outcome.rejected:
        return lambda: delivery.reject("refused by a watcher of the mailbox")
    if outcome.failed and age_seconds >= _YOUNG_SECONDS:
        return lambda: delivery.nack(reason="a watcher could not store the event")
    # Nobody was there, or whoever was left before its turn came: that is no fault of the message's.
    return delivery.release
