"""The lifecycle contract that every agent keeps, as one assertion."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from airflow_agentic.agents.context import AgentContext, Facilities
from airflow_agentic.agents.durable import Durability
from airflow_agentic.agents.function import FunctionAgent
from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.agents.registry import AgentDefinition, as_definition
from airflow_agentic.agents.status import AgentStore, PerformanceMetrics
from airflow_agentic.errors import ConfigurationError, IllegalTransition, InvalidTask, LifecycleError
from airflow_agentic.stores.store import Store
from airflow_agentic.testing.fakes import memory_store
from airflow_agentic.testing.runs import Agent, MakeTransport, supply


def assert_agent_contract(
    agent: type[Agent] | AgentDefinition | Callable[..., Any],
    *,
    task: Any,
    config: Mapping[str, Any] | BaseModel | None = None,
    bad_tasks: Iterable[Any] = (),
    http: MakeTransport | None = None,
    services: Mapping[Any, Any] | None = None,
) -> None:
    """Put an agent through the lifecycle that all agents share.

    Args:
        agent: A class, a definition or a function.
        task: A task that it does without an error; it is done several times.
        config: Configuration that it needs.
        bad_tasks: Inputs that its input model must refuse.
        http: Makes the transport for a connection, a new one each time:
            ``lambda conn_id: FakeHttp(answer({"ok": True}))``.
        services: What it declares to need, as for ``run_agent``.

    Raises:
        AssertionError: Says which rule is broken, and how.
    """
    definition = as_definition(agent)
    with memory_store() as store, contextlib.ExitStack() as stack:
        supplied = supply(stack, definition, store, services or {})
        _check_all(_Subject(definition, task, config, http, supplied, store), bad_tasks)


def _check_all(subject: _Subject, bad_tasks: Iterable[Any]) -> None:
    _check_start(subject)
    _check_work(subject)
    for bad in bad_tasks:
        _check_bad_task(subject, bad)
    _check_failure(subject)
    _check_end(subject)
    _check_order(subject)
    _check_shared_numbers(subject)
    _check_configuration(subject)


@dataclass(frozen=True)
class _Subject:
    """The agent under test, and how to make and use it."""

    definition: AgentDefinition
    task: Any
    config: Mapping[str, Any] | BaseModel | None
    http: MakeTransport | None
    supplied: Mapping[str, Any]
    durable: Store

    def make(self, store: AgentStore | None = None, overrides: Mapping[str, Any] | None = None) -> Agent:
        """Make an instance; ``overrides`` are methods of a subclass made for it."""
        definition = self.definition
        with _works(f"making agent {definition.name!r} with name=, config= and store="):
            if overrides and definition.agent_class is None:
                kind = type("FunctionAgent", (FunctionAgent,), dict(overrides))
                made: Agent = kind(
                    definition.target, definition.name, self.config, store, definition.config_model
                )
                made.equip({} if "process" in overrides else self.supplied)
                return made
            if overrides and definition.agent_class is not None:
                kind = type(definition.target.__name__, (definition.agent_class,), dict(overrides))
                definition = replace(definition, target=kind)
            return definition.create(self.config, store, self.supplied)
        raise AssertionError  # not reached

    def run(self, agent: Agent) -> Any:
        ctx = self.context(agent)
        with ctx.work.working():
            result = agent.run(self.task, ctx)
            ctx.work.finish(None, ())
            return result

    def context(self, agent: Agent) -> AgentContext:
        """Return what a piece of work gets, with a durable run of its own."""
        store = self.durable
        runs = Durability(
            store.runs_with, store.bus, schema=agent.state_schema, key=f"{agent.name}/{uuid.uuid4()}"
        )
        return AgentContext(agent.name, http=self.http, facilities=Facilities(runs=runs))

    def work(self, agent: Agent) -> AgentState:
        """Do the good task and return the state after it."""
        with _works("run(task)"):
            self.run(agent)
        ends = (AgentState.READY, AgentState.DEGRADED)
        _check(agent.state in ends, f"after run(task) the state is {agent.state}, and not ready or degraded")
        return agent.state


class _ProvokedError(Exception):
    """What a broken ``process`` raises."""


def _check_start(subject: _Subject) -> None:
    one, other = subject.make(), subject.make()
    first = one.agent_id
    _check(first != other.agent_id, f"two instances have the same agent_id {first!r}")
    _check(first == one.agent_id, f"agent_id changes from call to call: {first!r}, {one.agent_id!r}")
    _check_state(one, AgentState.INITIALIZED, "when it is made")
    for when in ("after configure()", "after a second configure()"):
        with _works("configure()"):
            one.configure()
        _check_state(one, AgentState.READY, when)
    with _works("performance_metrics"):
        _check_numbers(one, PerformanceMetrics(), "before the first task")


def _check_work(subject: _Subject) -> None:
    agent = subject.make()
    with _works("run(task)"):
        result = subject.run(agent)
    with _works("validating the result against the output model"):
        valid = agent.contract.result(result)
    with _works("writing the result as JSON"):
        json.dumps(agent.contract.to_json(valid), allow_nan=False)
    degraded = int(agent.state is AgentState.DEGRADED)
    _check_numbers(agent, PerformanceMetrics(1, 1, 0, degraded), "after one task")
    degraded += int(subject.work(agent) is AgentState.DEGRADED)
    _check_numbers(agent, PerformanceMetrics(2, 2, 0, degraded), "after two tasks")
    _check_state(agent, agent.state, "after two tasks")


def _check_bad_task(subject: _Subject, bad: Any) -> None:
    agent = subject.make()
    with _refuses(InvalidTask, f"run() with the bad task {bad!r}"):
        agent.run(bad, subject.context(agent))
    _check_state(agent, AgentState.READY, f"after the bad task {bad!r}, which is no fault of the agent's,")
    _check_numbers(agent, PerformanceMetrics(1, 0, 1), "after one bad task")
    subject.work(agent)


def _check_failure(subject: _Subject) -> None:
    agent = subject.make(overrides={"process": _raise})
    with _refuses(_ProvokedError, "run() of an agent whose process raises"):
        subject.run(agent)
    _check_state(agent, AgentState.FAILED, "after process raised")
    _check_numbers(agent, PerformanceMetrics(1, 0, 1), "after process raised")
    with _refuses(LifecycleError, "run() of a failed agent"):
        subject.run(agent)
    with _works("reset() of a failed agent"):
        agent.reset()
    _check_state(agent, AgentState.READY, "after a failure and reset()")


def _check_order(subject: _Subject) -> None:
    """Hooks are called in order, and nobody runs an agent that is at work already."""
    seen: list[str] = []
    inner: list[BaseException] = []

    def hook(state: AgentState) -> Callable[..., None]:
        original = getattr(_base_of(subject.definition), f"on_{state}")

        def called(self: Agent, previous: AgentState, reason: str) -> None:
            seen.append(str(state))
            original(self, previous, reason)

        return called

    def process(self: Agent, task: Any, ctx: AgentContext) -> Any:
        try:
            self.run(task, ctx)
        except Exception as error:  # noqa: BLE001  # judged below
            inner.append(error)
        return _base_of(subject.definition).process(self, task, ctx)

    hooks = {f"on_{state}": hook(state) for state in AgentState if state is not AgentState.INITIALIZED}
    agent = subject.make(overrides={"process": process, **hooks})
    with _works("configure()"):
        agent.configure()
    end = subject.work(agent)
    refused = bool(inner) and isinstance(inner[0], IllegalTransition)
    _check(refused, f"run() of an agent at work must raise IllegalTransition, it gave {inner or 'a result'}")
    agent.shutdown()
    expected = ["ready", "processing", str(end), "shutdown"]
    _check(seen == expected, f"the hooks were called in the order {seen}, and not {expected}")


def _check_end(subject: _Subject) -> None:
    fresh, ready, worked = subject.make(), subject.make(), subject.make()
    ready.configure()
    subject.work(worked)
    for agent in (fresh, ready, worked):
        for call in ("shutdown()", "a second shutdown()"):
            with _works(f"{call} of an agent that was {agent.state}"):
                agent.shutdown()
            _check_state(agent, AgentState.SHUTDOWN, f"after {call}")
        with _refuses(LifecycleError, "run(task) after shutdown()"):
            subject.run(agent)
        with _refuses(LifecycleError, "configure() after shutdown()"):
            agent.configure()
        with _refuses(LifecycleError, "reset() after shutdown()"):
            agent.reset()
        _check_state(agent, AgentState.SHUTDOWN, "for good after shutdown()")


def _check_shared_numbers(subject: _Subject) -> None:
    with memory_store() as store:
        one, other = subject.make(store.agents), subject.make(store.agents)
        ends = [subject.work(one), subject.work(other)]
        expected = PerformanceMetrics(2, 2, 0, ends.count(AgentState.DEGRADED))
        for agent in (one, other):
            agent.heartbeat()  # writes what waits: numbers are not written after each task
        _check_numbers(one, expected, "after one task each of two instances with one store")
        _check_numbers(other, expected, "after one task each of two instances with one store")
        one.shutdown()
        other.shutdown()
        _check_numbers(subject.make(store.agents), expected, "for an instance made later")
        known = store.agents.get(subject.definition.name)
        _check(known is not None, f"the store does not know {subject.definition.name!r} after its work")


def _check_configuration(subject: _Subject) -> None:
    given = subject.config.model_dump() if isinstance(subject.config, BaseModel) else subject.config
    unknown = {**(given or {}), "no_such_key": 1}
    with _refuses(ConfigurationError, "making it with an unknown configuration key"):
        subject.definition.create(unknown, supplied=subject.supplied)
    agent = subject.make()
    before = agent.configuration
    with _refuses(ConfigurationError, "configure() with an unknown key"):
        agent.configure(no_such_key=1)
    _check(agent.configuration == before, "a configuration that was refused replaced the present one")
    _check_state(agent, AgentState.INITIALIZED, "after a configuration was refused")


def _base_of(definition: AgentDefinition) -> Any:
    return definition.target if isinstance(definition.target, type) else FunctionAgent


def _raise(*_: Any) -> Any:
    raise _ProvokedError("provoked by assert_agent_contract")


def _check_state(agent: Agent, expected: AgentState, when: str) -> None:
    _check(agent.state is expected, f"{when} the state is {agent.state}, and not {expected}")
    status = agent.get_status()
    _check(status.state is expected, f"{when} get_status() says {status.state}, and the state is {expected}")
    _check(status.name == agent.name, f"get_status() is of {status.name!r}, and not of {agent.name!r}")


def _check_numbers(agent: Agent, expected: PerformanceMetrics, when: str) -> None:
    for source, metrics in (
        ("performance_metrics", agent.performance_metrics),
        ("get_status().metrics", agent.get_status().metrics),
    ):
        for key in ("processed", "succeeded", "failed", "degraded"):
            have, want = getattr(metrics, key), getattr(expected, key)
            _check(have == want, f"{when} {source}.{key} is {have}, and not {want}")
        _check(
            bool(metrics.last_error) == bool(expected.failed), f"{when} {source}.last_error is not set right"
        )


def _check(true: bool, text: str) -> None:
    if not true:
        raise AssertionError(f"agent contract: {text}")


@contextlib.contextmanager
def _works(what: str) -> Iterator[None]:
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"agent contract: {what} raised {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _refuses(expected: type[Exception], what: str) -> Iterator[None]:
    try:
        yield
    except expected:
        return
    except Exception as error:
        raise AssertionError(
            f"agent contract: {what} must raise {expected.__name__}, it raised {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"agent contract: {what} must raise {expected.__name__}, it did not raise")
