"""Waiting for messages, answers and signs of life without a worker slot."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from airflow_agentic import runtime
from airflow_agentic.errors import AgenticError
from airflow_agentic.messaging.announcer import Announcer
from airflow_agentic.messaging.codec import from_event
from airflow_agentic.messaging.delivery import DeliveryState, MailboxStats
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.triggers.failures import failure_event
from airflow_agentic.triggers.looking import looks
from airflow_agentic.triggers.streams import MailboxProducer

if TYPE_CHECKING:
    from airflow.triggers.shared_stream import SharedStreamProducer

    from airflow_agentic.messaging.bus import MessageBus
    from airflow_agentic.messaging.message import Message
    from airflow_agentic.messaging.ports import Heartbeat

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
        until: When to fire in any case, in ISO 8601; ``None`` for never.
    """

    def __init__(
        self,
        mailbox: str,
        condition: Condition,
        agentic_conn_id: str | None = None,
        until: str | None = None,
    ) -> None:
        super().__init__()
        self.mailbox = mailbox
        self.condition = condition
        self.agentic_conn_id = agentic_conn_id
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "mailbox": self.mailbox,
                "condition": self.condition,
                "agentic_conn_id": self.agentic_conn_id,
                "until": self.until,
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
        until = None if self.until is None else datetime.fromisoformat(self.until)
        async with contextlib.aclosing(
            looks(self.agentic_conn_id, lambda store: store.bus.stats(self.mailbox))
        ) as seen:
            async for box in seen:
                if holds(box) or (until is not None and datetime.now(UTC) >= until):
                    return box
        raise AssertionError("looking at a mailbox has no end")


class ReplyTrigger(BaseTrigger):
    """Fires once when a request is answered, or when its deadline is over. It looks, and takes nothing.

    The event is ``{"request": …}``: the request, as it was given.

    Args:
        request: The request as a CloudEvent; its data does not matter.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    def __init__(self, request: dict[str, Any], agentic_conn_id: str | None = None) -> None:
        super().__init__()
        self.request = request
        self.agentic_conn_id = agentic_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"request": self.request, "agentic_conn_id": self.agentic_conn_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is an answer or no hope of one; an error that waiting cannot help is the event."""
        try:
            await self._wait(from_event(self.request))
        except AgenticError as error:
            yield failure_event(error)
            return
        yield TriggerEvent({"request": self.request})

    async def _wait(self, request: Message) -> None:
        async with contextlib.aclosing(
            looks(self.agentic_conn_id, lambda store: _is_answered(store.bus, request))
        ) as seen:
            async for answered in seen:
                if answered or (request.expires_at is not None and datetime.now(UTC) >= request.expires_at):
                    return


class HeartbeatTrigger(BaseTrigger):
    """Fires once when a source is alive, or when its heartbeat is late.

    The event is ``{"heartbeat": …}``: what is known of the source.

    Args:
        source: Whose heartbeat.
        alive: Whether to wait for its being alive; otherwise for its being late, or not known at all.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    def __init__(self, source: str, alive: bool = True, agentic_conn_id: str | None = None) -> None:
        super().__init__()
        self.source = source
        self.alive = alive
        self.agentic_conn_id = agentic_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"source": self.source, "alive": self.alive, "agentic_conn_id": self.agentic_conn_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is so; an error that waiting cannot help is the event."""
        try:
            found = await self._wait()
        except AgenticError as error:
            yield failure_event(error)
            return
        yield TriggerEvent({"heartbeat": found})

    async def _wait(self) -> dict[str, Any]:
        async with contextlib.aclosing(
            looks(self.agentic_conn_id, lambda store: sign_of_life(store.bus, self.source))
        ) as seen:
            async for found in seen:
                if found["alive"] is self.alive:
                    return found
        raise AssertionError("looking at a heartbeat has no end")


class AgentMessageTrigger(BaseEventTrigger):
    """Starts DAGs when messages come; for ``AssetWatcher``, directly or as a message queue.

    By default it *announces* a mailbox: the event says that messages wait, the DAG that it starts handles them
    (``RunAgentOperator(mailbox=…)``), and leases, attempts and dead letters hold until the work is really
    done. Messages that come within a second share an event. An announcement that led to nothing, because the
    DAG failed or Airflow lost the event, is repeated after ``[agentic] remind_seconds``.
    The payload is ``{"mailbox", "ready"}``.

    With ``deliver=True`` each message *is* the event: ``{"mailbox", "delivery_id", "message": {CloudEvents
    attributes}}``. It is acked when the event is in Airflow's database (the ack mode of shared streams), so no
    crash of the triggerer loses it, and what the DAG does with it is not the bus's business any more. All watchers of
    a mailbox share one receiver. A message that a watcher refuses (a subclass whose ``filter_shared_stream`` calls
    ``airflow.triggers.shared_stream.reject_shared_stream_event``) goes to the dead letters; data that is kept
    elsewhere stays there, and the event holds the reference. Up to Airflow 3.3.2 events that come in a burst may start
    their run only with the next event (https://github.com/apache/airflow/issues/56050).

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
        async with contextlib.aclosing(
            looks(self.agentic_conn_id, lambda store: store.bus.stats(self.mailbox))
        ) as seen:
            async for box in seen:
                if announcer.is_due(box, time.monotonic()):
                    yield TriggerEvent({"mailbox": self.mailbox, "ready": box.claimable})


def sign_of_life(bus: MessageBus, source: str) -> dict[str, Any]:
    """Return what is known of a source: plain JSON, with ``alive`` and, if it was ever heard of, ``at`` and ``due``."""
    beat: Heartbeat | None = next((each for each in bus.heartbeats() if each.source == source), None)
    if beat is None:
        return {"source": source, "alive": False, "at": None, "due": None}
    return {
        "source": source,
        "alive": not beat.late,
        "at": beat.at.isoformat(),
        "due": beat.due_at.isoformat(),
    }


def _is_answered(bus: MessageBus, request: Message) -> bool:
    states = (DeliveryState.READY, DeliveryState.LEASED, DeliveryState.DONE)
    found = bus.find(DeliveryQuery(mailbox=request.reply_to, states=states))
    return any(record.message is not None and record.message.causation_id == request.id for record in found)
