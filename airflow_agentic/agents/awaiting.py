"""Messages that durable runs wait for: taken, recorded, and acked afterwards."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_agentic.errors import ReplyTimeout, StaleLease, StoreError
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.codec import from_event, to_event
from airflow_agentic.messaging.delivery import Delivery, DeliveryState
from airflow_agentic.messaging.message import Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.persistence import AwaitingMessage
from airflow_agentic.persistence.naming import numbered
from airflow_agentic.persistence.records import RecordType

if TYPE_CHECKING:
    from airflow_agentic.persistence import Run

_log = logging.getLogger(__name__)

_AT_ONCE = 50


class Awaited:
    """One message that a run waits for.

    It is recorded before it is acked: a crash in between loses nothing, and whatever comes again is known by its id.

    Args:
        run: Who waits.
        bus: Where it comes from.
        mailbox: Where it comes to.
        count: The how-manieth message of that mailbox it is in the run, from 1.
    """

    def __init__(self, run: Run, bus: MessageBus, mailbox: str, count: int) -> None:
        self._run = run
        self._bus = bus
        self._mailbox = mailbox
        self._count = count
        self._name = self._named(count)

    def taken(self, timeout: timedelta | float | None) -> Message:
        """Return the message.

        Args:
            timeout: How long to wait, counted from the first time that this was asked for.

        Raises:
            AwaitingMessage: There is none yet.
            ReplyTimeout: There was none in time.
        """
        if (known := self._run.recalled(RecordType.RECEIVED, self._name)) is not None:
            return self._known(known)
        until = None if timeout is None else self._run.now + _span(timeout)
        about = {"mailbox": self._mailbox, "until": until.isoformat() if until else None}
        said = self._run.once(RecordType.WAITING, self._name, about)["until"]
        deadline = datetime.fromisoformat(said) if said else None
        if (message := self._received()) is not None:
            return message
        if deadline is None or self._run.now < deadline:
            raise AwaitingMessage(self._run.key, self._name, self._mailbox, deadline)
        self._run.once(RecordType.RECEIVED, self._name, {"message": None})
        raise self._too_late()

    def _received(self) -> Message | None:
        while deliveries := self._bus.receive(self._mailbox):
            [delivery] = deliveries
            message = delivery.message
            if (message.source, message.id) in self._earlier():
                self._ack(delivery)
                continue
            about = {
                "message": to_event(message.model_copy(update={"data_ref": None, "data_digest": None})),
                "delivery": delivery.delivery_id,
                "token": delivery.token,
            }
            try:
                self._run.once(RecordType.RECEIVED, self._name, about)
            except BaseException:
                delivery.release()
                raise
            self._ack(delivery)
            return message
        return None

    def _earlier(self) -> set[tuple[str, str]]:
        """Return source and id of what the run got from this mailbox before."""
        said = (self._run.recalled(RecordType.RECEIVED, self._named(n)) for n in range(1, self._count))
        events = (each["message"] for each in said if each is not None and each["message"] is not None)
        return {(event["source"], event["id"]) for event in events}

    def _known(self, said: dict[str, Any]) -> Message:
        if said["message"] is None:
            raise self._too_late()
        message = from_event(said["message"])
        try:
            self._ack_again(message, said)
        except StoreError as error:
            _log.warning("it is not known whether message %s was acked: %s", message.id, error)
        return message

    def _ack_again(self, message: Message, said: dict[str, Any]) -> None:
        """Ack a message that was recorded, if whoever did that died before the ack."""
        found = self._bus.find(DeliveryQuery(ids=(said["delivery"],)))
        if not found or found[0].state not in (DeliveryState.READY, DeliveryState.LEASED):
            return
        record = found[0]
        held = Delivery(
            record.delivery_id,
            record.mailbox,
            message,
            record.attempts,
            record.max_attempts,
            said["token"],
            record.visible_at,
            message.ordering_key,
            bus=self._bus,
        )
        try:
            held.ack()
        except StaleLease:
            # Its lease is over: it is claimed again, if nobody has it.
            for delivery in self._bus.receive(self._mailbox, max_messages=_AT_ONCE):
                if delivery.delivery_id == record.delivery_id:
                    self._ack(delivery)
                else:
                    delivery.release()

    def _ack(self, delivery: Delivery) -> None:
        try:
            delivery.ack()
        except StaleLease:
            _log.info("message %s comes again, and is known then", delivery.message.id)

    def _named(self, count: int) -> str:
        return numbered(f"message:{self._mailbox}", count)

    def _too_late(self) -> ReplyTimeout:
        return ReplyTimeout(f"run {self._run.key!r}: no message came to {self._mailbox!r} in time")


def _span(timeout: timedelta | float) -> timedelta:
    return timeout if isinstance(timeout, timedelta) else timedelta(seconds=timeout)
