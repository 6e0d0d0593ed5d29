"""What an agent gets besides its task: who it works for, what it answers, and how it speaks."""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_agentic.agents.transport import AsyncHttpTransport, HttpTransport
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.message import Kind, Message

_NAMESPACE = uuid.UUID("6f6b0e0e-5d3c-5a39-9a53-3a0a55a1c5f1")


@dataclass(frozen=True)
class RunIdentity:
    """One task of one DAG run, the same for all its retries.

    Attributes:
        dag_id: The DAG.
        run_id: The DAG run.
        task_id: The task.
        map_index: Index of a mapped task, -1 otherwise.
        generation: Changes when a person clears the task, and not when Airflow retries it.
        try_number: The try, from 1.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    generation: int = 0
    try_number: int = 1

    @property
    def correlation_id(self) -> str:
        """Shared by all messages that the DAG run sends of its own accord."""
        return f"{self.dag_id}:{self.run_id}"

    @property
    def key(self) -> str:
        """Names the piece of work across retries."""
        return json.dumps([self.dag_id, self.run_id, self.task_id, self.map_index, self.generation])


class AgentContext:
    """Given to ``process`` with the task.

    Messages sent here wait in ``outbox`` until the work is done: they leave in one commit with the ack of
    what was handled, or not at all. Within a DAG run their ids are derived from the work and the content, so
    a retry of the same task does not send twice.

    Args:
        agent: Name of the agent; the ``source`` of what it sends.
        run: The task it works in, if any.
        messages: What it handles, when the task came through a mailbox.
        config: The agent's validated configuration.
        http: Makes a transport for an Airflow connection; given by the runtime.
        async_http: The same for asyncio.
        sends_to: Names that the agent's code sends to, and the mailboxes that are meant.

    Attributes:
        outbox: Messages that leave when the work is done.
        log: Logger of the agent.
        degraded: Reason given to :meth:`degrade`, or ``None``.
    """

    def __init__(
        self,
        agent: str,
        *,
        run: RunIdentity | None = None,
        messages: tuple[Message, ...] = (),
        config: Any = None,
        http: Callable[[str], HttpTransport] | None = None,
        async_http: Callable[[str], AsyncHttpTransport] | None = None,
        sends_to: Mapping[str, str] | None = None,
    ) -> None:
        self.agent = agent
        self.run = run
        self.messages = messages
        self.config = config
        self.outbox: list[Message] = []
        self.log = logging.getLogger(f"airflow_agentic.agent.{agent}")
        self.degraded: str | None = None
        self._http = http
        self._async_http = async_http
        self._sends_to = sends_to or {}
        self._sent: Counter[str] = Counter()

    @property
    def message(self) -> Message | None:
        """The message being handled, or ``None`` if the task did not come as one message."""
        return self.messages[0] if len(self.messages) == 1 else None

    def send(
        self,
        recipient: str,
        data: Any,
        *,
        type: str = "agentic.message",  # noqa: A002  # CloudEvents' own name
        kind: Kind = Kind.NOTIFICATION,
        subject: str | None = None,
        key: str | None = None,
    ) -> Message:
        """Say something to another agent when this work is done.

        Args:
            recipient: The mailbox, or a name that the project file leads to one (``sends_to``).
            data: Any JSON value or pydantic model.
            type: What happened or is wanted.
            kind: Request, response, notification, ...
            subject: What it is about.
            key: Names the message within this work, for content that differs between retries (a time, a
                random number). By default the content names it.

        Returns:
            The message as it will leave.

        Raises:
            InvalidMessage: The recipient's name or the data cannot be sent.
        """
        draft = Message(
            source=self.agent,
            recipient=self._sends_to.get(recipient, recipient),
            data=data,
            type=type,
            kind=kind,
            subject=subject,
        )
        cause = self.message
        correlation = cause.correlation_id if cause else self.run.correlation_id if self.run else draft.id
        identity = draft.id if self.run is None and cause is None else self._derived_id(draft, cause, key)
        message = draft.model_copy(
            update={
                "id": identity,
                "correlation_id": correlation,
                "causation_id": cause.id if cause else None,
            }
        )
        self.outbox.append(message)
        return message

    def degrade(self, reason: str) -> None:
        """Say that the result is usable but not what it should be; the agent's state becomes ``degraded``."""
        self.degraded = reason

    def http(self, conn_id: str) -> HttpTransport:
        """Return a transport for the HTTP connection ``conn_id``.

        Raises:
            ConfigurationError: This context was made without one.
        """
        if self._http is None:
            raise ConfigurationError(
                f"agent {self.agent!r} needs the HTTP connection {conn_id!r}, and this context has no transport. "
                "Run it through RunAgentOperator, or give the context http= (airflow_agentic.testing.FakeHttp)."
            )
        return self._http(conn_id)

    def async_http(self, conn_id: str) -> AsyncHttpTransport:
        """Return an asyncio transport for the HTTP connection ``conn_id``.

        Raises:
            ConfigurationError: This context was made without one.
        """
        if self._async_http is None:
            raise ConfigurationError(
                f"agent {self.agent!r} needs the HTTP connection {conn_id!r}, and this context has no asyncio "
                "transport. Run it through RunAgentOperator(deferrable=True), or give the context async_http=."
            )
        return self._async_http(conn_id)

    def _derived_id(self, draft: Message, cause: Message | None, key: str | None) -> str:
        work = [self.run.key if self.run else "", cause.id if cause else "", self.agent]
        content = key if key is not None else json.dumps(draft.data, sort_keys=True)
        name = json.dumps([*work, draft.recipient, draft.type, draft.subject, content])
        # The same words twice in one piece of work are two messages.
        self._sent[name] += 1
        return str(uuid.uuid5(_NAMESPACE, f"{name}#{self._sent[name]}"))
