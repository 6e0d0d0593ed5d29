"""Waiting for messages and signs of life."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import PokeReturnValue

from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.delivery import DeliveryState, reference
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.sensors.store import StoreSensor
from airflow_agentic.triggers.messaging import HeartbeatTrigger, MailboxTrigger, sign_of_life

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

    from airflow_agentic.stores import Store


class MessageSensor(StoreSensor):
    """Waits until a message can be received from a mailbox. It looks, and takes nothing.

    The XCom is a list of references to what is there, at most 100: ``{"id", "source", "recipient", "type",
    "correlation_id"}``.

    Args:
        mailbox: Which.
        kwargs: As for :class:`StoreSensor` (``deferrable``, ``agentic_conn_id``) and any sensor.
    """

    template_fields: Collection[str] = ("mailbox", "agentic_conn_id")

    def __init__(self, *, mailbox: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mailbox = mailbox

    def look(self, store: Store) -> PokeReturnValue:
        """Look into the mailbox once."""
        claimable = store.bus.stats(self.mailbox).claimable > 0
        states = (DeliveryState.READY, DeliveryState.LEASED)
        found = store.bus.find(DeliveryQuery(mailbox=self.mailbox, states=states)) if claimable else []
        return PokeReturnValue(claimable, [reference(record.message) for record in found if record.message])

    def trigger(self) -> BaseTrigger:
        """Return what waits in the triggerer."""
        return MailboxTrigger(self.mailbox, "message", self.agentic_conn_id)


class HeartbeatSensor(StoreSensor):
    """Waits until a source is alive, or until it is not.

    The XCom is what is known of the source: ``{"source", "alive", "at", "due"}``.

    Args:
        source: Whose heartbeats.
        until: ``alive``: the last heartbeat is not late. ``missed``: it is, or there never was one.
        kwargs: As for :class:`StoreSensor` (``deferrable``, ``agentic_conn_id``) and any sensor.

    Raises:
        ConfigurationError: When the DAG is parsed: ``until`` is neither.
    """

    template_fields: Collection[str] = ("source", "agentic_conn_id")

    def __init__(self, *, source: str, until: Literal["alive", "missed"] = "alive", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if until not in ("alive", "missed"):
            raise ConfigurationError(f"task {self.task_id!r}: until= is 'alive' or 'missed', not {until!r}")
        self.source = source
        self.until = until

    def look(self, store: Store) -> PokeReturnValue:
        """Look at the source's heartbeat once."""
        found = sign_of_life(store.bus, self.source)
        return PokeReturnValue(found["alive"] is (self.until == "alive"), found)

    def trigger(self) -> BaseTrigger:
        """Return what waits in the triggerer."""
        return HeartbeatTrigger(self.source, self.until == "alive", self.agentic_conn_id)
