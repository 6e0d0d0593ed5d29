"""What one piece of work needs: its plan, its agent, its runner; opened together, closed in reverse order."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.context import AgentContext, Facilities, RunIdentity
from airflow_agentic.agents.durable import Durability
from airflow_agentic.agents.guarded import GuardedAgent, Protection
from airflow_agentic.agents.runner import AgentRunner
from airflow_agentic.agents.transport import AsyncHttpTransport, HttpTransport
from airflow_agentic.messaging.message import Message
from airflow_agentic.runtime.configuration import project
from airflow_agentic.runtime.guarding import guards_of, subject
from airflow_agentic.runtime.ports import AirflowMetrics, AirflowReferences
from airflow_agentic.runtime.stores import open_store

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

    from airflow_agentic.agents.declared import AgentPlan
    from airflow_agentic.agents.models import OpenModel
    from airflow_agentic.agents.registry import AgentDefinition
    from airflow_agentic.config.injection.container import Scope, Services
    from airflow_agentic.config.policies import Policy
    from airflow_agentic.config.project import Project
    from airflow_agentic.messaging.bus import MessageBus
    from airflow_agentic.stores import Store


def plan(
    name: str, config: Mapping[str, Any] | None = None, definition: AgentDefinition | None = None
) -> AgentPlan:
    """Say what is to be made of an agent's name.

    Args:
        name: The agent.
        config: What an operator says about its configuration.
        definition: The implementation, if it was chosen in code.

    Raises:
        UnknownAgent: Nothing is declared or registered under the name.
        ProjectInvalid: The project configuration cannot be used.
    """
    return _planned(project(), name, config, definition, {})


def run_time_plan(
    context: Context,
    name: str,
    config: Mapping[str, Any] | None = None,
    definition: AgentDefinition | None = None,
) -> AgentPlan:
    """Do what :func:`plan` does, with what DAG params and ``dag_run.conf`` say on top.

    Raises:
        UnknownAgent: Nothing is declared or registered under the name.
        ProjectInvalid: The project configuration cannot be used, or they set what is not declared overridable.
    """
    from airflow_agentic.config.run_time import KEY

    asked = {
        "DAG params": dict(context["dag"].params).get(KEY),
        "dag_run.conf": (getattr(context["dag_run"], "conf", None) or {}).get(KEY),
    }
    given = {source: values for source, values in asked.items() if isinstance(values, Mapping)}
    return _planned(project(), name, config, definition, given)


class Workplace:
    """Where agents are built and run for one task. A context manager would be :func:`workplace`.

    Args:
        store: Where messages and numbers are.
        declared: The project.
        run: The task it is for.
        http: Makes a transport for an HTTP connection.
        async_http: The same for asyncio.
        models: Opens language models.
    """

    def __init__(
        self,
        store: Store,
        declared: Project,
        run: RunIdentity,
        http: Callable[[str], HttpTransport] | None = None,
        async_http: Callable[[str], AsyncHttpTransport] | None = None,
        models: OpenModel | None = None,
    ) -> None:
        self.store = store
        self._project = declared
        self._run = run
        self._http = http
        self._async_http = async_http
        self._models = models
        self._closing = contextlib.ExitStack()
        self._scope: Scope | None = None
        self._own: Services | None = None
        self._taken: Services | None = None

    def agent(self, agent_plan: AgentPlan) -> BaseAgent[Any, Any]:
        """Build an agent: its references are resolved, and what it needs is built.

        Raises:
            ConfigurationError: Its configuration does not fit, a reference leads nowhere, or nothing provides what
                it needs.
        """
        from airflow_agentic.config.references import Resolved

        definition = agent_plan.definition
        supplied: Mapping[str, Any] = {}
        if definition.needs:
            supplied = self._services().supply(
                definition.needs, agent_plan.uses, f"agent {agent_plan.name!r}"
            )
        return definition.create(
            Resolved(agent_plan.config, AirflowReferences()), self.store.agents, supplied
        )

    def context(self, agent_plan: AgentPlan, messages: tuple[Message, ...] = ()) -> AgentContext:
        """Make the context of one piece of work."""
        return AgentContext(
            agent_plan.name,
            run=self._run,
            messages=messages,
            http=self._http,
            async_http=self._async_http,
            sends_to=agent_plan.sends_to,
            facilities=Facilities(
                guards_of(self.store, self._run, agent_plan.name),
                self._models,
                durability(self.store, agent_plan.persistence, agent_plan.definition, agent_plan.run_key),
            ),
        )

    def runner(
        self,
        agent: BaseAgent[Any, Any],
        agent_plan: AgentPlan,
        lease: timedelta | None = None,
        *,
        inbox: bool = False,
        mailbox: bool = False,
    ) -> AgentRunner:
        """Make the runner of an agent, guarded as its policy says.

        Args:
            agent: Which.
            agent_plan: What it was made of.
            lease: How long a message belongs to it at a time; default: its policy's, else the bus's.
            inbox: Handle no message again that an agent of this name handled.
            mailbox: Whether it handles messages: what failed comes back to the mailbox, and is not tried in its place.
        """
        policy = agent_plan.policy
        if policy is not None and mailbox:
            policy = policy.model_copy(update={"retry": None})
        return AgentRunner(
            agent,
            _guarded(self.store.bus, agent_plan.policy),
            lambda messages: self.context(agent_plan, messages),
            lease,
            inbox=inbox,
            protection=None
            if policy is None
            else self.protection(agent_plan, policy, has_people=not mailbox),
            classifier=self.store.guarding.classifier,
            faults=self.store.faults,
        )

    def protection(self, agent_plan: AgentPlan, policy: Policy, *, has_people: bool = False) -> Protection:
        """Return what guards an agent's work.

        Args:
            agent_plan: What the agent was made of.
            policy: How.
            has_people: Whether a person can be asked.

        Raises:
            ConfigurationError: The policy names a budget that is not declared.
        """
        key = f"agent:{agent_plan.name}"
        fallback = policy.fallback
        answers = None
        if fallback is not None and fallback.cached_seconds is not None:
            answers = self.store.guarding.answers(key, fallback.cached_seconds)
        return Protection(
            self.store.guard(policy, key, subject(self._run, agent_plan.name)),
            fallback,
            policy.when_refused == "fallback",
            answers,
            {name: functools.partial(self._stand_in, name) for name in fallback.agents} if fallback else None,
            has_people,
        )

    def close(self) -> None:
        """Close what was built, last made first."""
        self._closing.close()
        if self._scope is not None:
            self._scope.close()
        if self._own is not None:
            self._own.close()
        if self._taken is not None:
            _kept.give_back(self._taken)
            self._taken = None

    def _stand_in(self, name: str) -> GuardedAgent:
        """Make an agent that others fall back to, behind its own policy; it is shut down with this place."""
        agent_plan = _planned(self._project, name, None, None, {})
        agent = self.agent(agent_plan)
        self._closing.callback(agent.shutdown, "the task ended")
        policy = agent_plan.policy
        protection = None if policy is None else self.protection(agent_plan, policy)
        if protection is not None:
            # Who stands in does not wait: the next one may be there.
            protection = replace(protection, falls_back_when_refused=True)
        return GuardedAgent(
            agent, lambda messages: self.context(agent_plan, messages), protection, self.store.faults
        )

    def _services(self) -> Scope:
        if self._scope is None:
            from airflow_agentic.agents.status import AgentStore
            from airflow_agentic.config.flags import Flags
            from airflow_agentic.config.project import Project
            from airflow_agentic.config.references import SecretResolver
            from airflow_agentic.messaging.bus import MessageBus
            from airflow_agentic.observability import Metrics

            values = {
                MessageBus: self.store.bus,
                AgentStore: self.store.agents,
                Project: self._project,
                Flags: Flags(self._project.flags),
                Metrics: AirflowMetrics(),
                SecretResolver: AirflowReferences(),
            }
            services = self._taken = _kept.take(self._project)
            if _overrides:
                services = self._own = services.with_overrides(_overrides)
            self._scope = services.open(values)
        return self._scope


@contextlib.contextmanager
def overridden(services: Mapping[Any, Any]) -> Iterator[None]:
    """Let workplaces provide these things instead, in this process; see ``airflow_agentic.testing``.

    Args:
        services: Instances by type, or by name of a service or agent.
    """
    before = dict(_overrides)
    _overrides.update(services)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


@contextlib.contextmanager
def workplace(
    conn_id: str | None,
    run: RunIdentity,
    http: Callable[[str], HttpTransport] | None = None,
    async_http: Callable[[str], AsyncHttpTransport] | None = None,
    models: OpenModel | None = None,
) -> Iterator[Workplace]:
    """Open a store and a place to work on it; both are closed at the end.

    Raises:
        ConfigurationError: The connection, or the project configuration, cannot be used.
        StoreError: The store cannot be opened.
    """
    with (
        open_store(conn_id, run.owner) as store,
        contextlib.closing(Workplace(store, project(), run, http, async_http, models)) as place,
    ):
        yield place


def durability(
    store: Store,
    persistence: str | None = None,
    definition: AgentDefinition | None = None,
    key: str | None = None,
) -> Durability:
    """Return how the durable runs of an agent are kept.

    Args:
        store: Where.
        persistence: How; default ``hybrid``.
        definition: The agent; its class may say what its events mean.
        key: Of the run; default: made of the task, or of the messages.
    """
    kind = definition.agent_class if definition else None
    schema = kind.state_schema if kind else BaseAgent.state_schema
    return Durability(store.runs_with, store.bus, persistence or "hybrid", schema, key)


def identity(context: Context) -> RunIdentity:
    """Return who is working, from a task's context."""
    ti = context["ti"]
    return RunIdentity(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        # Airflow raises max_tries when a task is cleared, and leaves it alone when it retries.
        generation=getattr(ti, "max_tries", 0) or 0,
        try_number=ti.try_number,
        traceparent=_traceparent(ti),
        team=_team(context),
    )


def _team(context: Context) -> str:
    """Return the team that a DAG belongs to: Airflow's, where there are teams, else the owner of the task."""
    ti = context["ti"]
    team = getattr(ti, "team_name", None) or getattr(getattr(ti, "task", None), "owner", None)
    return str(team or "")


def _traceparent(ti: Any) -> str | None:
    """Return the trace of a task: that of the span it runs in, else that which Airflow gave it; none is made."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator, carrier = TraceContextTextMapPropagator(), dict[str, str]()
    propagator.inject(carrier)
    if not carrier:
        propagator.inject(carrier, propagator.extract(getattr(ti, "context_carrier", None) or {}))
    return carrier.get("traceparent")


def _planned(
    declared: Project,
    name: str,
    config: Mapping[str, Any] | None,
    definition: AgentDefinition | None,
    asked: Mapping[str, Mapping[str, Any]],
) -> AgentPlan:
    from airflow_agentic.agents import declared as agents
    from airflow_agentic.config.run_time import overlay

    return agents.plan(declared, name, overlay(declared, name, config, asked), definition)


class _Kept:
    """The services of the present project. Those of an earlier one end when nobody works with them any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._project: Project | None = None
        self._services: Services | None = None
        self._users: Counter[int] = Counter()

    def take(self, declared: Project) -> Services:
        """Return the services of a project; whoever takes them gives them back."""
        from airflow_agentic.agents.declared import implementation
        from airflow_agentic.agents.services import services_of

        with self._lock:
            if self._services is None or self._project is not declared:
                made = services_of(declared, lambda name: implementation(declared, name), AirflowReferences())
                earlier, self._services, self._project = self._services, made, declared
                if earlier is not None and not self._users[id(earlier)]:
                    earlier.close()
            self._users[id(self._services)] += 1
            return self._services

    def give_back(self, services: Services) -> None:
        """Say that one user less works with them."""
        with self._lock:
            self._users[id(services)] -= 1
            over = not self._users[id(services)] and services is not self._services
            if not self._users[id(services)]:
                del self._users[id(services)]
        if over:
            services.close()


_kept = _Kept()
_overrides: dict[Any, Any] = {}


def _guarded(bus: MessageBus, policy: Policy | None) -> MessageBus:
    if policy is None:
        return bus
    from airflow_agentic.config.policies import Retry

    retry = policy.retry or Retry()
    said = {"lease": policy.lease_seconds, "retry_base": retry.base_seconds, "retry_max": retry.max_seconds}
    return bus.with_options(
        **{key: timedelta(seconds=value) for key, value in said.items() if value is not None}
    )
