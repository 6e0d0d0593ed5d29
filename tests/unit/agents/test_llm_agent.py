"""Agents that are a language model, without Airflow: a model that answers from a script, and a server that fails."""

from __future__ import annotations

import asyncio
import json
import pickle
from typing import Any

import language_models
import pytest
from pydantic import BaseModel

from airflow_agentic.agents import AgentContext
from airflow_agentic.errors import (
    AgentError,
    Category,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    InvalidResult,
    InvalidTask,
    RejectMessage,
    ServiceError,
    ServiceRefused,
    ServiceThrottled,
)
from airflow_agentic.resilience import deadline
from airflow_agentic.testing import assert_agent_contract, run_agent
from airflow_agentic.testing.openai_server import Call, Fault, OpenAIServer, Say

language_models.require()

from pydantic_ai import Agent, RunContext  # noqa: E402
from pydantic_ai.models.openai import OpenAIChatModel  # noqa: E402
from pydantic_ai.providers.openai import OpenAIProvider  # noqa: E402
from pydantic_ai.toolsets import FunctionToolset  # noqa: E402

from airflow_agentic.agents.llm import LLMAgent, LLMAgentConfig  # noqa: E402
from airflow_agentic.testing.models import FakeModel  # noqa: E402


class Ticket(BaseModel):
    text: str


class Answer(BaseModel):
    urgent: bool
    why: str = ""


class Triage(LLMAgent[Ticket, Answer]):
    """Tells what is urgent."""


class Plain(LLMAgent[Any, Any]):
    """Answers with a text."""


TASK = {"text": "the shop is down"}


def stock_of(article: str) -> int:
    """Say how many there are."""
    return {"nails": 7}.get(article, 0)


stock = FunctionToolset([stock_of])


def make_stock():
    return FunctionToolset([stock_of])


NOT_A_TOOLSET = 7


class Served:
    """A model behind HTTP, as the runtime opens one of a connection."""

    def __init__(self, server):
        self.server = server

    def __call__(self, conn_id, model, agent):
        return self

    def create_agent(self, output_type=str, *, instructions, model_settings, **kwargs):
        model = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=self.server.url, api_key="k" * 8))
        settings = {"max_retries": 0, **model_settings}
        return Agent(
            model, output_type=output_type, instructions=instructions, model_settings=settings, **kwargs
        )


@pytest.fixture(autouse=True)
def no_clients_left():
    yield
    language_models.collect()


@pytest.fixture
def server():
    with OpenAIServer() as opened:
        yield opened


class TestAsking:
    def test_the_task_is_the_prompt_and_the_answer_is_the_result(self):
        model = FakeModel({"urgent": True, "why": "money"})
        run = run_agent(Triage, TASK, models=model, config={"conn_id": "llm", "instructions": "Judge."})
        assert run.result == {"urgent": True, "why": "money"}
        assert model.connections == ["llm"]
        assert model.prompts == [("Judge.", '{"text":"the shop is down"}')]

    def test_without_types_a_text_is_asked_as_it_is_and_answered_as_it_is(self):
        model = FakeModel("yes")
        assert run_agent(Plain, "really?", models=model).result == "yes"
        assert model.prompts == [("", "really?")]

    def test_a_schema_in_the_configuration_takes_the_place_of_a_type(self):
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        run = run_agent(Plain, [1, 2], models=FakeModel({"n": 3}), config={"output_schema": schema})
        assert run.result == {"n": 3}

    def test_a_subclass_says_what_is_asked(self):
        class Polite(Triage):
            def instructions(self, task, ctx):
                return f"{super().instructions(task, ctx)} Speak of {len(task.text)} letters."

            def prompt(self, task, ctx):
                return f"please: {task.text}"

        model = FakeModel({"urgent": False})
        run_agent(Polite, TASK, models=model, config={"instructions": "Judge."})
        assert model.prompts == [("Judge. Speak of 16 letters.", "please: the shop is down")]

    def test_it_keeps_the_contract_of_agents(self):
        class Ready(Triage):
            def process(self, task, ctx):
                return Answer(urgent="down" in task.text)

        assert_agent_contract(Ready, task=TASK, bad_tasks=[{}, {"text": 7}])

    def test_what_is_wrong_with_the_task_is_said_before_the_model_is_asked(self):
        model = FakeModel()
        with pytest.raises(InvalidTask):
            run_agent(Triage, {"no": "text"}, models=model)
        assert model.connections == []

    def test_its_own_loop_stands_beside_one_that_runs_already(self):
        async def inside():
            return run_agent(Plain, "x", models=FakeModel("fine")).result

        assert asyncio.run(inside()) == "fine"


class TestTools:
    @pytest.mark.parametrize("name", ["stock", "make_stock"])
    def test_toolsets_are_named_in_the_configuration(self, server, name):
        server.behave(Say(calls=(Call("stock_of", {"article": "nails"}),)), Say("seven"))
        run = run_agent(
            Plain, "how many?", models=Served(server), config={"toolsets": [f"{__name__}:{name}"]}
        )
        assert run.result == "seven"
        told = [each for each in server.requests[1].body["messages"] if each["role"] == "tool"]
        assert told[0]["content"] == "7"

    def test_tools_find_the_context_of_the_agent(self):
        class Writer(Plain):
            def toolsets(self, ctx):
                def tell(run: RunContext[AgentContext], whom: str) -> str:
                    run.deps.send(whom, {"from": "the model"})
                    return "sent"

                return [FunctionToolset([tell])]

        with OpenAIServer(Say(calls=(Call("tell", {"whom": "boss"}),)), Say("done")) as server:
            run = run_agent(Writer, "write", models=Served(server))
        assert [(each.recipient, each.data) for each in run.outbox] == [("boss", {"from": "the model"})]

    def test_what_is_no_toolset_is_refused(self):
        with pytest.raises(ConfigurationError, match="is a int, and no toolset"):
            run_agent(Plain, "x", models=FakeModel("x"), config={"toolsets": [f"{__name__}:NOT_A_TOOLSET"]})


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("fault", "error", "category"),
        [
            (Fault(500), ServiceError, Category.TRANSIENT),
            (Fault(reset=True), ServiceError, Category.TRANSIENT),
            (Fault(garbage=True), ServiceError, Category.TRANSIENT),
            (Fault(429, retry_after=9), ServiceThrottled, Category.RESOURCE_EXHAUSTION),
            (Fault(402), ServiceThrottled, Category.RESOURCE_EXHAUSTION),
            (Fault(403), ServiceRefused, Category.CONFIGURATION),
            (Fault(404, code="model_not_found"), ServiceRefused, Category.CONFIGURATION),
            (Fault(400), ServiceRefused, Category.PERMANENT),
        ],
        ids=str,
    )
    def test_failures_of_the_model_have_a_category(self, server, fault, error, category):
        server.behave(then=fault)
        with pytest.raises(error) as raised:
            run_agent(Plain, "x", models=Served(server), config={"conn_id": "llm"})
        assert raised.value.category is category
        assert raised.value.retry_after_seconds == fault.retry_after
        assert "'llm'" in str(raised.value)

    def test_an_error_survives_a_pickle(self, server):
        server.behave(then=Fault(429, retry_after=9))
        with pytest.raises(ServiceThrottled) as raised:
            run_agent(Plain, "x", models=Served(server))
        again = pickle.loads(pickle.dumps(raised.value))
        assert (type(again), str(again), again.category) == (
            type(raised.value),
            str(raised.value),
            Category.RESOURCE_EXHAUSTION,
        )
        assert (again.status, again.retry_after_seconds, again.model_name) == (429, 9, "gpt-4o")

    def test_answers_that_never_fit_are_an_invalid_result(self, server):
        server.behave(then=Say("no JSON"))
        with pytest.raises(InvalidResult, match="output_retries"):
            run_agent(Triage, TASK, models=Served(server), config={"output_retries": 2})
        assert server.count == 3

    def test_more_than_it_may_use_is_an_error_that_no_retry_helps(self, server):
        server.behave(then=Say(calls=(Call("stock_of", {"article": "nails"}),), tokens=(100, 10)))
        with pytest.raises(AgentError, match="limits") as raised:
            run_agent(
                Plain,
                "count for ever",
                models=Served(server),
                config={"toolsets": [f"{__name__}:stock"], "limits": {"total_tokens": 300}},
            )
        assert not raised.value.retry_helps
        assert server.count == 3

    def test_an_answer_that_the_provider_filtered_rejects_the_message(self, server):
        server.behave(then=Say("", finish="content_filter"))
        with pytest.raises(RejectMessage):
            run_agent(Plain, "x", models=Served(server))

    def test_an_answer_that_was_cut_off_says_so(self, server):
        server.behave(then=Say("", finish="length"))
        with pytest.raises(AgentError, match="max_tokens"):
            run_agent(Plain, "x", models=Served(server))

    def test_the_deadline_of_the_work_ends_the_wait(self, server):
        server.behave(then=Say(seconds=5))
        with deadline(0.3), pytest.raises(DeadlineExceeded):
            run_agent(Plain, "x", models=Served(server))

    def test_a_refusal_of_a_guard_passes_as_it_is(self):
        with pytest.raises(CircuitOpen):
            run_agent(Plain, "x", models=FakeModel(CircuitOpen("it is open", "conn:llm")))

    def test_a_context_without_models_says_what_to_do(self):
        with pytest.raises(ConfigurationError, match="RunAgentOperator"):
            run_agent(Plain, "x")


class TestConfiguration:
    @pytest.mark.parametrize(
        "config",
        [
            {"conn": "llm"},
            {"limits": {"token": 3}},
            {"temperature": -1},
            {"limits": {"requests": 0}},
            {"output_retries": -1},
        ],
        ids=json.dumps,
    )
    def test_mistakes_are_refused(self, config):
        with pytest.raises(ConfigurationError):
            run_agent(Plain, "x", models=FakeModel("x"), config=config)

    def test_a_schema_that_is_none_of_an_object_is_refused(self):
        with pytest.raises(ConfigurationError, match="output_schema"):
            run_agent(Plain, "x", models=FakeModel("x"), config={"output_schema": {"type": "array"}})

    def test_settings_reach_the_model(self, server):
        config = LLMAgentConfig(temperature=0.2, max_tokens=50, settings={"seed": 7}).model_dump()
        run_agent(Plain, "x", models=Served(server), config=config)
        asked = server.requests[0].body
        assert (asked["temperature"], asked["max_completion_tokens"], asked["seed"]) == (0.2, 50, 7)
