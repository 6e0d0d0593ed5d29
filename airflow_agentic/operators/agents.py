"""Agents as tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowException

from airflow_agentic import runtime
from airflow_agentic.agents.registry import AgentDefinition, registry
from airflow_agentic.agents.runner import AgentRunner, MailboxReport
from airflow_agentic.hooks.agents import HookTransport
from airflow_agentic.operators.parsing import (
    check_agent_arguments,
    duration,
    is_literal,
    registered_name,
)
from airflow_agentic.operators.store import StoreOperator
from airflow_agentic.triggers.agents import HttpAgentTrigger
from airflow_agentic.triggers.failures import raise_failure
from airflow_agentic.triggers.messaging import MailboxTrigger

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_agentic.agents.base import BaseAgent


class RunAgentOperator(StoreOperator):
    """Runs an agent on one task, or on the messages of a mailbox.

    With ``task`` the agent's result is the XCom. With ``mailbox`` the agent gets the data of each message that
    is there, one by one, until none is open; several such tasks, as mapped ones, compete for them. A message
    is acked in one commit with what handling it sent. The XCom is then ``{"mailbox", "handled", "failed",
    "rejected", "lost", "sent", "open"}``, and ``agentic_messages`` holds the references of the first 100 that were
    handled. While messages are delayed or in other hands the task defers and holds no slot.

    The result answers whoever asked. A request that can never be handled, or whose attempts are spent, is answered
    with an error.

    Args:
        agent: A name that the project file declares or that is registered with ``@agent``; what ``@agent`` made,
            or ``"package.module:Attribute"``. Given by name, the project file says what it is made of.
        task: Input of the agent: any JSON. Checked against the agent's input model when the DAG is parsed,
            where it is literal.
        mailbox: Instead of ``task``: whose messages to handle.
        gather: With ``mailbox``: hand over all messages as one task, a list, and ack them together. The XCom
            is the agent's result.
        inbox: With ``mailbox``: ack without effects a message that an agent of this name handled before, whatever
            delivery it comes by (a redrive, two subscriptions). Costs a read and a row for each message; leases and
            the one commit hold without it.
        config: Configuration of the agent, over that of the project file; DAG params and ``dag_run.conf`` may set
            what is declared overridable on top (``{"agentic": {"agents": {"name": {"config": {…}}}}}``).
        lease: How long a message belongs to this task at a time, renewed while the agent works; in seconds
            (a template gives a string) or as a timedelta. Default: its policy's, else ``[agentic] lease_seconds``.
        deferrable: For an ``HttpAgent`` with ``task``: wait for the answer in the triggerer.
        kwargs: ``agentic_conn_id``, and as for any operator.

    Raises:
        UnknownAgent: When the DAG is parsed: no agent of that name is declared or registered.
        ProjectInvalid: When the DAG is parsed: the project file cannot be used.
        ConfigurationError: When the DAG is parsed: the arguments do not go together, or ``config`` does not fit.
        InvalidTask: When the DAG is parsed: the literal task does not fit.
    """

    template_fields: Collection[str] = ("agent", "task", "mailbox", "config", "lease", "agentic_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"task": "json", "config": "json"}
    ui_color = "#e6f4ea"
    runs_agents: ClassVar[bool] = True  # the cluster policy looks for it

    def __init__(
        self,
        *,
        agent: str | AgentDefinition | type[BaseAgent[Any, Any]],
        task: Any = None,
        mailbox: str | None = None,
        gather: bool = False,
        inbox: bool = False,
        config: Mapping[str, Any] | None = None,
        lease: timedelta | float | str | None = None,
        deferrable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._is_named = isinstance(agent, str)
        # Templating and the UI want a name; the definition is found again when the task runs.
        self.agent = agent if isinstance(agent, str) else registered_name(agent)
        self.task = task
        self.mailbox = mailbox
        self.gather = gather
        self.inbox = inbox
        self.config = config
        self.lease = lease
        self.deferrable = deferrable
        self._runner: AgentRunner | None = None
        self._working: BaseAgent[Any, Any] | None = None
        check_agent_arguments(self)

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Begin a mapped task; an unknown agent is refused here, since Airflow makes the operator only later.

        Raises:
            UnknownAgent: No agent of that name is declared or registered.
        """
        if isinstance(name := kwargs.get("agent"), str) and is_literal(name):
            runtime.plan(name)
        return super().partial(**kwargs)

    def execute(self, context: Context) -> Any:
        """Run the agent; see the class.

        Raises:
            AirflowFailException: An error that a retry cannot help.
            TaskDeferred: Waiting.
        """
        if self.deferrable:
            self._defer_to_triggerer(context)
        return self._work(context, None)

    def resume(self, context: Context, event: dict[str, Any], before: dict[str, Any] | None = None) -> Any:
        """Go on after waiting for messages, with what was done ``before`` (``dag.test()`` does not keep it)."""
        raise_failure(event)
        return self._work(context, MailboxReport(**(before or {"mailbox": self.mailbox or ""})))

    def finish(self, context: Context, event: dict[str, Any]) -> Any:  # noqa: ARG002  # Airflow's signature
        """End with the answer that the triggerer got."""
        raise_failure(event)
        return event["result"]

    def on_kill(self) -> None:
        """Shut the agent down; take no further message. The one at hand comes again when its lease ends."""
        if self._runner is not None:
            self._runner.stop()
        if self._working is not None:
            self._working.shutdown("the task was killed")

    def chosen(self) -> AgentDefinition | None:
        """Return the implementation that was chosen in the DAG; ``None`` if it was named only."""
        return None if self._is_named else registry.resolve(self.agent)

    def _work(self, context: Context, before: MailboxReport | None) -> Any:
        run = runtime.identity(context)
        self.show_trace(context, run.correlation_id)
        with runtime.airflow_failures(), runtime.workplace(self.agentic_conn_id, run, HookTransport) as place:
            plan = runtime.run_time_plan(context, self.agent, self.config, self.chosen())
            agent = self._working = place.agent(plan)
            self._runner = runner = place.runner(agent, plan, duration(self.lease), inbox=self.inbox)
            try:
                if self.mailbox is None:
                    return runner.run_task(self.task)
                gathered = runner.gather(self.mailbox) if self.gather else None
                report, result = gathered or (runner.drain(self.mailbox), None)
            finally:
                agent.shutdown("the task ended")
                self.show_messages(context, runner.references, resumed=before is not None)
        report = (before or MailboxReport(self.mailbox)) + report
        self.log.info("mailbox %s: %s", self.mailbox, report)
        if runner.stopping:
            raise AirflowException("the task was told to stop; its messages come again")
        if report.open and (result is None or not self.gather):
            self._defer_for_messages(report)
        return result if self.gather else asdict(report)

    def _defer_for_messages(self, report: MailboxReport) -> None:
        assert self.mailbox is not None
        self.defer(
            trigger=MailboxTrigger(self.mailbox, "all" if self.gather else "work", self.agentic_conn_id),
            method_name="resume",
            kwargs={"before": asdict(report)},
        )

    def _defer_to_triggerer(self, context: Context) -> None:
        with runtime.airflow_failures():
            plan = runtime.run_time_plan(context, self.agent, self.config, self.chosen())
        target = plan.definition.target
        self.defer(
            trigger=HttpAgentTrigger(
                plan.name,
                f"{target.__module__}:{target.__qualname__}",
                self.task,
                asdict(runtime.identity(context)),
                dict(plan.overlay),
                self.agentic_conn_id,
            ),
            method_name="finish",
        )
