"""What agents declare to need, and how a test gives it to them."""

from __future__ import annotations

from typing import Annotated, Protocol

import pytest

from airflow_agentic.agents import AgentContext, AgentDefinition, BaseAgent
from airflow_agentic.agents.registry import as_definition
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.config.flags import Flags
from airflow_agentic.config.injection.container import Named
from airflow_agentic.errors import ConfigurationError, UnknownService
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.observability import Metrics, NoMetrics
from airflow_agentic.testing import memory_store, run_agent


class Index:
    def __init__(self, name="index"):
        self.name = name


class FastIndex(Index): ...


class Port(Protocol):
    def find(self) -> str: ...


class Found:
    def find(self):
        return "found"


def after_context(task: int, ctx: AgentContext, index: Index) -> str:
    return f"{task} {ctx.agent} {index.name}"


def without_context(task: int, index: Index) -> str:
    return f"{task} {index.name}"


def by_keyword(task: int, *, index: Index) -> str:
    return f"{task} {index.name}"


def by_keyword_after_context(task: int, ctx: AgentContext, *, index: Index) -> str:
    return f"{task} {ctx.agent} {index.name}"


def untyped_context(task: int, context, index: Index) -> str:
    return f"{task} {context.agent} {index.name}"


def context_by_type(task: int, c: AgentContext, index: Index) -> str:
    return f"{task} {c.agent} {index.name}"


class InProcess(BaseAgent[int, str]):
    def process(self, task, ctx, index: Index):
        return f"{task} {index.name}"


class InConstructor(BaseAgent[int, str]):
    def __init__(self, index: Index, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    def process(self, task, ctx):
        return f"{task} {self.index.name}"


class Inherited(InConstructor):
    def __init__(self, *, prefix: str = "+", **kwargs):
        super().__init__(**kwargs)
        self.prefix = prefix

    def process(self, task, ctx, port: Port):
        return f"{self.prefix}{task} {self.index.name} {port.find()}"


EVERY = [
    after_context,
    without_context,
    by_keyword,
    by_keyword_after_context,
    untyped_context,
    context_by_type,
    InProcess,
    InConstructor,
]


class TestDeclared:
    @pytest.mark.parametrize("target", EVERY)
    def test_what_comes_after_task_and_context_is_needed_by_type(self, target):
        (need,) = as_definition(target).needs
        assert (need.parameter, need.type, need.optional) == ("index", Index, False)

    def test_a_subclass_needs_what_its_base_needs_and_what_its_work_needs(self):
        needs = as_definition(Inherited).needs
        assert {need.parameter: need.optional for need in needs} == {
            "port": False,
            "prefix": True,
            "index": False,
        }

    def test_what_both_constructor_and_work_need_is_needed_once(self):
        class Twice(InConstructor):
            def process(self, task, ctx, index: Index):
                return f"{self.index is index}"

        assert [need.parameter for need in as_definition(Twice).needs] == ["index"]
        assert run_agent(Twice, 1, services={Index: Index()}).result == "True"

    @pytest.mark.parametrize("function", [lambda task: task, lambda task, ctx: task])
    def test_an_agent_of_task_and_context_needs_nothing(self, function):
        assert AgentDefinition("a", function).needs == ()

    def test_an_agent_that_is_made_without_what_it_needs_is_refused_with_the_way_out(self):
        with pytest.raises(ConfigurationError) as caught:
            as_definition(after_context).create()
        text = str(caught.value)
        assert text.startswith("agent 'after-context' needs index: Index, and was made without it.")
        assert "run_agent(..., services={...})" in text

    def test_what_may_be_none_is_none_if_nobody_gives_it(self):
        def maybe(task: int, ctx: AgentContext, index: Index | None) -> bool:
            return index is None

        assert run_agent(maybe, 1).result is True
        assert run_agent(maybe, 1, services={Index: Index()}).result is False
        made = as_definition(maybe).create()
        assert made.run(1, AgentContext("maybe")) is True

    def test_what_has_a_default_keeps_it_if_nobody_gives_it(self):
        def default(task: int, ctx: AgentContext, index: Index = Index("mine")) -> str:  # noqa: B008
            return index.name

        assert run_agent(default, 1).result == "mine"
        assert run_agent(default, 1, services={Index: Index("yours")}).result == "yours"


class TestRunAgent:
    @pytest.mark.parametrize("target", EVERY)
    @pytest.mark.parametrize("key", [Index, "index"], ids=["type", "parameter"])
    def test_things_are_given_by_type_or_by_parameter(self, target, key):
        found = run_agent(target, 7, services={key: Index("given")}).result
        assert found.startswith("7 ")
        assert found.endswith("given")

    def test_the_parameter_beats_the_type(self):
        services = {Index: Index("by-type"), "index": Index("by-name")}
        assert run_agent(InProcess, 1, services=services).result == "1 by-name"

    def test_a_subclass_or_something_of_a_protocol_fits(self):
        things = {FastIndex: FastIndex("fast"), Port: Found()}
        assert run_agent(Inherited, 1, services=things).result == "+1 fast found"

    def test_the_name_that_the_code_says_is_a_name_of_a_service(self):
        def chooses(task: int, ctx: AgentContext, index: Annotated[Index, Named("slow")]) -> str:
            return index.name

        services = {"slow": Index("slow"), "fast": Index("fast")}
        assert run_agent(chooses, 1, services=services).result == "slow"

    def test_what_the_provider_brings_itself_is_there(self):
        def brought(task: int, bus: MessageBus, agents: AgentStore, flags: Flags, metrics: Metrics) -> str:
            seen.extend([bus, agents, dict(flags), type(metrics)])
            return "ok"

        seen = []
        with memory_store() as store:
            run_agent(brought, 1, store=store)
            assert seen == [store.bus, store.agents, {}, NoMetrics]

    def test_what_the_provider_brings_can_be_replaced(self):
        def flagged(task: int, flags: Flags) -> bool:
            return flags.enabled("fast")

        assert run_agent(flagged, 1, services={Flags: Flags({"fast": True})}).result is True

    @pytest.mark.parametrize("target", [after_context, InProcess, InConstructor])
    def test_what_is_missing_is_named_with_its_parameter_and_type(self, target):
        with pytest.raises(UnknownService, match=r"^agent '[\w-]+' needs index: Index, and nothing provides"):
            run_agent(target, 1)

    def test_what_is_given_is_not_closed(self):
        class Closing(Index):
            closed = False

            def close(self):
                self.closed = True

        thing = Closing()
        run_agent(InProcess, 1, services={Index: thing})
        assert thing.closed is False

    def test_an_agent_without_needs_takes_no_notice_of_services(self):
        assert run_agent(lambda task: task + 1, 1, services={Index: Index()}).result == 2


class TestRefused:
    def test_a_parameter_that_collects_is_no_need(self):
        def greedy(task: int, ctx: AgentContext, *things: Index) -> int:
            return task

        with pytest.raises(ConfigurationError, match="'greedy' cannot be an agent"):
            as_definition(greedy).check()

    def test_a_need_without_a_type_is_none(self):
        def untyped(task: int, ctx: AgentContext, index) -> int:
            return task

        with pytest.raises(ConfigurationError, match=r"'untyped' cannot be an agent.*each with its type"):
            as_definition(untyped).check()

    def test_a_function_that_takes_nothing_is_refused_wherever_it_is_looked_at(self):
        def nothing() -> int:
            return 1

        for look in (as_definition(nothing).check, as_definition(nothing).contract):
            with pytest.raises(ConfigurationError, match="'nothing' cannot be an agent"):
                look()

    def test_a_type_that_nothing_can_be_held_against_is_told_of_the_agent(self):
        class Opaque(BaseAgent[Index, int]):
            def process(self, task, ctx):
                return 1

        with pytest.raises(
            ConfigurationError, match=r"output type of agent 'Opaque' cannot be used: .*Index"
        ):
            as_definition(Opaque).check()
