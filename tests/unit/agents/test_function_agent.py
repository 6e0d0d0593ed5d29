from __future__ import annotations

import functools
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from airflow_agentic.agents import AgentContext, AgentState, FunctionAgent
from airflow_agentic.errors import ConfigurationError, InvalidResult, InvalidTask


class Record(BaseModel):
    name: str


class Verdict(BaseModel):
    good: bool


def judge(record: Record) -> Verdict:
    """Judges a record.

    At length.
    """
    return Verdict(good=record.name != "bad")


def run(agent, task):
    return agent.run(task, AgentContext(agent.name))


class TestSignature:
    def test_annotations_are_the_types(self):
        agent = FunctionAgent(judge)
        assert run(agent, {"name": "left-pad"}) == Verdict(good=True)
        assert agent.contract.input_schema() == Record.model_json_schema()
        with pytest.raises(InvalidTask, match="name: Field required"):
            run(agent, {})

    def test_constraints_in_annotations_count(self):
        def half(task: Annotated[int, Field(ge=0)]) -> float:
            return task / 2

        with pytest.raises(InvalidTask):
            run(FunctionAgent(half), -1)

    def test_a_function_without_annotations_takes_any_json(self):
        assert run(FunctionAgent(lambda task: [task]), {"a": None}) == [{"a": None}]

    def test_a_result_of_none_is_a_type_too(self):
        def nothing(task: int) -> None:
            return task or None

        agent = FunctionAgent(nothing)
        assert run(agent, 0) is None
        with pytest.raises(InvalidResult):
            run(agent, 1)

    def test_a_second_argument_is_the_context(self):
        seen = []
        run(FunctionAgent(lambda task, ctx: seen.append(ctx)), 1)
        assert isinstance(seen[0], AgentContext)

    @pytest.mark.parametrize(
        "function",
        [
            lambda: None,
            lambda a, b, c: None,
            lambda *tasks: None,
            lambda **tasks: None,
            lambda task, *, ctx: None,
            print,
        ],
        ids=["none", "three", "stars", "names", "keyword", "builtin"],
    )
    def test_another_number_of_arguments_is_refused_when_the_agent_is_made(self, function):
        with pytest.raises(
            ConfigurationError, match=r"must take \(task\), \(task, ctx\) and after.*; it takes \("
        ):
            FunctionAgent(function)

    def test_an_async_function_is_refused_when_the_agent_is_made(self):
        async def later(task):
            return task

        with pytest.raises(ConfigurationError, match="'later' cannot be an agent: its function is async"):
            FunctionAgent(later)


class TestTypesFromElsewhere:
    def test_a_type_of_the_enclosing_function_is_found_if_the_body_uses_it(self):
        class Local(BaseModel):
            number: int

        def double(task: Local) -> Local:
            return Local(number=2 * task.number)

        assert run(FunctionAgent(double), {"number": 4}).number == 8

    def test_a_type_that_cannot_be_found_is_named_with_the_way_out(self):
        def lost(task: Nowhere) -> int:  # noqa: F821  # that is the point
            return 1

        with pytest.raises(ConfigurationError, match=r"lost' cannot be found.*'Nowhere'.*at module level"):
            FunctionAgent(lost)

    def test_a_local_function_may_call_itself(self):
        def factorial(task: int) -> int:
            return task * factorial(task - 1) if task else 1

        assert run(FunctionAgent(factorial), 5) == 120

    def test_an_agent_may_use_what_is_defined_after_it(self):
        agents = [FunctionAgent(lambda task: task + later)]
        later = 1
        assert run(agents[0], 1) == 2


class TestOtherCallables:
    def test_an_object_that_can_be_called(self):
        class Adder:
            number: str = "not the type of the task"

            def __call__(self, task: int) -> int:
                return task + 1

        agent = FunctionAgent(Adder(), "adder")
        assert run(agent, 1) == 2
        assert agent.contract.input_schema() == {"type": "integer"}

    def test_a_method(self):
        class Tools:
            def half(self, task: int) -> float:
                return task / 2

        assert run(FunctionAgent(Tools().half), 3) == 1.5

    def test_a_function_whose_first_argument_is_given_already(self):
        def power(base: int, task: float) -> float:
            return base**task

        agent = FunctionAgent(functools.partial(power, 2), "power")
        assert run(agent, 3) == 8
        assert agent.contract.input_schema() == {"type": "number"}


class TestName:
    def test_the_function_gives_the_name_with_dashes(self):
        def audit_licence(task):
            return task

        assert FunctionAgent(audit_licence).name == "audit-licence"
        assert FunctionAgent(audit_licence, "other").name == "other"

    def test_the_functions_docstring_describes_the_agent(self):
        profile = FunctionAgent(judge).get_status().profile
        assert (profile.description, profile.agent_type) == ("Judges a record.", "FunctionAgent")

    def test_each_function_has_its_own_configuration_model(self):
        class One(BaseModel):
            one: int = 1

        class Two(BaseModel):
            two: int = 2

        first = FunctionAgent(judge, config_model=One)
        second = FunctionAgent(judge, config_model=Two)
        assert first.configuration == One()
        assert second.configuration == Two()
        assert first.state is AgentState.INITIALIZED
