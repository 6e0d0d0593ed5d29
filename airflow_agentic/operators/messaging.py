"""Messages as tasks."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_agentic import runtime
from airflow_agentic.agents.context import AgentContext
from airflow_agentic.links import TRACE_XCOM_KEY, MessageTraceLink, trace_command
from airflow_agentic.messaging.delivery import reference
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.operators.parsing import duration, is_literal

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class SendMessageOperator(BaseOperator):
    """Sends one message. A retry of the task does not send it twice; clearing the task sends it again.

    The XCom is a reference: ``{"id", "source", "recipient", "type", "correlation_id"}``.

    Args:
        recipient: The mailbox.
        data: Any JSON value.
        source: Who says it; default ``dag_id.task_id``.
        message_type: What happened or is wanted.
        kind: ``request``, ``response``, ``notification`` (default), ``error`` or ``heartbeat``.
        subject: What it is about.
        delay: Time before which nobody can receive it, as a timedelta or in seconds.
        agentic_conn_id: The store; see ``AgenticHook``.

    Raises:
        InvalidMessage: When the DAG is parsed: literal arguments do not make a message.
    """

    template_fields: Collection[str] = (
        "recipient", "data", "source", "message_type", "subject", "agentic_conn_id",
    )  # fmt: skip
    template_fields_renderers: ClassVar[dict[str, str]] = {"data": "json"}
    operator_extra_links = (MessageTraceLink(),)
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        recipient: str,
        data: Any = None,
        source: str | None = None,
        message_type: str = "agentic.message",
        kind: str = Kind.NOTIFICATION,
        subject: str | None = None,
        delay: timedelta | float = 0,
        agentic_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.recipient = recipient
        self.data = data
        self.source = source
        self.message_type = message_type
        self.kind = kind
        self.subject = subject
        self.delay = delay
        self.agentic_conn_id = agentic_conn_id
        # A field that is filled in later is checked then; the others are checked now.
        known = {"recipient": recipient, "data": data, "type": message_type, "kind": kind, "subject": subject}
        values = {key: value for key, value in known.items() if is_literal(value)}
        Message(**{"source": source or "parsing", "recipient": "parsing", **values})

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the message and return its reference.

        Raises:
            AirflowFailException: The message cannot be sent as it is, for example because it is too large.
        """
        run = runtime.identity(context)
        ctx = AgentContext(self.source or f"{run.dag_id}.{run.task_id}", run=run)
        with runtime.airflow_failures():
            # The task is the work: its one message has the same id in every try, whatever the time says.
            message = ctx.send(
                self.recipient,
                self.data,
                type=self.message_type,
                kind=Kind(self.kind),
                subject=self.subject,
                key="task",
            )
            with runtime.open_store(self.agentic_conn_id) as store:
                new = store.bus.send(message, delay=duration(self.delay) or timedelta(0))
        self.log.info(
            "message %s to %s %s", message.id, message.recipient, "sent" if new else "was sent before"
        )
        context["ti"].xcom_push(TRACE_XCOM_KEY, trace_command(message.correlation_id, self.agentic_conn_id))
        return reference(message)
