"""``@task.on_message``: a plain function that handles the messages of a mailbox."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
from airflow.sdk.exceptions import AirflowException

from airflow_agentic import runtime
from airflow_agentic.agents.context import AgentContext, Facilities
from airflow_agentic.agents.handling import FunctionHandler, check_function
from airflow_agentic.agents.worker import MailboxReport, MailboxWorker
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.hooks.models import open_model
from airflow_agentic.operators.parsing import check_mode, duration
from airflow_agentic.operators.store import StoreOperator
from airflow_agentic.operators.waiting import NOT_WAITED, Waited, wait_for
from airflow_agentic.triggers.failures import raise_failure
from airflow_agentic.triggers.messaging import Condition, MailboxTrigger

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator
    from airflow.sdk.definitions.context import Context

    from airflow_agentic.agents.context import RunIdentity
    from airflow_agentic.stores import Store


class OnMessageOperator(DecoratedOperator, StoreOperator):
    """Handles the messages of a mailbox with the decorated function; see :func:`on_message_task`.

    Args:
        python_callable: Stands for the function in TaskFlow calls; ``handles`` on it is the function.
        mailbox: Whose messages.
        batch: So many are handed over at once, as a list.
        max_messages: End after so many; default: when none is open.
        lease: How long a message belongs to this task at a time, renewed while the function works.
        inbox: Ack without effects what this task of the DAG handled before, whatever delivery it comes by.
        persistence: How the durable runs of the messages are kept: ``hybrid`` (the default), ``snapshot``, ``checkpoint``,
            ``events`` or ``off``.
        op_args: What the DAG gives the function.
        op_kwargs: The same by name.
        kwargs: ``agentic_conn_id``, and as for any operator.

    Raises:
        ConfigurationError: When the DAG is parsed: ``batch`` or ``max_messages`` is not positive, or there is no such
            persistence.
    """

    template_fields: Sequence[str] = ("op_args", "op_kwargs", "mailbox", "lease", "agentic_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"op_args": "py", "op_kwargs": "py"}
    custom_operator_name = "@task.on_message"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        mailbox: str,
        batch: int = 1,
        max_messages: int | None = None,
        lease: timedelta | float | str | None = None,
        inbox: bool = False,
        persistence: str | None = None,
        op_args: Sequence[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._function: Callable[..., Any] = python_callable.handles  # type: ignore[attr-defined]
        super().__init__(
            python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs or {}, **kwargs
        )
        if batch < 1 or (max_messages is not None and max_messages < 1):
            raise ConfigurationError(f"task {self.task_id!r}: batch and max_messages must be positive")
        check_mode(self.task_id, persistence)
        self.mailbox = mailbox
        self.batch = batch
        self.max_messages = max_messages
        self.lease = lease
        self.inbox = inbox
        self.persistence = persistence
        self._worker: MailboxWorker | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Handle what is there, until nothing is open.

        Raises:
            TaskDeferred: Messages are delayed or in other hands.
            AirflowFailException: An error that a retry cannot help.
        """
        return self._work(context, None)

    def resume(self, context: Context, event: dict[str, Any], before: dict[str, Any] | None = None) -> Any:
        """Go on after waiting for messages, with what was done ``before`` (``dag.test()`` does not keep it)."""
        raise_failure(event)
        report = MailboxReport(**(before or {"mailbox": self.mailbox}))
        return self._work(context, report, Waited.of(event))

    def on_kill(self) -> None:
        """Take no further message. Those at hand come again when their leases end."""
        if self._worker is not None:
            self._worker.stop()

    def _work(
        self, context: Context, before: MailboxReport | None, waited: Waited = NOT_WAITED
    ) -> dict[str, Any]:
        run = runtime.identity(context)
        self.show_trace(context, run.correlation_id)
        report = before or MailboxReport(self.mailbox)
        room = None if self.max_messages is None else self.max_messages - report.settled
        with runtime.airflow_failures(), runtime.open_store(self.agentic_conn_id, run.owner) as store:
            self._worker = worker = self._worker_on(store, run)
            try:
                report += worker.drain(self.mailbox, max_messages=room)
            finally:
                self.show_messages(context, worker.references, resumed=before is not None)
        self.log.info("mailbox %s: %s", self.mailbox, report)
        if worker.stopping:
            raise AirflowException("the task was told to stop; its messages come again")
        if worker.refusal is not None and worker.refusal.final:
            raise worker.refusal
        if worker.refusal is not None:
            wait_for(self, worker.refusal, waited, {"before": asdict(report)}, self.agentic_conn_id)
        if report.open and (self.max_messages is None or report.settled < self.max_messages):
            condition: Condition = "message" if worker.waiting else "work"
            trigger = MailboxTrigger(self.mailbox, condition, self.agentic_conn_id)
            self.defer(trigger=trigger, method_name="resume", kwargs={"before": asdict(report)})
        return asdict(report)

    def _worker_on(self, store: Store, run: RunIdentity) -> MailboxWorker:
        source = f"{run.dag_id}.{run.task_id}"
        given = inspect.signature(self.python_callable).bind(*self.op_args, **self.op_kwargs)
        facilities = Facilities(
            runtime.guards_of(store, run, source), open_model, runtime.durability(store, self.persistence)
        )
        handler = FunctionHandler(
            self._function,
            lambda messages: AgentContext(source, run=run, messages=messages, facilities=facilities),
            batch=self.batch > 1,
            arguments=given.arguments,
        )
        inbox, classifier = source if self.inbox else None, store.guarding.classifier
        return MailboxWorker(
            store.bus, handler, duration(self.lease), batch=self.batch, inbox=inbox, classifier=classifier
        )


def on_message_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Make a task of a function ``f(message)`` that handles the messages of a mailbox.

    ::

        @task.on_message(mailbox="orders")
        def ship(message):
            return Message(source="shop", topic="orders.shipped", data=message.data)

    The task claims the messages, calls the function with each, and acks each when it returns; the lease is renewed
    while it works. Messages that it returns, or gives to ``ctx`` if it has a parameter of that name, leave in one
    commit with the ack. What it does in durable steps (``ctx.step``) is not done again when the message comes again:
    the run is ``dag.task/message/source/id``. Anything else that it returns answers whoever asked. If it raises ``RejectMessage``, the
    message goes to the dead letters; with any other exception the message comes again, until its attempts are spent.
    The others are handled in the meantime. With ``batch`` above 1 the function gets a list, which is acked together;
    if it fails, the messages are tried one by one (each as a list of one), so that a bad one costs the others nothing.

    Other parameters are given in the DAG, as to any ``@task``: ``ship(country="{{ params.country }}")``, or
    ``ship.expand(country=["de", "fr"])`` for several tasks that compete for the messages.

    The XCom is ``{"mailbox", "handled", "failed", "rejected", "lost", "sent", "open"}``, and ``agentic_messages`` holds
    the references of the first 100 that were handled. While messages are delayed or in other hands the task defers
    and holds no slot.

    Args:
        python_callable: The function.
        multiple_outputs: As for ``@task``.
        kwargs: As for :class:`OnMessageOperator` (``mailbox``, ``batch``, ``max_messages``, ``lease``, ``inbox``,
            ``persistence``, ``agentic_conn_id``) and any operator.

    Raises:
        ConfigurationError: There is no ``mailbox``, or the function cannot handle messages.
    """
    if python_callable is not None:
        raise ConfigurationError('@task.on_message needs a mailbox: @task.on_message(mailbox="…")')
    if "mailbox" not in kwargs:
        raise ConfigurationError("@task.on_message needs mailbox=")
    return lambda function: _decorate(function, multiple_outputs, kwargs)  # type: ignore[return-value]


def _decorate(
    function: Callable[..., Any], multiple_outputs: bool | None, options: dict[str, Any]
) -> TaskDecorator:
    return task_decorator_factory(
        python_callable=_front(function),
        multiple_outputs=multiple_outputs,
        decorated_operator_class=OnMessageOperator,
        **options,
    )


def _front(function: Callable[..., Any]) -> Callable[..., Any]:
    """Stand for the function towards Airflow: the message and ``ctx`` are ours to give."""

    @functools.wraps(function)
    def front(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    front.__signature__ = signature.replace(parameters=check_function(function))  # type: ignore[attr-defined]
    front.handles = function  # type: ignore[attr-defined]
    return front
