"""Messages as tasks."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_agentic import runtime
from airflow_agentic.agents.context import AgentContext, Envelope, RunIdentity
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.codec import to_event
from airflow_agentic.messaging.delivery import DeliveryState, reference
from airflow_agentic.messaging.message import DEFAULT_PRIORITY, Kind, Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.messaging.routing import UNROUTABLE
from airflow_agentic.operators.parsing import check_message, duration
from airflow_agentic.operators.store import StoreOperator
from airflow_agentic.triggers.failures import raise_failure
from airflow_agentic.triggers.messaging import MailboxTrigger

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_agentic.messaging.bus import MessageBus


class MessageOperator(StoreOperator):
    """An operator that sends a message. A retry of the task does not send it twice; clearing the task does.

    The message says which task sent it, and belongs to the task's trace.

    Args:
        data: Any JSON value.
        source: Who says it; default ``dag_id.task_id``.
        message_type: What happened or is wanted.
        subject: What it is about.
        ordering_key: Messages of one mailbox with the same key are handled in order, one at a time.
        priority: 0 to 9; higher ones are received first. Default 4.
        kwargs: ``agentic_conn_id``, and as for any operator.
    """

    template_fields: Collection[str] = (
        "data", "source", "message_type", "subject", "ordering_key", "priority", "agentic_conn_id",
    )  # fmt: skip
    template_fields_renderers: ClassVar[dict[str, str]] = {"data": "json"}

    def __init__(
        self,
        *,
        data: Any = None,
        source: str | None = None,
        message_type: str = "agentic.message",
        subject: str | None = None,
        ordering_key: str | None = None,
        priority: int | str = DEFAULT_PRIORITY,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.source = source
        self.message_type = message_type
        self.subject = subject
        self.ordering_key = ordering_key
        self.priority = priority

    def speaker(self, run: RunIdentity) -> AgentContext:
        """Return what makes the task's message."""
        return AgentContext(self.source or f"{run.dag_id}.{run.task_id}", run=run)

    def envelope(self) -> Envelope:
        """Return what is said of the message besides its address and its data."""
        return {
            "type": self.message_type,
            "subject": self.subject,
            "ordering_key": self.ordering_key,
            "priority": int(self.priority),
        }

    def check(self, **address: Any) -> None:
        """Refuse, when the DAG is parsed, what is literal and makes no message.

        Raises:
            InvalidMessage: It does not.
        """
        check_message(
            address,
            source=self.source,
            data=self.data,
            type=self.message_type,
            subject=self.subject,
            ordering_key=self.ordering_key,
            priority=self.priority,
        )


class SendMessageOperator(MessageOperator):
    """Sends one message. A retry of the task does not send it twice; clearing the task sends it again.

    The XCom is a reference: ``{"id", "source", "recipient", "type", "correlation_id"}``.

    Args:
        recipient: The mailbox. Only a heartbeat has none: it is kept as the last sign of life of its source.
        kind: ``request``, ``response``, ``notification`` (default), ``error`` or ``heartbeat``.
        reply_to: Mailbox for the answer to a request; :class:`RequestOperator` waits for it instead.
        delay: Time before which nobody can receive it, as a timedelta or in seconds.
        expires_in: Time after which it is of no use any more, as a timedelta or in seconds; of a heartbeat, when the
            next one is late.
        kwargs: ``data``, ``source``, ``message_type``, ``subject``, ``ordering_key``, ``priority`` and
            ``agentic_conn_id``: see :class:`MessageOperator`; and as for any operator.

    Raises:
        InvalidMessage: When the DAG is parsed: literal arguments do not make a message.
    """

    template_fields: Collection[str] = ("recipient", "reply_to", *MessageOperator.template_fields)

    def __init__(
        self,
        *,
        recipient: str | None = None,
        kind: str = Kind.NOTIFICATION,
        reply_to: str | None = None,
        delay: timedelta | float = 0,
        expires_in: timedelta | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.recipient = recipient
        self.kind = kind
        self.reply_to = reply_to
        self.delay = delay
        self.expires_in = expires_in
        self.check(recipient=recipient, kind=kind, reply_to=reply_to)

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the message and return its reference.

        Raises:
            AirflowFailException: The message cannot be sent as it is, for example because it is too large.
        """
        run = runtime.identity(context)
        with runtime.airflow_failures():
            envelope: Envelope = {
                **self.envelope(),
                "kind": Kind(self.kind),
                "reply_to": self.reply_to,
                "expires_in": duration(self.expires_in),
            }
            ctx = self.speaker(run)
            # The task is the work: its one message has the same id in every try, whatever the time says.
            if self.recipient is None:
                message = ctx.heartbeat(self.data, key="task", **envelope)
            else:
                message = ctx.send(self.recipient, self.data, key="task", **envelope)
            with runtime.open_store(self.agentic_conn_id, run.owner) as store:
                new = store.bus.send(message, delay=duration(self.delay) or timedelta(0))
        self.log.info(
            "message %s to %s %s", message.id, message.address, "sent" if new else "was sent before"
        )
        self.show_trace(context, message.correlation_id)
        return reference(message)


class PublishOperator(MessageOperator):
    """Tells whoever subscribed to a topic, or a group. A retry of the task does not send it twice.

    The XCom is a reference with the mailboxes that got a copy: ``{"id", "source", "topic", "type", "correlation_id",
    "mailboxes", …}``. What leads to nobody is kept in the dead letters of ``agentic.unroutable``.

    Args:
        topic: What it is about: words with dots between them.
        audience: Instead of ``topic``: ``all``, ``role:NAME`` or ``tag:NAME``.
        mandatory: Fail if nobody subscribed.
        delay: Time before which nobody can receive it, as a timedelta or in seconds.
        expires_in: Time after which it is of no use any more, as a timedelta or in seconds.
        kwargs: ``data``, ``source``, ``message_type``, ``subject``, ``ordering_key``, ``priority`` and
            ``agentic_conn_id``: see :class:`MessageOperator`; and as for any operator.

    Raises:
        InvalidMessage: When the DAG is parsed: literal arguments do not make a message.
    """

    template_fields: Collection[str] = ("topic", "audience", *MessageOperator.template_fields)

    def __init__(
        self,
        *,
        topic: str | None = None,
        audience: str | None = None,
        mandatory: bool = False,
        delay: timedelta | float = 0,
        expires_in: timedelta | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.topic = topic
        self.audience = audience
        self.mandatory = mandatory
        self.delay = delay
        self.expires_in = expires_in
        self.check(topic=topic, audience=audience)

    def execute(self, context: Context) -> dict[str, Any]:
        """Publish the message and return its reference, with the mailboxes.

        Raises:
            AirflowFailException: The message cannot be sent as it is, or it is mandatory and leads to nobody.
        """
        run = runtime.identity(context)
        with runtime.airflow_failures():
            envelope: Envelope = {**self.envelope(), "expires_in": duration(self.expires_in)}
            ctx = self.speaker(run)
            if self.audience is not None:
                message = ctx.broadcast(self.audience, self.data, key="task", **envelope)
            else:
                message = ctx.publish(str(self.topic), self.data, key="task", **envelope)
            delay = duration(self.delay) or timedelta(0)
            with runtime.open_store(self.agentic_conn_id, run.owner) as store:
                # A try before this one may have published it; then it has its mailboxes.
                mailboxes = store.bus.publish(message, delay=delay, mandatory=self.mandatory) or sorted(
                    record.mailbox
                    for record in store.bus.find(DeliveryQuery(message_id=message.id))
                    if record.mailbox != UNROUTABLE
                )
        self.log.info(
            "message %s on %s reached %s", message.id, message.address, ", ".join(mailboxes) or "nobody"
        )
        self.show_trace(context, message.correlation_id)
        return {**reference(message), "mailboxes": mailboxes}


class ReceiveMessagesOperator(StoreOperator):
    """Takes messages out of a mailbox and hands them to the DAG: ``handle.expand(event=receive.output)``.

    The XCom is a list of ``{"mailbox", "delivery_id", "message": {CloudEvents attributes}}``, with the data. The task
    acks the messages as the last thing that it does, after noting them in Airflow's task state: a try that comes
    after a crash hands over the same messages again, and none is lost. From then on they are the DAG's: what fails
    there does not come again by itself. Where that matters, handle them in one task: ``@task.on_message`` or
    ``RunAgentOperator(mailbox=…)``.

    Args:
        mailbox: Which.
        max_messages: At most so many; of those with one ordering key, one.
        wait: Wait for a message, in the triggerer and without a slot, if there is none; otherwise the list is empty.
        kwargs: ``agentic_conn_id``, and as for any operator.

    Raises:
        ConfigurationError: When the DAG is parsed: ``max_messages`` is not positive.
    """

    template_fields: Collection[str] = ("mailbox", "agentic_conn_id")

    def __init__(self, *, mailbox: str, max_messages: int = 100, wait: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_messages < 1:
            raise ConfigurationError(
                f"task {self.task_id!r}: max_messages must be positive, it is {max_messages}"
            )
        self.mailbox = mailbox
        self.max_messages = max_messages
        self.wait = wait

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Take what is there.

        Raises:
            TaskDeferred: Waiting for a message.
            AirflowFailException: The store cannot be used, and a retry does not help.
        """
        run = runtime.identity(context)
        noted, note = context["task_state_store"], f"agentic_received_{run.generation}"
        with runtime.airflow_failures(), runtime.open_store(self.agentic_conn_id, run.owner) as store:
            before: Any = noted.get(note) if run.try_number > 1 else None
            events = _handed_over(store.bus, run, before) if before else []
            if not events:
                deliveries = store.bus.receive(self.mailbox, max_messages=self.max_messages)
                events = [_event(each.mailbox, each.delivery_id, each.message) for each in deliveries]
                if deliveries:
                    noted.set(note, [each.delivery_id for each in deliveries])
                    store.bus.ack(*deliveries)
        if not events and self.wait:
            trigger = MailboxTrigger(self.mailbox, "message", self.agentic_conn_id)
            self.defer(trigger=trigger, method_name="resume")
        self.log.info("%s messages of mailbox %s are handed over", len(events), self.mailbox)
        return events

    def resume(self, context: Context, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Take what came; wait on if somebody else was faster."""
        raise_failure(event)
        return self.execute(context)


def _handed_over(bus: MessageBus, run: RunIdentity, noted: list[int]) -> list[dict[str, Any]]:
    """Return what an earlier try of this task acked, and may have died before it could say so."""
    records = bus.find(DeliveryQuery(ids=tuple(noted), states=(DeliveryState.DONE,), limit=len(noted)))
    return [
        _event(record.mailbox, record.delivery_id, bus.loaded(record.message))
        for record in records
        if record.message is not None and run.owns(record.owner)
    ]


def _event(mailbox: str, delivery_id: int, message: Message) -> dict[str, Any]:
    """Return a message for an XCom, with its data, wherever that was kept."""
    here = message.model_copy(update={"data_ref": None, "data_digest": None})
    return {"mailbox": mailbox, "delivery_id": delivery_id, "message": to_event(here)}
