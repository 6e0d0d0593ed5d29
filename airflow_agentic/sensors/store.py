"""What every sensor on a store has in common."""

from __future__ import annotations

import abc
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_agentic import runtime
from airflow_agentic.triggers.failures import raise_failure

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_agentic.stores import Store


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
    def look(self, store: Store) -> PokeReturnValue:
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
            return self.look(store)

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
