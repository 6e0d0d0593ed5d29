"""Requests as tasks: ask, wait without a slot, and go on with the answer."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_agentic import runtime
from airflow_agentic.agents.context import RunIdentity
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging import requests
from airflow_agentic.messaging.codec import from_event, to_event
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.operators.messaging import MessageOperator
from airflow_agentic.operators.parsing import duration
from airflow_agentic.triggers.failures import raise_failure
from airflow_agentic.triggers.messaging import ReplyTrigger

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_agentic.messaging.bus import MessageBus


class RequestOperator(MessageOperator):
    """Asks, and waits in the triggerer for the answer: no slot is held. The XCom is the answer's data.

    An error as the answer fails the task, and so does no answer before the deadline. A retry waits on for the answer
    to a request that is still open, and finds one that came meanwhile: nothing is asked twice. It asks again only
    where that request failed or its deadline is over.

    Args:
        recipient: The mailbox of whoever is asked.
        topic: Instead of ``recipient``: whoever subscribed; the first answer counts.
        timeout: How long to wait, as a timedelta or in seconds; it is the request's deadline. Default:
            ``[agentic] request_timeout_seconds``.
        deferrable: Wait in the triggerer (default); otherwise in the worker.
        kwargs: ``data``, ``source``, ``message_type``, ``subject``, ``ordering_key``, ``priority`` and
            ``agentic_conn_id``: see :class:`MessageOperator`; and as for any operator.

    Raises:
        InvalidMessage: When the DAG is parsed: literal arguments do not make a message.
        ConfigurationError: When the DAG is parsed: not one of ``recipient`` and ``topic``.
    """

    template_fields: Collection[str] = ("recipient", "topic", "timeout", *MessageOperator.template_fields)

    def __init__(
        self,
        *,
        recipient: str | None = None,
        topic: str | None = None,
        timeout: timedelta | float | str | None = None,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (recipient is None) == (topic is None):
            raise ConfigurationError(f"task {self.task_id!r}: give recipient= or topic=, one of the two")
        self.recipient = recipient
        self.topic = topic
        self.timeout = timeout
        self.deferrable = deferrable
        self.check(recipient=recipient, topic=topic)

    def execute(self, context: Context) -> Any:
        """Ask, and wait for the answer.

        Raises:
            TaskDeferred: Waiting.
            AirflowFailException: The request cannot be sent, or the answer is an error that a retry cannot help.
            ReplyTimeout: There was no answer in time.
            ErrorReply: The answer is an error that may pass.
        """
        run = runtime.identity(context)
        with runtime.airflow_failures(), runtime.open_store(self.agentic_conn_id, run.owner) as store:
            request, answer = self._asked(store.bus, run)
            if answer is None and not self.deferrable:
                answer = store.bus.loaded(requests.wait_for_reply(store.bus, request))
        self.show_trace(context, request.correlation_id)
        return self._result(answer) if answer is not None else self._wait(request)

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """End with the answer, if there is one."""
        raise_failure(event)
        request, run = from_event(event["request"]), runtime.identity(context)
        with runtime.airflow_failures(), runtime.open_store(self.agentic_conn_id, run.owner) as store:
            answer = store.bus.reply(request)
            if answer is None and not _is_open(request):
                raise requests.timed_out(store.bus, request)
        return self._result(answer) if answer is not None else self._wait(request)

    def _asked(self, bus: MessageBus, run: RunIdentity) -> tuple[Message, Message | None]:
        """Ask, unless an earlier try did and there is still something to hope for."""
        timeout = duration(self.timeout) or bus.options.request_timeout
        for number in itertools.count(1):
            request = requests.prepared(self._message(run, number), timeout)
            earlier = self._earlier(bus, request) if run.try_number > 1 else None
            if earlier is None:
                bus.ask(request)
                self.log.info("request %s to %s, until %s", request.id, request.address, request.expires_at)
                return request, None
            answer = bus.reply(earlier)
            if answer is not None and answer.kind is not Kind.ERROR:
                return earlier, answer
            if answer is None and _is_open(earlier):
                self.log.info("request %s was sent before, and is waited for", earlier.id)
                return earlier, None
        raise AssertionError("counting has no end")

    def _message(self, run: RunIdentity, number: int) -> Message:
        """Return the ``number``-th request of this task; the same in every try."""
        ctx, key, envelope = self.speaker(run), f"request {number}", self.envelope()
        if self.recipient is not None:
            return ctx.send(self.recipient, self.data, key=key, **envelope)
        return ctx.publish(str(self.topic), self.data, key=key, **envelope)

    def _earlier(self, bus: MessageBus, request: Message) -> Message | None:
        found = bus.find(DeliveryQuery(message_id=request.id, limit=1))
        return (found[0].message or request) if found else None

    def _wait(self, request: Message) -> NoReturn:
        asked = to_event(request.model_copy(update={"data": None}))
        self.defer(trigger=ReplyTrigger(asked, self.agentic_conn_id), method_name="resume")

    def _result(self, answer: Message) -> Any:
        with runtime.airflow_failures():
            return answer.raise_for_error().data


def _is_open(request: Message) -> bool:
    return request.expires_at is None or datetime.now(UTC) < request.expires_at
