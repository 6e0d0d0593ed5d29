"""What every operator on a store has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_agentic.links import MESSAGES_XCOM_KEY, TRACE_XCOM_KEY, MessageTraceLink, trace_command

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class StoreOperator(BaseOperator):
    """An operator that works on a store.

    Args:
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    operator_extra_links = (MessageTraceLink(),)
    ui_color = "#e8f0fe"

    def __init__(self, *, agentic_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.agentic_conn_id = agentic_conn_id

    def show_trace(self, context: Context, correlation_id: str) -> None:
        """Push the command that prints a conversation."""
        context["ti"].xcom_push(TRACE_XCOM_KEY, trace_command(correlation_id, self.agentic_conn_id))

    def show_messages(self, context: Context, references: Sequence[dict[str, Any]], *, resumed: bool) -> None:
        """Push the references of the first messages that the task handled.

        Args:
            context: Airflow's.
            references: Of those handled now.
            resumed: Whether the task waited before: what it handled then stays.
        """
        ti = context["ti"]
        before: list[dict[str, Any]] = []
        if resumed:
            before = ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index, key=MESSAGES_XCOM_KEY) or []
        if before or references:
            ti.xcom_push(MESSAGES_XCOM_KEY, [*before, *references][:_MOST_REFERENCES])


_MOST_REFERENCES = 100
