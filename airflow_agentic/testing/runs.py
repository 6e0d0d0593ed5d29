"""Runs an agent without Airflow."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.context import AgentContext, Facilities, RunIdentity
from airflow_agentic.agents.durable import Durability
from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.agents.models import OpenModel
from airflow_agentic.agents.registry import AgentDefinition, as_definition
from airflow_agentic.agents.runner import AgentRunner
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.agents.transport import HttpTransport
from airflow_agentic.config.flags import Flags
from airflow_agentic.config.injection.container import Services
from airflow_agentic.config.policies import Policy
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.message import Message
from airflow_agentic.observability import Metrics, NoMetrics
from airflow_agentic.stores.store import Store
from airflow_agentic.testing.fakes import memory_store

Agent = BaseAgent[Any, Any]
MakeTransport = Callable[[str], HttpTransport]


@dataclass(frozen=True)
class AgentRun:
    """What came of one task.

    Attributes:
        result: The result as plain JSON, as it goes into XCom.
        outbox: The messages that the agent sent, in order.
        state: The agent's state afterwards: ``ready`` or ``degraded``.
    """

    result: Any
    outbox: tuple[Message, ...]
    state: AgentState


def run_agent(  # noqa: PLR0913  # each takes the place of something that the operator brings
    agent: Agent | type[Agent] | AgentDefinition | Callable[..., Any],
    task: Any,
    *,
    config: Mapping[str, Any] | BaseModel | None = None,
    store: Store | None = None,
    messages: Sequence[Message] = (),
    http: MakeTransport | None = None,
    run: RunIdentity | None = None,
    services: Mapping[Any, Any] | None = None,
    models: OpenModel | None = None,
    key: str | None = None,
) -> AgentRun:
    """Let an agent do one task, the way an operator does.

    Args:
        agent: An instance, a class, a definition or a function. Anything but an instance is shut down after it.
        task: Raw input, as JSON would give it.
        config: Configuration of the agent.
        store: Where its messages and numbers go; by default a store in memory that is thrown away.
        messages: What the agent finds in ``ctx.messages``.
        http: Makes the transport for a connection: a :class:`FakeHttp`.
        run: The task of a DAG run that it works in; makes the ids of its messages repeatable.
        services: What it declares to need: instances by type, or by the name of a parameter or a service.
        models: Opens the language model of a connection.
        key: Of its durable run; default: made of ``run`` or ``messages``, else ``AGENT/test``. With a ``store`` that is
            kept, a second call goes on where the first one ended: that is how a crash and a resume are tested. A run that
            is finished returns its result.

    Raises:
        RunSuspended: The durable run waits; call this again, with the same ``store``.
        Exception: Whatever the agent raises, as :meth:`AgentRunner.run_task` does.
    """
    with contextlib.ExitStack() as stack:
        where = store or stack.enter_context(memory_store())
        if isinstance(agent, BaseAgent):
            worker: Agent = agent
            if config is not None:
                worker.configure(config)
        else:
            definition = as_definition(agent)
            supplied = supply(stack, definition, where, services or {})
            worker = definition.create(config, where.agents, supplied)
            stack.callback(worker.shutdown)
        named = key if key or run or messages else f"{worker.name}/test"
        kept = Durability(where.runs_with, where.bus, schema=worker.state_schema, key=named)
        facilities = Facilities(lambda policy, key: where.guard(_value(policy), key), models, kept)
        made: list[AgentContext] = []

        def make_context(_: object) -> AgentContext:
            made.append(
                AgentContext(worker.name, run=run, messages=tuple(messages), http=http, facilities=facilities)
            )
            return made[-1]

        result = AgentRunner(worker, where.bus, make_context, faults=where.faults).run_task(task)
        return AgentRun(result, tuple(made[-1].outbox), worker.state)


def _value(policy: Policy | str) -> Policy:
    """Return a policy; names are of a project file, and here is none: whatever guards, the call goes."""
    return Policy() if isinstance(policy, str) else policy


@contextlib.contextmanager
def override_services(services: Mapping[Any, Any]) -> Iterator[None]:
    """Let every agent that a task builds meanwhile get these things instead: for tests with ``dag.test()``.

    Args:
        services: Instances by type, or by name of a service or agent of the project file. They win over everything,
            and are not closed.
    """
    from airflow_agentic.runtime.work import overridden

    with overridden(services):
        yield


def supply(
    stack: contextlib.ExitStack, definition: AgentDefinition, store: Store, services: Mapping[Any, Any]
) -> Mapping[str, Any]:
    """Return what an agent declares to need, by parameter.

    Args:
        stack: Closes what was built.
        definition: The agent.
        store: Brings the message bus and the store of agents.
        services: Instances by type, or by the name of a parameter.

    Raises:
        UnknownService: Something that it needs is not there.
    """
    if not definition.needs:
        return {}
    values = {MessageBus: store.bus, AgentStore: store.agents, Flags: Flags(), Metrics: NoMetrics()}
    by_name = {need.parameter: need.parameter for need in definition.needs if need.parameter in services}
    scope = Services((), values).with_overrides(services).open(values)
    return stack.enter_context(scope).supply(definition.needs, by_name, f"agent {definition.name!r}")
