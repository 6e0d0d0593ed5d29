"""Several agents in one task: each turn is a durable step, so that a task that was killed goes on at its turn."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from airflow_agentic import runtime
from airflow_agentic.agents.durable import OFF, DurableWork, RunOver
from airflow_agentic.agents.guarded import GuardedAgent
from airflow_agentic.agents.handling import left_over
from airflow_agentic.agents.leases import LeaseRenewer
from airflow_agentic.agents.registry import AgentDefinition, registry
from airflow_agentic.config.model import Persistence
from airflow_agentic.errors import ConfigurationError, NotAdmitted
from airflow_agentic.hooks.agents import HookTransport
from airflow_agentic.hooks.models import open_model
from airflow_agentic.messaging.message import Kind
from airflow_agentic.operators.parsing import is_literal, registered_name
from airflow_agentic.operators.store import StoreOperator
from airflow_agentic.operators.waiting import NOT_WAITED, Waited, wait_for
from airflow_agentic.persistence.steps import current_step
from airflow_agentic.resilience.deadlines import Deadline, deadline
from airflow_agentic.triggers.failures import raise_failure
from airflow_agentic.workflows.members import Agent, agent_arguments
from airflow_agentic.workflows.states import plain
from airflow_agentic.workflows.talks import Talk, Turn

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_agentic.agents.base import BaseAgent
    from airflow_agentic.agents.context import RunIdentity
    from airflow_agentic.agents.declared import AgentPlan
    from airflow_agentic.config.policies import Policy
    from airflow_agentic.persistence.run import Run

_SAID = frozenset({"agent", "config", "policy"})


@dataclass(frozen=True)
class Speaker:
    """An agent that takes turns.

    Attributes:
        name: What the talk calls it.
        is_named: Whether it was given by name, so that the project file says what it is made of.
        config: Its configuration, over that of the project file.
        policy: How it is guarded; ``None`` for its own policy.
    """

    name: str
    is_named: bool = True
    config: Mapping[str, Any] | None = None
    policy: str | Policy | None = None

    @classmethod
    def of(cls, member: Agent) -> Speaker:
        """Return the speaker that a member is, after a look whether it can be one.

        Raises:
            ConfigurationError: It is no agent, or something is said of it that cannot be said here.
            UnknownAgent: There is no such agent.
        """
        given = agent_arguments(member)
        if unknown := sorted(set(given) - _SAID):
            raise ConfigurationError(
                f"of agent {given['agent']!r} only {', '.join(sorted(_SAID))} can be said here, not {', '.join(unknown)}: "
                "all of them work in one task"
            )
        is_named = isinstance(given["agent"], str)
        made = cls(registered_name(given["agent"]), is_named, given.get("config"), given.get("policy"))
        if not isinstance(made.name, str) or not is_literal(made.name):
            raise ConfigurationError(f"{given['agent']!r} cannot take turns: give the name of an agent")
        if made.policy is not None:
            runtime.policy(made.policy)
        plan = runtime.plan(made.name, made.config if is_literal(made.config) else None, made.chosen())
        plan.definition.check()
        if is_literal(made.config):
            plan.definition.check_config(plan.config)
        return made

    def chosen(self) -> AgentDefinition | None:
        """Return the implementation that was chosen in the DAG; ``None`` if it was named only."""
        return None if self.is_named else registry.resolve(self.name)


class TalkOperator(StoreOperator):
    """Lets agents take turns in one task.

    Each turn is a durable step of a run that is named after the task: what an agent said once is not asked again, whatever
    becomes of the task. What it sends leaves with its answer. A task that is retried, or cleared after it failed, goes on
    after the last turn; one that is cleared after it succeeded begins anew. While a guard refuses a turn, the task waits
    without a slot. An agent may have durable steps of its own in its turn, and cannot wait there.

    Args:
        talk: Who is asked what.
        speakers: The agents.
        task: What it is about: any JSON.
        policy: How the agents are guarded, in place of their own policies; a map may say another one.
        persistence: How the run of the turns is kept: ``hybrid`` (the default), ``events``, ``snapshot`` or ``checkpoint``.
        kwargs: ``agentic_conn_id``, and as for any operator.
    """

    template_fields: Collection[str] = ("task", "agentic_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"task": "json"}
    ui_color = "#e6f4ea"
    runs_agents: ClassVar[bool] = True  # the cluster policy looks for it

    def __init__(
        self,
        *,
        talk: Talk,
        speakers: Collection[Speaker],
        task: Any = None,
        policy: str | Policy | None = None,
        persistence: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.persistence = persistence
        self._check_persistence()
        self.talk = talk
        self.speakers = {
            each.name: replace(each, policy=each.policy if each.policy is not None else policy)
            for each in speakers
        }
        self.task = task
        self._deadline: Deadline | None = None
        self._bench: Bench | None = None

    @property
    def several_agents(self) -> tuple[str, ...]:
        """All who may be asked; for the rules of the project file."""
        return self.talk.agents

    def execute(self, context: Context) -> Any:
        """Let them talk; return the result.

        Raises:
            AirflowFailException: An error that a retry cannot help.
            TaskDeferred: Waiting for a guard.
        """
        return self._talk(context, NOT_WAITED)

    def resume(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after a guard refused."""
        raise_failure(event)
        return self._talk(context, Waited.of(event))

    def on_kill(self) -> None:
        """Tell the work to stop. The turn at hand is asked again, by the next try."""
        if self._deadline is not None:
            self._deadline.cancel("the task was killed")
        if self._bench is not None:
            self._bench.shutdown("the task was killed")

    def _check_persistence(self) -> None:
        known = [each for each in get_args(Persistence) if each != OFF]
        if self.persistence is not None and self.persistence not in known:
            raise ConfigurationError(
                f"task {self.task_id!r}: its turns are durable steps, and cannot be kept as {self.persistence!r}; there are: "
                f"{', '.join(known)}"
            )

    def _talk(self, context: Context, waited: Waited) -> Any:
        who = runtime.identity(context)
        self.show_trace(context, who.correlation_id)
        try:
            with (
                runtime.airflow_failures(),
                runtime.workplace(self.agentic_conn_id, who, HookTransport, models=open_model) as place,
                deadline() as self._deadline,
                contextlib.closing(Bench(place, context, who, self.speakers)) as self._bench,
            ):
                work = DurableWork(self.talk.name, runtime.durability(place.store, self.persistence), who)
                with work.working():
                    result = self._turns(work.run, self._bench)
                work.finish(result, ())
                return result
        except RunOver as over:
            self.log.info("it came to its end before")
            return over.result
        except NotAdmitted as refusal:
            if refusal.final:
                raise
            wait_for(self, refusal, waited, {}, self.agentic_conn_id)

    def _turns(self, run: Run, bench: Bench) -> Any:
        self.log.info("the turns are steps of the run %r", run.key)
        run.expect(self.talk.most_turns)
        asking = self.talk.turns(plain(self.task))
        answer = None
        while True:
            try:
                turn = asking.send(answer)
            except StopIteration as end:
                return end.value
            ask = functools.partial(bench.ask, turn)
            # What was said stays said, also if the code of an agent or what it knew is another one now.
            answer = run.step(turn.name, ask, turn.agent, turn.task, on_change="keep")


class Bench:
    """The agents of a talk, built when they are first asked.

    Args:
        place: Where they are built.
        context: Airflow's.
        who: The task.
        speakers: By name.
    """

    def __init__(
        self, place: runtime.Workplace, context: Context, who: RunIdentity, speakers: Mapping[str, Speaker]
    ) -> None:
        self._place = place
        self._context = context
        self._who = who
        self._speakers = speakers
        self._built: dict[str, tuple[AgentPlan, BaseAgent[Any, Any]]] = {}

    def ask(self, turn: Turn, name: str, task: Any) -> Any:
        """Ask an agent; what it sends goes with the step that this is."""
        plan, agent = self._agent(name)
        store = self._place.store
        # A turn is a piece of work by itself: the same words in two turns are two messages.
        who = replace(self._who, task_id=f"{self._who.task_id}/{turn.name}")
        spot = runtime.Workplace(store, runtime.project(), who, HookTransport, models=open_model)
        with contextlib.closing(spot), LeaseRenewer(store.bus, (), store.bus.options.lease, agent.heartbeat):
            policy = plan.policy
            protection = None if policy is None else spot.protection(plan, policy)
            guarded = GuardedAgent(agent, functools.partial(spot.context, plan), protection, store.faults)
            # Only an earlier try can have come to its end.
            known = guarded.known() if who.try_number > 1 else None
            done = known or guarded.do(task)
            step = current_step()
            assert step is not None
            left = left_over(done.ctx, done.result, done.degradation)
        step.outbox.extend(each for each in left if each.kind is not Kind.HEARTBEAT)
        store.bus.send_many([each for each in left if each.kind is Kind.HEARTBEAT])
        return done.result

    def close(self) -> None:
        """Shut the agents down."""
        self.shutdown("the task ended")

    def shutdown(self, reason: str) -> None:
        """Shut the agents down, and say why."""
        for _, agent in self._built.values():
            agent.shutdown(reason)

    def _agent(self, name: str) -> tuple[AgentPlan, BaseAgent[Any, Any]]:
        if name not in self._built:
            speaker = self._speakers[name]
            plan = runtime.run_time_plan(self._context, name, speaker.config, speaker.chosen())
            if speaker.policy is not None:
                plan = replace(plan, policy=runtime.policy(speaker.policy))
            self._built[name] = plan, self._place.agent(plan)
        return self._built[name]
