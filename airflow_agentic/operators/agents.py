"""Agents as tasks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from airflow_agentic import runtime
from airflow_agentic.agents.registry import AgentDefinition, registry
from airflow_agentic.agents.runner import MailboxReport
from airflow_agentic.errors import NotAdmitted
from airflow_agentic.operators.parsing import (
    check_agent_arguments,
    check_mapped_run_key,
    duration,
    is_literal,
    registered_name,
)
from airflow_agentic.operators.store import StoreOperator
from airflow_agentic.operators.suspending import Pause, asked_again, settle
from airflow_agentic.operators.waiting import NOT_WAITED, Waited, answer_of, ask_person, wait_for
from airflow_agentic.operators.working import Came, Go, Work
from airflow_agentic.resilience.fallback import Degradation, PersonNeeded, marked, outcome
from airflow_agentic.triggers.agents import HttpAgentTrigger, degradation_of, refusal_of
from airflow_agentic.triggers.failures import raise_failure
from airflow_agentic.triggers.messaging import Condition, MailboxTrigger

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_agentic.agents.base import BaseAgent
    from airflow_agentic.agents.declared import AgentPlan
    from airflow_agentic.config.policies import Policy

OUTCOME_XCOM_KEY = "agentic_outcome"
"""Key of the XCom that says whether a result is degraded."""


class RunAgentOperator(StoreOperator):
    """Runs an agent on one task, or on the messages of a mailbox.

    With ``task`` the agent's result is the XCom. With ``mailbox`` the agent gets the data of each message that
    is there, one by one, until none is open; several such tasks, as mapped ones, compete for them. A message
    is acked in one commit with what handling it sent. The XCom is then ``{"mailbox", "handled", "failed",
    "rejected", "lost", "sent", "open"}``, and ``agentic_messages`` holds the references of the first 100 that were
    handled. While messages are delayed or in other hands the task defers and holds no slot.

    The result answers whoever asked. A request that can never be handled, or whose attempts are spent, is answered
    with an error.

    A guard of the policy that refuses the work makes the task wait without a slot, with no retry of Airflow's spent; of
    a mailbox the messages are given back uncounted. A result that came from a fallback is degraded: a map says so
    (``degraded``, ``degraded_reason``), and the XCom ``agentic_outcome`` always does: ``{"degraded", "reason", "source",
    "age_seconds"}``.

    What the agent does in durable steps (``ctx.step``) is kept in the run ``agent/dag/run/task``, with ``/map index`` of a
    mapped task: a retry, and a try after the failed task was cleared, go on after the last finished step. A try after the
    end of the run returns its result, and a finished task that is cleared begins the run anew (``…#2``). Of a mailbox the
    run is ``agent/message/source/id``. While a run waits for a time, a message or a person, the task holds no slot.

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
        policy: How the work is guarded: one of ``policies`` of the project file, or a ``Policy``. Default: the agent's.
        deferrable: For an ``HttpAgent`` with ``task``: wait for the answer in the triggerer.
        persistence: How the durable run of the work is kept: ``hybrid``, ``events``, ``snapshot``, ``checkpoint`` or
            ``off``. Default: as the project file says of the agent, else ``hybrid``.
        run_key: With ``task``: key of the durable run that the task works on, in place of its own: a fork, say. A run of
            that key which came to its end is not begun anew: its result is the task's. Empty (as a template may be) for its
            own.
        kwargs: ``agentic_conn_id``, and as for any operator.

    Raises:
        UnknownAgent: When the DAG is parsed: no agent of that name is declared or registered.
        ProjectInvalid: When the DAG is parsed: the project file cannot be used.
        ConfigurationError: When the DAG is parsed: the arguments do not go together, or ``config`` does not fit.
        InvalidTask: When the DAG is parsed: the literal task does not fit.
    """

    template_fields: Collection[str] = (
        "agent",
        "task",
        "mailbox",
        "config",
        "lease",
        "run_key",
        "agentic_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"task": "json", "config": "json"}
    ui_color = "#e6f4ea"
    runs_agents: ClassVar[bool] = True  # the cluster policy looks for it

    def __init__(  # noqa: PLR0913  # each is an argument of its own in DAG files
        self,
        *,
        agent: str | AgentDefinition | type[BaseAgent[Any, Any]],
        task: Any = None,
        mailbox: str | None = None,
        gather: bool = False,
        inbox: bool = False,
        config: Mapping[str, Any] | None = None,
        lease: timedelta | float | str | None = None,
        policy: str | Policy | None = None,
        deferrable: bool = False,
        persistence: str | None = None,
        run_key: str | None = None,
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
        self.policy = policy
        self.deferrable = deferrable
        self.persistence = persistence
        self.run_key = run_key
        self._go: Go | None = None
        check_agent_arguments(self)

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """Begin a mapped task; an unknown agent is refused here, since Airflow makes the operator only later.

        Raises:
            UnknownAgent: No agent of that name is declared or registered.
            ConfigurationError: All of them would work on one durable run.
        """
        check_mapped_run_key(kwargs.get("run_key"))
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

    def resume(
        self,
        context: Context,
        event: dict[str, Any],
        before: dict[str, Any] | None = None,
    ) -> Any:
        """Go on after waiting.

        Args:
            context: Airflow's.
            event: What the trigger saw.
            before: What was done with a mailbox before (``dag.test()`` does not keep it).
        """
        raise_failure(event)
        waited = Waited.of(event)
        if self.deferrable:
            self._defer_to_triggerer(context, waited)
        report = MailboxReport(**(before or {"mailbox": self.mailbox})) if self.mailbox else None
        return self._work(context, report, waited)

    def finish(self, context: Context, event: dict[str, Any]) -> Any:
        """End with the answer that the triggerer got, or wait as its guard says."""
        raise_failure(event)
        if "refused" in event:
            wait_for(self, refusal_of(event["refused"]), Waited.of(event), {}, self.agentic_conn_id)
        self._show_outcome(context, degradation_of(event))
        return event["result"]

    def answered(self, context: Context, event: dict[str, Any], reason: str) -> Any:
        """End with what a person answered; with the default of the policy, or as a failure, if nobody did.

        Raises:
            AirflowFailException: The person gave up, or the answer does not fit, and there is no default.
        """
        given, answer = answer_of(event)
        plan = self._plan(context)
        fallback = plan.policy.fallback if plan.policy else None
        degradation = Degradation(reason, "person")
        if not given:
            if fallback is None or not fallback.has_default:
                raise AirflowFailException(f"{reason}; and no person gave a result")
            answer, degradation = fallback.default, Degradation(reason, "default")
        else:
            contract = plan.definition.contract()
            with runtime.airflow_failures():
                answer = contract.to_json(contract.result(answer))
        self._show_outcome(context, degradation)
        return marked(answer, degradation)

    def settled(self, context: Context, event: dict[str, Any], about: dict[str, Any]) -> Any:
        """Go on after a person answered the question of the durable run, or the time for it was over."""
        with (
            runtime.airflow_failures(),
            runtime.open_store(self.agentic_conn_id, runtime.identity(context).owner) as store,
        ):
            fault = settle(store.runs, about, event)
            again = None if fault is None else Pause(asked_again(about), store)
        if again is not None:
            self.log.warning("%s; the question is asked again", fault)
            again.wait(self, context, {}, self.agentic_conn_id)
        report = MailboxReport(self.mailbox) if self.mailbox else None
        return self._work(context, report)

    def on_kill(self) -> None:
        """Shut the agent down and tell its work to stop; take no further message.

        The one at hand comes again when its lease ends.
        """
        if self._go is not None:
            self._go.stop()

    def chosen(self) -> AgentDefinition | None:
        """Return the implementation that was chosen in the DAG; ``None`` if it was named only."""
        return None if self._is_named else registry.resolve(self.agent)

    def _plan(self, context: Context) -> AgentPlan:
        plan = runtime.run_time_plan(context, self.agent, self.config, self.chosen())
        policy = plan.policy if self.policy is None else runtime.policy(self.policy)
        persistence = self.persistence or plan.persistence
        return replace(plan, policy=policy, persistence=persistence, run_key=self.run_key or None)

    def _work(self, context: Context, before: MailboxReport | None, waited: Waited = NOT_WAITED) -> Any:
        """Work, and wait outside of the store's and the agent's life if a guard or the agent says so."""
        run = runtime.identity(context)
        self.show_trace(context, run.correlation_id)
        with runtime.airflow_failures():
            plan = self._plan(context)
        work = Work(
            plan,
            self.task,
            self.mailbox,
            self.gather,
            self.inbox,
            duration(self.lease),
            self.agentic_conn_id,
        )
        self._go = go = Go(work, run, has_turn=waited.has_turn)
        try:
            came = go.done()
        finally:
            self.show_messages(context, go.references, resumed=before is not None)
        report = (before or MailboxReport(self.mailbox or "")) + came.report
        kwargs = {"before": asdict(report)} if self.mailbox is not None else {}
        if isinstance(came.waits_for, NotAdmitted):
            wait_for(self, came.waits_for, Waited(waited.rounds, came.has_turn), kwargs, self.agentic_conn_id)
        if came.pause is not None:
            came.pause.wait(self, context, kwargs, self.agentic_conn_id)
        if isinstance(came.waits_for, PersonNeeded):
            assert plan.policy is not None
            assert plan.policy.fallback is not None
            lasts = timedelta(seconds=plan.policy.fallback.person_seconds)
            ask_person(context, came.waits_for, self.task, "answered", lasts)
        if plan.policy is not None or came.degradation is not None:
            self._show_outcome(context, came.degradation)
        return came.result if self.mailbox is None else self._worked_off(came, report)

    def _worked_off(self, came: Came, report: MailboxReport) -> Any:
        assert self.mailbox is not None
        self.log.info("mailbox %s: %s", self.mailbox, report)
        if came.was_stopped:
            raise AirflowException("the task was told to stop; its messages come again")
        if report.open and (came.result is None or not self.gather):
            condition: Condition = "all" if self.gather else "message" if came.waiting else "work"
            self.defer(
                trigger=MailboxTrigger(self.mailbox, condition, self.agentic_conn_id),
                method_name="resume",
                kwargs={"before": asdict(report)},
            )
        return came.result if self.gather else asdict(report)

    def _show_outcome(self, context: Context, degradation: Degradation | None) -> None:
        if degradation is not None:
            self.log.warning("the result is degraded, from %s: %s", degradation.source, degradation.reason)
        context["ti"].xcom_push(OUTCOME_XCOM_KEY, outcome(degradation))

    def _defer_to_triggerer(self, context: Context, waited: Waited = NOT_WAITED) -> None:
        with runtime.airflow_failures():
            plan = self._plan(context)
        target = plan.definition.target
        self.defer(
            trigger=HttpAgentTrigger(
                plan.name,
                f"{target.__module__}:{target.__qualname__}",
                self.task,
                asdict(runtime.identity(context)),
                dict(plan.overlay),
                self.agentic_conn_id,
                None if plan.policy is None else plan.policy.model_dump(mode="json", exclude_unset=True),
                asdict(waited),
            ),
            method_name="finish",
        )
