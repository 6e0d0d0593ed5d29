"""Links on the task's page."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from airflow_agentic import runtime

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

TRACE_XCOM_KEY = "agentic_trace"
"""XCom key that holds the trace command of a task's messages."""

MESSAGES_XCOM_KEY = "agentic_messages"
"""XCom key that holds the references of the first messages that a task handled."""


class MessageTraceLink(BaseOperatorLink):
    """Leads to the XCom page of the task, where ``agentic_trace`` is the command to copy."""

    name = "Trace messages"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the page's address."""
        task = f"/dags/{quote(ti_key.dag_id)}/runs/{quote(ti_key.run_id)}/tasks/{quote(ti_key.task_id)}"
        mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
        return runtime.web_url(f"{task}{mapped}/xcom")


def trace_command(correlation_id: str, conn_id: str | None = None) -> str:
    """Return the command that prints a conversation, ready for a shell."""
    connection = ["--conn-id", conn_id] if conn_id else []
    return shlex.join(["airflow", "agentic", "messages", "trace", correlation_id, *connection])
