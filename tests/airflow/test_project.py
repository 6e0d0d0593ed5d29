"""The project file at work: DAGs name agents, and the project says what they are."""

from __future__ import annotations

import importlib
import json
import sqlite3
import sys
import textwrap
from pathlib import Path

import pytest
from airflow.sdk import DAG

from airflow_agentic.errors import ProjectInvalid, UnknownAgent
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.operators.messaging import SendMessageOperator
from airflow_agentic.testing import override_services

MODULE = '''
from pydantic import BaseModel, SecretStr
from airflow_agentic.agents import AgentContext, BaseAgent, agent

LOG = []


class Index:
    def __init__(self, size: int, path: str = "none"):
        self.size, self.path = size, path


class Pool:
    """Lives as long as the process."""


def pool():
    LOG.append("pool opened")
    yield Pool()
    LOG.append("pool closed")


def connection(pool: Pool):
    LOG.append("connection opened")
    yield Connection()
    LOG.append("connection closed")


class Connection:
    pass


class Limits(BaseModel):
    euros: float = 500
    key: str = ""


class Counter(BaseAgent[int, dict]):
    config_model = Limits

    def process(self, task, ctx):
        return {"who": "counter", "euros": ctx.config.euros, "length": len(ctx.config.key)}


class Searcher(BaseAgent[int, dict]):
    config_model = Limits

    def __init__(self, index: Index, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    def process(self, task, ctx):
        ctx.send("boss", {"found": task})
        return {"who": "searcher", "size": self.index.size, "path": self.index.path}


class Leaver(BaseAgent[int, int]):
    def process(self, task, ctx, connection: Connection):
        if task < 0:
            raise RuntimeError("below zero")
        return task
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    folder = tmp_path / "modules"
    folder.mkdir()
    name = f"project_agents_{tmp_path.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(folder))
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def declare(tmp_path, monkeypatch, module):
    """Write project files and let Airflow know them; ``{module}`` stands for the module of the agents."""

    def write(*texts: str) -> list[Path]:
        files = [tmp_path / f"{number}.yaml" for number, _ in enumerate(texts)]
        for file, text in zip(files, texts, strict=True):
            file.write_text(textwrap.dedent(text).replace("{module}", module))
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", ",".join(map(str, files)))
        return files

    return write


class TestParsing:
    def test_an_unknown_agent_is_refused_with_the_nearest_one_that_is_declared(self, declare):
        declare("agents: {counter: {type: '{module}:Counter'}}")
        with DAG("d"), pytest.raises(UnknownAgent, match=r"no agent 'countr'\. Did you mean 'counter'"):
            RunAgentOperator(task_id="t", agent="countr", task=1)

    def test_a_mapped_operator_is_refused_as_well(self, declare):
        declare("agents: {counter: {type: '{module}:Counter'}}")
        with DAG("d"), pytest.raises(UnknownAgent, match="Did you mean 'counter'"):
            RunAgentOperator.partial(task_id="t", agent="countr").expand(task=[1])

    def test_a_type_that_leads_nowhere_names_the_line(self, declare):
        (file,) = declare("agents:\n  counter:\n    type: '{module}:Cuonter'\n")
        with DAG("d"), pytest.raises(UnknownAgent, match=f"{file}:3.*did you mean 'Counter'"):
            RunAgentOperator(task_id="t", agent="counter", task=1)

    def test_a_broken_project_refuses_the_dag_with_every_fault(self, declare):
        file, other = declare("agents: {counter: {polcy: x}}", "agents: {counter: {policy: y}}")
        with DAG("d"), pytest.raises(ProjectInvalid) as refused:
            RunAgentOperator(task_id="t", agent="counter", task=1)
        assert [(fault.file, fault.line) for fault in refused.value.errors] == [
            (str(file), 1),
            (str(other), 1),
        ]

    def test_configuration_of_file_and_operator_is_checked_together(self, declare):
        declare("agents: {counter: {type: '{module}:Counter', config: {euros: 3}}}")
        with DAG("d"):
            RunAgentOperator(task_id="fine", agent="counter", task=1, config={"key": "k"})
            with pytest.raises(Exception, match="euros"):
                RunAgentOperator(task_id="t", agent="counter", task=1, config={"euros": "many"})

    def test_a_repaired_file_is_seen_without_a_restart(self, declare):
        (file,) = declare("agents: {counter: {polcy: x}}")
        with DAG("d"):
            with pytest.raises(ProjectInvalid):
                RunAgentOperator(task_id="t", agent="counter", task=1)
            file.write_text("agents: {counter: {type: 'no_such:Thing'}}")
            with pytest.raises(UnknownAgent, match="no_such"):
                RunAgentOperator(task_id="t2", agent="counter", task=1)


class TestRunning:
    def test_the_same_dag_runs_another_implementation_in_another_environment(self, declare, run_dag):
        def dag():
            with DAG("same") as made:
                RunAgentOperator(task_id="ask", agent="worker", task=1)
            return made

        base = "agents: {worker: {type: '{module}:Counter', config: {euros: 7}}, chief: {type: '{module}:Counter'}}"
        declare(base)
        assert run_dag(dag()).xcom("ask") == {"who": "counter", "euros": 7, "length": 0}
        declare(
            base,
            """
            agents:
              worker: {type: "{module}:Searcher", sends_to: {boss: chief}, config: "${delete}"}
            services:
              index: {type: "{module}:Index", config: {size: "5"}}
            """,
        )
        assert run_dag(dag()).xcom("ask") == {"who": "searcher", "size": 5, "path": "none"}

    def test_what_an_agent_sends_goes_where_the_project_says(self, declare, run_dag, store):
        declare("""
            agents:
              worker: {type: "{module}:Searcher", sends_to: {boss: chief}}
              chief: {type: "{module}:Counter"}
            services: {index: {type: "{module}:Index", config: {size: 1}}}
        """)
        with DAG("d") as dag:
            RunAgentOperator(task_id="ask", agent="worker", task=1)
        assert run_dag(dag).state == "success"
        assert (store.bus.stats("chief").ready, store.bus.stats("boss").total) == (1, 0)

    def test_a_policy_guards_the_messages_of_its_agent(self, declare, run_dag, store, monkeypatch):
        declare("""
            policies: {twice: {retry: {max_attempts: 2, base_seconds: 0, max_seconds: 0}, lease_seconds: 7}}
            agents: {leaver: {type: "{module}:Leaver", policy: twice}}
            services:
              pool: {type: "{module}:pool", provides: "{module}:Pool", scope: process}
              connection: {type: "{module}:connection", provides: "{module}:Connection"}
        """)
        with DAG("d") as dag:
            send = SendMessageOperator(task_id="send", recipient="leaver", data=-1)
            send >> RunAgentOperator(task_id="work", agent="leaver", mailbox="leaver")
        run = run_dag(dag)
        assert run.xcom("work")["failed"] == 2
        (letter,) = store.bus.dead_letters("leaver")
        assert letter.max_attempts == 2
        assert "below zero" in letter.reason

    def test_services_close_in_reverse_order_also_when_the_task_fails(self, declare, run_dag, module):
        declare("""
            agents: {leaver: {type: "{module}:Leaver"}}
            services:
              pool: {type: "{module}:pool", provides: "{module}:Pool", scope: process}
              connection: {type: "{module}:connection", provides: "{module}:Connection"}
        """)
        with DAG("d") as dag:
            first = RunAgentOperator(task_id="first", agent="leaver", task=1)
            second = RunAgentOperator(task_id="second", agent="leaver", task=-1, trigger_rule="all_done")
            first >> second
        assert run_dag(dag).state == "failed"
        log = importlib.import_module(module).LOG
        used = ["connection opened", "connection closed"]
        assert log == ["pool opened", *used, *used]

        # With another project, what belonged to the old one ends before the new one's things are made.
        declare("""
            agents: {worker: {type: "{module}:Searcher", sends_to: {boss: worker}}}
            services: {index: {type: "{module}:Index", config: {size: 1}}}
        """)
        with DAG("e") as dag:
            RunAgentOperator(task_id="ask", agent="worker", task=1)
        assert run_dag(dag).state == "success"
        assert log[-1] == "pool closed"

    def test_a_test_overrides_a_service_in_one_line(self, declare, run_dag, module):
        declare("""
            agents: {worker: {type: "{module}:Searcher", sends_to: {boss: worker}}}
            services: {index: {type: "{module}:Index", config: {size: 1}}}
        """)
        with DAG("d") as dag:
            RunAgentOperator(task_id="ask", agent="worker", task=1)
        agents = importlib.import_module(module)
        with override_services({agents.Index: agents.Index(99, "fake")}):
            assert run_dag(dag).xcom("ask") == {"who": "searcher", "size": 99, "path": "fake"}
        assert run_dag(dag).xcom("ask")["size"] == 1

    def test_a_missing_service_fails_the_task_once_with_the_chain(self, declare, run_dag, caplog):
        declare("agents: {worker: {type: '{module}:Searcher'}}")
        with DAG("d") as dag:
            RunAgentOperator(task_id="ask", agent="worker", task=1, retries=3)
        run = run_dag(dag)
        assert run.state == "failed"
        assert run.task("ask").try_number == 1


class TestReferences:
    SECRET = "s3cr3t-and-long-enough"

    def test_they_are_resolved_in_the_task_and_written_nowhere(
        self, declare, run_dag, store, store_url, tmp_path, monkeypatch, caplog
    ):
        declare("""
            agents:
              by-env: {type: "{module}:Counter", config: {key: "${env:THE_KEY}"}}
              by-conn: {type: "{module}:Counter", config: {key: "Bearer ${conn:api.password}"}}
              by-extra: {type: "{module}:Counter", config: {key: "${conn:api.extra.deep.key}"}}
              by-var: {type: "{module}:Counter", config: {key: "${var:the_key}"}}
        """)
        monkeypatch.setenv("THE_KEY", self.SECRET)
        connection = {"conn_type": "http", "password": self.SECRET, "extra": {"deep": {"key": self.SECRET}}}
        monkeypatch.setenv("AIRFLOW_CONN_API", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW_VAR_THE_KEY", self.SECRET)
        names = ("by-env", "by-conn", "by-extra", "by-var")
        with DAG("d") as dag:
            for name in names:
                RunAgentOperator(task_id=name, agent=name, task=1)
        run = run_dag(dag)
        assert run.state == "success"
        lengths = {name: run.xcom(name)["length"] for name in names}
        size = len(self.SECRET)
        assert lengths == {"by-env": size, "by-conn": size + 7, "by-extra": size, "by-var": size}
        assert store.agents.get("by-conn").profile.configuration["key"] == "Bearer ${conn:api.password}"
        database = sqlite3.connect(store_url.removeprefix("sqlite:///"))
        assert self.SECRET not in "\n".join(database.iterdump())
        assert self.SECRET not in caplog.text

    @pytest.mark.parametrize(
        ("reference", "text"),
        [
            ("${env:NOT_SET}", "the environment has no NOT_SET"),
            ("${conn:nowhere.password}", "no Airflow connection 'nowhere'"),
            ("${var:nowhere}", "no Airflow variable 'nowhere'"),
        ],
    )
    def test_one_that_leads_nowhere_fails_the_task_with_what_to_do(
        self, declare, run_dag, reference, text, capsys
    ):
        declare(f'agents: {{counter: {{type: "{{module}}:Counter", config: {{key: "{reference}"}}}}}}')
        with DAG("d") as dag:
            RunAgentOperator(task_id="ask", agent="counter", task=1)
        assert run_dag(dag).state == "failed"
        assert text in capsys.readouterr().out


class TestRunTime:
    DECLARED = """
        agents:
          counter: {type: "{module}:Counter", config: {euros: 1}, overridable: [euros]}
    """

    @pytest.fixture
    def dag(self, declare):
        declare(self.DECLARED)
        with DAG("d", params={"agentic": {"agents": {"counter": {"config": {"euros": 3}}}}}) as dag:
            RunAgentOperator(task_id="ask", agent="counter", task=1, config={"euros": 2})
        return dag

    def test_params_beat_the_operator_and_the_conf_of_a_run_beats_both(self, dag, run_dag):
        assert run_dag(dag).xcom("ask")["euros"] == 3
        conf = {"agentic": {"agents.counter.config.euros": 4}}
        assert run_dag(dag, run_conf=conf).xcom("ask")["euros"] == 4

    def test_what_is_not_overridable_is_refused_and_named(self, dag, run_dag, capsys):
        conf = {"agentic": {"agents": {"counter": {"config": {"key": "mine"}}}}}
        assert run_dag(dag, run_conf=conf).state == "failed"
        assert "agents.counter.overridable: [key]" in capsys.readouterr().out


class TestRules:
    def refusals(self, tmp_path, text):
        from airflow.dag_processing.dagbag import DagBag

        folder = tmp_path / "bag"
        folder.mkdir()
        (folder / "a_dag.py").write_text(textwrap.dedent(text))
        return "\n".join(DagBag(dag_folder=str(folder)).import_errors.values())

    DAG_FILE = """
        from datetime import timedelta
        from airflow.sdk import DAG, task
        from airflow_agentic.operators.agents import RunAgentOperator

        with DAG("d"):
            RunAgentOperator(task_id="a", agent="counter", task=1{options})
            RunAgentOperator.partial(task_id="m", agent="counter"{options}).expand(task=[1])

            @task
            def other(): ...
            other()
    """
    RULES = """
        rules: {declared_agents_only: true, require_policy: true, require_execution_timeout: true, min_retries: 2}
        policies: {p: {}}
        agents: {counter: {type: "{module}:Counter"{policy}}}
    """

    def test_a_dag_that_breaks_them_is_an_import_error_that_says_what_to_do(self, declare, tmp_path):
        declare(self.RULES.replace("{policy}", ""))
        refused = self.refusals(tmp_path, self.DAG_FILE.replace("{options}", ""))
        assert "task 'a' breaks the rules of the project file" in refused
        for words in ("agents.counter.policy", "execution_timeout=", "retries=0; give it at least 2"):
            assert words in refused

    def test_a_dag_that_keeps_to_them_is_imported(self, declare, tmp_path):
        declare(self.RULES.replace("{policy}", ", policy: p"))
        options = ", retries=2, execution_timeout=timedelta(minutes=1)"
        assert self.refusals(tmp_path, self.DAG_FILE.replace("{options}", options)) == ""

    def test_without_rules_every_dag_is_imported(self, declare, tmp_path):
        declare('agents: {counter: {type: "{module}:Counter"}}')
        assert self.refusals(tmp_path, self.DAG_FILE.replace("{options}", "")) == ""

    def test_an_agent_of_the_dag_file_is_not_a_declared_one(self, declare, tmp_path):
        declare("rules: {declared_agents_only: true}")
        text = """
            from airflow.sdk import DAG
            from airflow_agentic.agents import agent
            from airflow_agentic.operators.agents import RunAgentOperator

            @agent("homemade")
            def homemade(task): ...

            with DAG("d"):
                RunAgentOperator(task_id="a", agent=homemade, task=1)
        """
        assert "declares no agent 'homemade'" in self.refusals(tmp_path, text)


def test_services_of_the_process_end_when_the_project_changed_and_nobody_works_with_them(declare, module):
    """The triggerer works for many tasks at once, and its project can change in the middle."""
    from airflow_agentic import runtime
    from airflow_agentic.agents import RunIdentity
    from airflow_agentic.stores import open_store

    text = """
        agents: {leaver: {type: "{module}:Leaver"}}
        services:
          pool: {type: "{module}:pool", provides: "{module}:Pool", scope: process}
          connection: {type: "{module}:connection", provides: "{module}:Connection"}
    """

    def started(store):
        place = runtime.Workplace(store, runtime.project(), RunIdentity("d", "r", "t"))
        place.agent(runtime.plan("leaver"))
        return place

    with open_store("memory://") as store:
        declare(text)
        first, second = started(store), started(store)
        first.close()
        declare(text, "flags: {new: true}")
        third = started(store)
        log = importlib.import_module(module).LOG
        assert log.count("pool opened") == 2
        assert "pool closed" not in log
        second.close()
        assert log[-2:] == ["connection closed", "pool closed"]
        third.close()
        assert log.count("pool closed") == 1
