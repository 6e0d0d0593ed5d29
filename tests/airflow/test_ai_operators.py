"""Plain operators of common-ai on a guarded connection, and agents that are a language model, in DAGs that really run."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import language_models
import pytest
from airflow.sdk import DAG, dag, task
from pydantic import BaseModel

from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.resilience import BreakerState
from airflow_agentic.testing.openai_server import Call, Fault, OpenAIServer, Say

language_models.require()

from airflow.providers.common.ai.operators.agent import AgentOperator  # noqa: E402
from airflow.providers.common.ai.operators.llm import LLMOperator  # noqa: E402
from pydantic_ai.toolsets import FunctionToolset  # noqa: E402

from airflow_agentic.agents.llm import LLMAgent  # noqa: E402

MINIMUM = 10


class Verdict(BaseModel):
    family: str
    sure: bool


class Licences(LLMAgent[str, Verdict]):
    """Tells the family of a licence."""


@pytest.fixture(autouse=True)
def loop_of_common_ai():
    """Its operators leave their loop to their process, connections and all; a test ends with less of it."""
    yield
    with contextlib.suppress(RuntimeError):
        asyncio.get_event_loop_policy().get_event_loop().close()
    asyncio.set_event_loop(None)
    language_models.collect()


@pytest.fixture
def servers():
    with OpenAIServer() as primary, OpenAIServer(then=Say("from the spare")) as spare:
        yield primary, spare


@pytest.fixture
def connect(monkeypatch, servers, store):
    def connect(conn_type, **extra):
        primary, spare = servers
        said = {"fallback_conn_ids": ["spare"], **extra}
        monkeypatch.setenv(*language_models.variable("primary", primary, conn_type, **said))
        monkeypatch.setenv(*language_models.variable("spare", spare, "pydanticai"))

    return connect


@pytest.fixture
def project(tmp_path, monkeypatch):
    def project(text):
        file = tmp_path / "agentic.yaml"
        file.write_text(text)
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(file))

    return project


@pytest.mark.parametrize(
    ("conn_type", "tasks", "reached"), [("pydanticai", 3, 3 * 3), ("pydanticai_agentic", 14, MINIMUM)]
)
def test_the_type_of_the_connection_alone_keeps_mapped_tasks_off_a_dead_model(
    run_dag, servers, connect, conn_type, tasks, reached
):
    primary, spare = servers
    primary.behave(then=Fault(503, retry_after=0))  # so that the client's own two retries come soon
    connect(conn_type)
    with DAG("mapped") as dag_:
        LLMOperator.partial(task_id="ask", llm_conn_id="primary").expand(prompt=["hello"] * tasks)

    run = run_dag(dag_)
    assert run.state == "success"
    assert run.xcom("ask", tasks - 1) == "from the spare"
    assert spare.count == tasks
    assert primary.count == reached


def test_agents_of_common_ai_run_their_tools_between_guarded_calls(run_dag, servers, connect, store):
    primary, _ = servers
    connect("pydanticai_agentic")
    primary.behave(
        Say(calls=(Call("licence_of", {"package": "left-pad"}),)), Say(data={"family": "free", "sure": True})
    )
    asked = []

    def licence_of(package: str) -> str:
        """Look a licence up."""
        asked.append(package)
        return "WTFPL"

    with DAG("agents") as dag_:
        AgentOperator(
            task_id="audit",
            llm_conn_id="primary",
            prompt="Is left-pad free?",
            output_type=Verdict,
            serialize_output=True,
            toolsets=[FunctionToolset([licence_of], id="licences")],
        )

    run = run_dag(dag_)
    assert run.state == "success"
    assert run.xcom("audit") == {"family": "free", "sure": True}
    assert asked == ["left-pad"]
    assert store.breaker("conn:primary").state is BreakerState.CLOSED


def test_decorated_tasks_of_common_ai_are_guarded_as_well(run_dag, servers, connect, store):
    primary, spare = servers
    connect("pydanticai_agentic")
    store.breaker("conn:primary").trip(reason="maintenance", actor="ada")

    @dag
    def decorated():
        @task.llm(llm_conn_id="primary")
        def say():
            return "hello"

        @task.agent(llm_conn_id="primary")
        def think(said: str):
            return f"what of {said}?"

        think(say())

    run = run_dag(decorated())
    assert run.state == "success"
    assert run.xcom("think") == "from the spare"
    assert (primary.count, spare.count) == (0, 2)


def test_a_task_whose_whole_chain_is_open_fails_with_our_error(run_dag, servers, connect, store, caplog):
    connect("pydanticai_agentic")
    for name in ("primary", "spare"):
        store.breaker(f"conn:{name}").trip(reason="maintenance", actor="ada")
    with DAG("closed") as dag_:
        LLMOperator(task_id="ask", llm_conn_id="primary", prompt="hello")

    assert run_dag(dag_).state == "failed"
    assert [server.count for server in servers] == [0, 0]


class TestLLMAgent:
    def test_it_is_an_agent_as_any_other_by_its_entry_in_the_project_file(
        self, run_dag, servers, connect, project, store
    ):
        primary, _ = servers
        connect("pydanticai_agentic")
        project("""
agents:
  licences:
    type: test_ai_operators:Licences
    config: {conn_id: primary, instructions: You know licences., max_tokens: 50}
""")
        primary.behave(Say(data={"family": "copyleft", "sure": True}))
        with DAG("llm_agents") as dag_:
            RunAgentOperator(task_id="judge", agent="licences", task="GPL-3.0")

        run = run_dag(dag_)
        assert run.state == "success"
        assert run.xcom("judge") == {"family": "copyleft", "sure": True}
        [asked] = primary.requests
        assert asked.text == "GPL-3.0"
        assert "You know licences." in str(asked.body["messages"])
        assert asked.body["max_completion_tokens"] == 50
        assert store.agents.get("licences").metrics.succeeded == 1

    def test_it_needs_no_class_of_its_own(self, run_dag, servers, connect, project):
        primary, _ = servers
        connect("pydanticai_agentic")
        project("""
agents:
  summary:
    type: airflow_agentic.agents.llm:LLMAgent
    config: {conn_id: primary}
  tally:
    type: airflow_agentic.agents.llm:LLMAgent
    config:
      conn_id: primary
      output_schema: {type: object, properties: {n: {type: integer}}, required: [n]}
""")
        primary.behave(Say("in short"), Say(data={"n": 3}))
        with DAG("declared") as dag_:
            one = RunAgentOperator(task_id="summary", agent="summary", task="a long text")
            one >> RunAgentOperator(task_id="tally", agent="tally", task={"letters": "abc"})

        run = run_dag(dag_)
        assert run.state == "success"
        assert run.xcom("summary") == "in short"
        assert run.xcom("tally") == {"n": 3}
        assert primary.requests[1].text == '{"letters": "abc"}'

    def test_its_budget_is_counted_by_the_name_of_the_agent(self, run_dag, servers, connect, project):
        primary, _ = servers
        connect("pydanticai_agentic", policy="llm", fallback_conn_ids=[])
        project("""
policies:
  llm: {budget: {per: agent, tokens: 15}, when_refused: fail}
agents:
  first: {type: "airflow_agentic.agents.llm:LLMAgent", config: {conn_id: primary}}
  second: {type: "airflow_agentic.agents.llm:LLMAgent", config: {conn_id: primary}}
""")
        primary.behave(then=Say(tokens=(10, 5)))
        states = []
        for agent in ("first", "second", "first"):
            with DAG(f"budget_{len(states)}", default_args={"retry_delay": timedelta(0)}) as dag_:
                RunAgentOperator(task_id="ask", agent=agent, task="hello")
            states.append(run_dag(dag_).state)
        assert states == ["success", "success", "failed"]
        assert primary.count == 2
