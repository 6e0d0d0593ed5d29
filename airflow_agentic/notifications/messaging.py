"""Outcomes of tasks and DAG runs as messages on the bus."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from airflow_agentic import runtime
from airflow_agentic.agents.context import AgentContext, Envelope, RunIdentity
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.message import DEFAULT_PRIORITY, Kind, Message

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk.definitions.context import Context

_MOST_TEXT = 4_000


class AgenticNotifier(BaseNotifier):
    """Tells agents how a task or a DAG run ended: ``on_failure_callback=AgenticNotifier(recipient="on-call")``.

    It works wherever Airflow takes a callback: ``on_success_callback``, ``on_failure_callback``, ``on_retry_callback``,
    ``on_skipped_callback`` and ``on_execute_callback`` of tasks, the first two of DAGs, and (as ``AsyncCallback``) a
    ``DeadlineAlert``. Its data is ``{"dag_id", "run_id", "task_id", "map_index", "try_number", "state", "exception",
    "logical_date"}``. Where an exception is known it is an error message, with its category and causes as well;
    otherwise a notification. The same outcome is sent once, however often Airflow calls.

    What goes wrong here is logged, and changes nothing for the task.

    Args:
        recipient: The mailbox.
        topic: Instead of ``recipient``; the default is ``airflow.task.STATE`` or ``airflow.dag.STATE``, such as
            ``airflow.task.failed``, ``airflow.task.up_for_retry``, ``airflow.dag.success``.
        subject: What it is about.
        priority: 0 to 9; higher ones are received first. Default 4.
        agentic_conn_id: The store; see ``AgenticHook``.
        kwargs: As for any notifier.

    Raises:
        ConfigurationError: When the DAG is parsed: both ``recipient`` and ``topic``.
        InvalidMessage: When the DAG is parsed: one of them cannot be one.
    """

    template_fields: Sequence[str] = ("recipient", "topic", "subject", "agentic_conn_id")

    def __init__(
        self,
        *,
        recipient: str | None = None,
        topic: str | None = None,
        subject: str | None = None,
        priority: int = DEFAULT_PRIORITY,
        agentic_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.recipient = recipient
        self.topic = topic
        self.subject = subject
        self.priority = priority
        self.agentic_conn_id = agentic_conn_id
        address = {
            key: value for key, value in (("recipient", recipient), ("topic", topic)) if value is not None
        }
        if len(address) > 1:
            raise ConfigurationError("AgenticNotifier takes recipient= or topic=, not both")
        literal = {key: value for key, value in address.items() if "{" not in value}
        Message(**{"source": "parsing", "priority": priority, **(literal or {"recipient": "parsing"})})

    def __call__(self, *args: Any) -> None:
        """Tell; what goes wrong is logged."""
        try:
            # One notifier serves many tasks, and rendering changes it.
            BaseNotifier.__call__(copy.copy(self), *args)
        except Exception as error:  # noqa: BLE001  # a callback must not fail what it tells about
            self.log.warning("an outcome was not told: %s: %s", type(error).__name__, error)

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:
        """Render the templates; see Airflow."""
        # dag.test() calls with a serialised DAG, and the triggerer with none.
        if jinja_env is None and not hasattr(context.get("dag"), "get_template_env"):
            jinja_env = self.get_template_env(dag=None)
        super().render_template_fields(context, jinja_env)

    def __await__(self) -> Generator[Any, Any, None]:
        """Tell, in the triggerer; what goes wrong is logged."""
        return asyncio.to_thread(self, self.context).__await__()

    async def async_notify(self, context: Context) -> None:
        """Send the outcome."""
        await asyncio.to_thread(self.notify, context)

    def notify(self, context: Context) -> None:
        """Send the outcome.

        Raises:
            AgenticError: It cannot be sent. Who calls the notifier itself does not see it.
        """
        outcome = outcome_of(context)
        run = outcome.run
        ctx = AgentContext(".".join(filter(None, (run.dag_id, run.task_id))), run=run)
        envelope: Envelope = {
            "type": f"airflow.{outcome.level}.{outcome.state}",
            "kind": Kind.ERROR if outcome.is_error else Kind.NOTIFICATION,
            "subject": self.subject,
            "priority": self.priority,
        }
        # The outcome names the message: the same one, told again, has the same id.
        key = f"{outcome.state} {run.try_number}"
        if self.recipient is not None:
            message = ctx.send(self.recipient, outcome.data, key=key, **envelope)
        else:
            topic = self.topic or f"airflow.{outcome.level}.{outcome.state}"
            message = ctx.publish(topic, outcome.data, key=key, **envelope)
        with runtime.open_store(self.agentic_conn_id, run.owner) as store:
            store.bus.send(message)
        self.log.info("%s told %s as message %s", message.type, message.address, message.id)


@dataclass(frozen=True)
class Outcome:
    """How a task or a DAG run ended.

    Attributes:
        level: ``task`` or ``dag``.
        state: As Airflow calls it; ``deadline_missed`` for a DAG run that took too long.
        run: Whose it is.
        data: What is told.
        is_error: Whether an exception is known.
    """

    level: str
    state: str
    run: RunIdentity
    data: dict[str, Any] = field(default_factory=dict)
    is_error: bool = False


def outcome_of(context: Mapping[str, Any]) -> Outcome:
    """Read the outcome from the context of a callback."""
    ti, dag_run = context.get("ti"), context.get("dag_run")
    if "deadline" in context:
        return _of_dag(context, dag_run, "deadline_missed")
    if ti is None or context.get("reason") is not None:
        return _of_dag(context, dag_run, "success" if context.get("reason") == "success" else "failed")
    run = runtime.identity(context)  # type: ignore[arg-type]  # a context is a mapping
    state = getattr(ti, "state", None) or _state_of_killed(run)
    facts = {**_facts(run, str(getattr(state, "value", state)), dag_run), "task_id": run.task_id}
    facts |= {"map_index": run.map_index, "try_number": run.try_number}
    error = context.get("exception")
    if error is None or facts["state"] not in ("failed", "up_for_retry"):
        return Outcome("task", facts["state"], run, {**facts, "exception": None})
    said = _said(error)
    facts["exception"] = {"type": said["type"], "message": said["message"]}
    return Outcome("task", facts["state"], run, {**said, **facts}, is_error=True)


def _of_dag(context: Mapping[str, Any], dag_run: Any, state: str) -> Outcome:
    dag_id = _read(dag_run, "dag_id") or context["dag"].dag_id
    run_id = _read(dag_run, "dag_run_id", "run_id") or context["run_id"]
    # The run as a whole; when it is cleared, it ends another time.
    run = RunIdentity(str(dag_id), str(run_id), "", generation=_read(dag_run, "clear_number") or 0)
    facts = {
        **_facts(run, state, dag_run),
        "task_id": None,
        "map_index": -1,
        "try_number": None,
        "exception": None,
    }
    return Outcome("dag", state, run, {**facts, "reason": context.get("reason")})


def _facts(run: RunIdentity, state: str, dag_run: Any) -> dict[str, Any]:
    said = _read(dag_run, "logical_date")
    date = said.isoformat() if hasattr(said, "isoformat") else said
    return {"dag_id": run.dag_id, "run_id": run.run_id, "state": state, "logical_date": date}


def _read(dag_run: Any, *names: str) -> Any:
    """Return what a DAG run says, which is an object or, from the API, a dict."""
    said = (
        dag_run.get(name) if isinstance(dag_run, Mapping) else getattr(dag_run, name, None) for name in names
    )
    return next((value for value in said if value is not None), None)


def _state_of_killed(run: RunIdentity) -> str:
    """Of a task whose process was killed, Airflow does not tell the state."""
    return "up_for_retry" if run.try_number <= run.generation else "failed"


def _said(error: Any) -> dict[str, Any]:
    from airflow.sdk.exceptions import AirflowFailException
    from airflow.sdk.log import redact  # type: ignore[attr-defined]  # where providers take it from

    from airflow_agentic.messaging.kinds import error_data

    def discreet(text: str) -> str:
        return str(redact(text))[:_MOST_TEXT]

    known = error if isinstance(error, BaseException) else RuntimeError(str(error))
    said = error_data(known, discreet)
    if isinstance(known, AirflowFailException):
        said["category"] = "permanent"
    return said
