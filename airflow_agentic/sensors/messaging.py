"""Waiting for messages and signs of life."""

from __future__ import annotations

import abc
import time
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_agentic import runtime
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.delivery import DeliveryState, reference
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.triggers.failures import raise_failure
from airflow_agentic.triggers.messaging import HeartbeatTrigger, MailboxTrigger, sign_of_life

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_agentic.messaging.bus import MessageBus


class StoreSensor(BaseSensorOperator):
    """Waits until a look into the store finds what it wants. It looks, and takes nothing.

    Args:
        deferrable: Wait in the triggerer, without a slot (default); otherwise poke in a worker.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    ui_color = "#e8f0fe"

    def __init__(self, *, deferrable: bool = True, agentic_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.agentic_conn_id = agentic_conn_id

    @abc.abstractmethod
    def look(self, bus: MessageBus) -> PokeReturnValue:
        """Look once."""

    @abc.abstractmethod
    def trigger(self) -> BaseTrigger:
        """Return what waits in the triggerer."""

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002  # Airflow's signature
        """Look once.

        Raises:
            AirflowFailException: The store cannot be used and waiting does not help.
        """
        with runtime.airflow_failures(), runtime.open_store(self.agentic_conn_id) as store:
            return self.look(store.bus)

    def execute(self, context: Context) -> Any:
        """Look, and wait if it is not so yet.

        Raises:
            TaskDeferred: Waiting in the triggerer.
        """
        if not self.deferrable:
            return super().execute(context)
        return self._look_or_defer(context, time.time() + self.timeout)

    def resume(self, context: Context, event: dict[str, Any], deadline: float | None = None) -> Any:
        """Return what is there after waiting; wait on if it is over already.

        Args:
            context: Airflow's.
            event: What the trigger saw.
            deadline: When the sensor's timeout ends (``dag.test()`` does not keep it).
        """
        raise_failure(event)
        return self._look_or_defer(context, deadline or time.time() + self.timeout)

    def _look_or_defer(self, context: Context, deadline: float) -> Any:
        seen = self.poke(context)
        if not seen.is_done:
            self.defer(
                trigger=self.trigger(),
                method_name="resume",
                kwargs={"deadline": deadline},
                # At least a second: Airflow then ends the wait as any sensor's timeout, soft_fail included.
                timeout=timedelta(seconds=max(1.0, deadline - time.time())),
            )
        return seen.xcom_value


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

    def look(self, bus: MessageBus) -> PokeReturnValue:
        """Look into the mailbox once."""
        claimable = bus.stats(self.mailbox).claimable > 0
        states = (DeliveryState.READY, DeliveryState.LEASED)
        found = bus.find(DeliveryQuery(mailbox=self.mailbox, states=states)) if claimable else []
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

    def look(self, bus: MessageBus) -> PokeReturnValue:
        """Look at the source's heartbeat once."""
        found = sign_of_life(bus, self.source)
        return PokeReturnValue(found["alive"] is (self.until == "alive"), found)

    def trigger(self) -> BaseTrigger:
        """Return what waits in the triggerer."""
        return HeartbeatTrigger(self.source, self.until == "alive", self.agentic_conn_id)
