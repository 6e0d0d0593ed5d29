"""Waiting for messages."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_agentic import runtime
from airflow_agentic.messaging.delivery import DeliveryState, reference
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.triggers.failures import raise_failure
from airflow_agentic.triggers.messaging import MailboxTrigger

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class MessageSensor(BaseSensorOperator):
    """Waits until a message can be received from a mailbox. It looks, and takes nothing.

    The XCom is a list of references to what is there, at most 100: ``{"id", "source", "recipient", "type",
    "correlation_id"}``.

    Args:
        mailbox: Which.
        deferrable: Wait in the triggerer, without a slot (default); otherwise poke in a worker.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    template_fields: Collection[str] = ("mailbox", "agentic_conn_id")
    ui_color = "#e8f0fe"

    def __init__(
        self, *, mailbox: str, deferrable: bool = True, agentic_conn_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.mailbox = mailbox
        self.deferrable = deferrable
        self.agentic_conn_id = agentic_conn_id

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002  # Airflow's signature
        """Look once.

        Raises:
            AirflowFailException: The store cannot be used and waiting does not help.
        """
        with runtime.airflow_failures(), runtime.open_store(self.agentic_conn_id) as store:
            claimable = store.bus.stats(self.mailbox).claimable > 0
            states = (DeliveryState.READY, DeliveryState.LEASED)
            found = store.bus.find(DeliveryQuery(mailbox=self.mailbox, states=states)) if claimable else []
        return PokeReturnValue(claimable, [reference(record.message) for record in found if record.message])

    def execute(self, context: Context) -> Any:
        """Look, and wait if nothing is there.

        Raises:
            TaskDeferred: Waiting in the triggerer.
        """
        if not self.deferrable:
            return super().execute(context)
        return self._look(context, time.time() + self.timeout)

    def resume(self, context: Context, event: dict[str, Any], deadline: float | None = None) -> Any:
        """Return what is there after waiting; wait on if somebody else was faster.

        Args:
            context: Airflow's.
            event: What the trigger saw.
            deadline: When the sensor's timeout ends (``dag.test()`` does not keep it).
        """
        raise_failure(event)
        return self._look(context, deadline or time.time() + self.timeout)

    def _look(self, context: Context, deadline: float) -> Any:
        seen = self.poke(context)
        if not seen.is_done:
            self.defer(
                trigger=MailboxTrigger(self.mailbox, "message", self.agentic_conn_id),
                method_name="resume",
                kwargs={"deadline": deadline},
                # At least a second: Airflow then ends the wait as any sensor's timeout, soft_fail included.
                timeout=timedelta(seconds=max(1.0, deadline - time.time())),
            )
        return seen.xcom_value
