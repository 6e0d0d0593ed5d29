"""Airflow's own configuration as layers of the project, and what policies and references do at work."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.configuration import conf  # noqa: TID251  # its file is one of the layers
from airflow.sdk import DAG
from pydantic import BaseModel

from airflow_agentic import runtime
from airflow_agentic.agents import AgentContext, BaseAgent, RunIdentity, agent
from airflow_agentic.config import ProjectInvalid
from airflow_agentic.config.references import Reference
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.runtime.ports import AirflowReferences
from airflow_agentic.stores import open_store
from airflow_agentic.testing import run_agent

RUN = RunIdentity("dag", "run", "task")


@pytest.fixture
def in_cfg():
    """Write options into ``airflow.cfg``, as Airflow has read it."""
    added = not conf.has_section("agentic")
    before = dict(conf._sections.get("agentic", {}))

    def write(**options: str) -> None:
        if not conf.has_section("agentic"):
            conf.add_section("agentic")
        for key, value in options.items():
            conf.set("agentic", key, value)

    yield write
    conf.remove_section("agentic")
    if not added:
        conf.add_section("agentic")
        for key, value in before.items():
            conf.set("agentic", key, value)


@pytest.fixture
def declared(tmp_path, monkeypatch):
    def write(text: str) -> None:
        (tmp_path / "agentic.yaml").write_text(text)
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(tmp_path / "agentic.yaml"))

    return write


def explained(key):
    project = runtime.project()
    (found,) = project.explain(project.path(key))
    return found.value, found.source, [source for _, source in found.overrides]


class TestLayersOfAirflow:
    def test_the_file_of_airflow_is_below_the_project_and_the_environment_above(
        self, in_cfg, declared, tmp_path, monkeypatch
    ):
        cfg, file = "airflow.cfg [agentic] max_attempts", f"{tmp_path}/agentic.yaml:1"
        in_cfg(max_attempts="3")
        assert explained("settings.max_attempts") == (3, cfg, [])
        assert runtime.settings().max_attempts == 3
        declared("settings: {max_attempts: 4}")
        assert explained("settings.max_attempts") == (4, file, [cfg])
        name = "AIRFLOW__AGENTIC__MAX_ATTEMPTS"
        monkeypatch.setenv(name, "5")
        assert explained("settings.max_attempts") == (5, f"environment variable {name}", [file, cfg])
        assert runtime.project().explain(("settings", "max_attempts"))[0].overrides[-1] == ("3", cfg)

    def test_a_mistyped_option_is_refused_wherever_it_is(self, in_cfg, monkeypatch):
        in_cfg(max_atempts="3")
        monkeypatch.setenv("AIRFLOW__AGENTIC__LEASE_SECOND", "9")
        with pytest.raises(ProjectInvalid) as refused:
            runtime.settings()
        assert {fault.source: fault.suggestion for fault in refused.value.errors} == {
            "airflow.cfg [agentic] max_atempts": "did you mean 'max_attempts'?",
            "environment variable AIRFLOW__AGENTIC__LEASE_SECOND": "did you mean 'lease_seconds'?",
        }

    def test_airflow_expands_variables_and_runs_commands_for_what_may_be_secret(self, monkeypatch):
        # Airflow asks the providers what is sensitive when its own start-up has come so far.
        monkeypatch.setattr(conf, "sensitive_config_values", {("agentic", "store_url")})
        monkeypatch.setenv("STORE_DIR", "/somewhere")
        monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", "sqlite:///$STORE_DIR/a.db")
        assert runtime.settings().store_url == "sqlite:////somewhere/a.db"
        monkeypatch.delenv("AIRFLOW__AGENTIC__STORE_URL")
        monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL_CMD", "echo sqlite:////from/a/command.db")
        assert runtime.settings().store_url == "sqlite:////from/a/command.db"

    def test_a_relative_project_file_is_relative_to_the_home_of_airflow(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW_HOME", "/opt/airflow")
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", "agentic.yaml, /etc/agentic/production.yaml")
        assert runtime.project_files() == ["/opt/airflow/agentic.yaml", "/etc/agentic/production.yaml"]

    def test_the_command_line_is_over_all_and_only_for_its_command(self, monkeypatch, tmp_path):
        other = tmp_path / "other.yaml"
        other.write_text("flags: {f: 1}")
        with runtime.command_line(["settings.max_attempts=9"], [str(other)]):
            assert runtime.settings().max_attempts == 9
            assert runtime.project().flags == {"f": 1}
        assert runtime.settings().max_attempts == 5


class TestPolicy:
    def test_it_sets_lease_and_backoff_and_what_it_leaves_out_is_that_of_the_bus(self, declared):
        agent("worker")(lambda task: task)
        declared("""
            policies: {quick: {lease_seconds: 7, retry: {base_seconds: 2}}}
            agents: {worker: {policy: quick}}
        """)
        with open_store("memory://") as store:
            place = runtime.Workplace(store, runtime.project(), RUN)
            plan = runtime.plan("worker")
            bus = place.runner(place.agent(plan), plan)._bus
            assert (bus.options.lease, bus.options.retry_base) == (timedelta(seconds=7), timedelta(seconds=2))
            assert bus.options.retry_max == store.bus.options.retry_max
            assert place.runner(place.agent(plan), plan)._lease == timedelta(seconds=7)
            given = place.runner(place.agent(plan), plan, timedelta(seconds=1))
            assert given._lease == timedelta(seconds=1)


class TestReferences:
    def test_what_is_found_is_masked_in_the_logs_of_airflow(self, monkeypatch):
        from airflow.sdk._shared.secrets_masker import redact

        monkeypatch.setenv("A_KEY", "not-to-be-seen-anywhere")
        AirflowReferences().resolve(Reference("${env:A_KEY}", "env", "A_KEY"))
        assert redact("got not-to-be-seen-anywhere") == "got ***"


class Own(BaseModel):
    name: str = "outer"


class Inner(BaseAgent[int, str]):
    def process(self, task: int, ctx: AgentContext) -> str:
        return type(ctx.config).__name__


class Outer(BaseAgent[int, list[str]]):
    config_model = Own

    def __init__(self, inner: Inner, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.inner = inner

    def process(self, task: int, ctx: AgentContext) -> list[str]:
        return [self.inner.run(task, ctx), ctx.config.name]


class TestAgentsInAgents:
    def test_an_agent_that_asks_another_keeps_its_own_configuration(self, declared):
        done = run_agent(Outer, 1, services={Inner: Inner()})
        assert done.result == ["NoConfiguration", "outer"]


def test_an_implementation_chosen_in_the_dag_stays_and_the_rest_is_the_projects(declared, run_dag):
    class Greeting(BaseModel):
        word: str = "hello"

    @agent("greeter", config=Greeting)
    def chosen(task: str, ctx: AgentContext) -> str:
        return f"{ctx.config.word} {task}"

    declared("agents: {greeter: {type: 'airflow_agentic.agents:HttpAgent', config: {word: good morning}}}")
    with DAG("chosen") as dag:
        RunAgentOperator(task_id="greet", agent=chosen, task="bees")
    assert run_dag(dag).xcom("greet") == "good morning bees"
