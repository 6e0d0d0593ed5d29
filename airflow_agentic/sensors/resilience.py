"""Waiting for breakers."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import PokeReturnValue

from airflow_agentic.errors import ConfigurationError
from airflow_agentic.sensors.store import StoreSensor
from airflow_agentic.triggers.resilience import CircuitTrigger

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

    from airflow_agentic.stores import Store

_STATES = {
    "closed": ("closed", "forced_closed"),
    "passable": ("closed", "forced_closed", "half_open"),
    "open": ("open", "forced_open"),
}


class CircuitSensor(StoreSensor):
    """Waits until a breaker stands as is wanted. No call is made, and none is counted.

    The XCom is ``{"key", "state", "since", "until", "reason"}``.

    Args:
        key: Of the breaker: ``conn:NAME``, ``agent:NAME``, ``tool:NAME``. One that no call went through is closed.
        until: ``closed``: calls go. ``passable``: calls or at least probes go. ``open``: none goes.
        kwargs: As for :class:`StoreSensor` (``deferrable``, ``agentic_conn_id``) and any sensor.

    Raises:
        ConfigurationError: When the DAG is parsed: ``until`` is none of these.
    """

    template_fields: Collection[str] = ("key", "agentic_conn_id")

    def __init__(
        self, *, key: str, until: Literal["closed", "passable", "open"] = "closed", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if until not in _STATES:
            raise ConfigurationError(
                f"task {self.task_id!r}: until= is 'closed', 'passable' or 'open', not {until!r}"
            )
        self.key = key
        self.until = until

    def look(self, store: Store) -> PokeReturnValue:
        """Look at the breaker once."""
        view = store.breaker(self.key).view()
        seen = {
            "key": view.key,
            "state": view.state.value,
            "since": view.since and view.since.isoformat(),
            "until": view.until and view.until.isoformat(),
            "reason": view.reason,
        }
        return PokeReturnValue(view.state.value in _STATES[self.until], seen)

    def trigger(self) -> BaseTrigger:
        """Return what waits in the triggerer."""
        return CircuitTrigger(self.key, list(_STATES[self.until]), self.agentic_conn_id)
