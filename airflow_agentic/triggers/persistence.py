"""Waiting for what people do with a durable run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_agentic.errors import AgenticError
from airflow_agentic.persistence.ports import RunStatus
from airflow_agentic.triggers.failures import failure_event
from airflow_agentic.triggers.looking import looks

if TYPE_CHECKING:
    from airflow_agentic.persistence import RunHead


class RunTrigger(BaseTrigger):
    """Fires once when somebody did something with a run: answered its question, settled a step, changed its state.

    Args:
        key: The run.
        version: That it had when it began to wait.
        until: When to fire in any case, in ISO 8601; ``None`` for never.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    def __init__(
        self, key: str, version: int, until: str | None = None, agentic_conn_id: str | None = None
    ) -> None:
        super().__init__()
        self.key = key
        self.version = version
        self.until = until
        self.agentic_conn_id = agentic_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "key": self.key,
                "version": self.version,
                "until": self.until,
                "agentic_conn_id": self.agentic_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is so; an error that waiting cannot help is the event."""
        try:
            async with contextlib.aclosing(
                looks(self.agentic_conn_id, lambda store: store.runs.known(self.key))
            ) as seen:
                async for head in seen:
                    if head is None or self._has_changed(head) or self._is_over():
                        break
        except AgenticError as error:
            yield failure_event(error)
            return
        yield TriggerEvent({"run": self.key})

    def _has_changed(self, head: RunHead) -> bool:
        return head.version != self.version or head.status != RunStatus.WAITING

    def _is_over(self) -> bool:
        return self.until is not None and datetime.now(UTC) >= datetime.fromisoformat(self.until)
