"""Airflow's own configuration as layers of the project, and what policies and references do at work."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta

import pytest
from airflow.configuration import conf  # noqa: TID251  # its file is one of the layers
from airflow.sdk import DAG
from pydantic import BaseModel
from sqlalchemy.engine import make_url

from airflow_agentic import runtime
from airflow_agentic.agents import AgentContext, BaseAgent, RunIdentity, agent
from airflow_agentic.config import ProjectInvalid
from airflow_agentic.config.references import Reference
from airflow_agentic.errors import ConfigurationError, InvalidOption
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.messaging.ports import DeliveryQuery
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


@pytest.fixture
def connect(monkeypatch):
    """Give Airflow a connection, as its URI or JSON form would be in the environment."""

    def make(conn_id: str, **values: object) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(values))

    return make


class TestTarget:
    def test_every_option_of_the_bus_is_what_is_set(self, monkeypatch):
        said = {
            "max_message_bytes": 2000,
            "max_attempts": 7,
            "lease_seconds": 11,
            "retry_base_seconds": 2,
            "retry_max_seconds": 12,
            "poll_seconds": 0.25,
            "request_timeout_seconds": 13,
            "heartbeat_seconds": 14,
            "dedup_window_seconds": 15,
            "claim_check_bytes": 16,
            "mailbox_limit": 17,
            "mailbox_overflow": "dead-letter",
            "block_seconds": 18,
        }
        for key, value in said.items():
            monkeypatch.setenv(f"AIRFLOW__AGENTIC__{key.upper()}", str(value))
        options = runtime.target_at("memory://", "a test").options
        assert {**asdict(options), "mailboxes": None, "subscriptions": None} == asdict(
            BusOptions(
                max_message_bytes=2000,
                max_attempts=7,
                lease=timedelta(seconds=11),
                retry_base=timedelta(seconds=2),
                retry_max=timedelta(seconds=12),
                poll=timedelta(seconds=0.25),
                request_timeout=timedelta(seconds=13),
                heartbeat=timedelta(seconds=14),
                dedup_window=timedelta(seconds=15),
                claim_check_bytes=16,
                mailbox_limit=17,
                overflow="dead-letter",
                block=timedelta(seconds=18),
                mailboxes=None,
                subscriptions=None,
            )
        )

    def test_what_the_project_declares_leads_the_messages_of_every_store(self, declared, connect, tmp_path):
        declared("""
            agents: {triage: {subscriptions: [orders.#], mailbox: {limit: 3}}}
        """)
        connect("own", conn_type="agentic", extra={"url": f"sqlite:///{tmp_path}/own.db"})
        for found in (runtime.target(), runtime.target("own"), runtime.target_at("memory://", "a test")):
            assert [(each.mailbox, each.topic) for each in found.subscriptions] == [
                ("triage", None),
                ("triage", "orders.#"),
            ]
            assert found.options.mailboxes["triage"].limit == 3
        with runtime.target_at("memory://", "a test").open() as store:
            assert store.bus.publish(Message(source="shop", topic="orders.new")) == ["triage"]

    def test_a_filter_that_does_not_compile_is_refused_before_the_store_is_opened(self, declared, tmp_path):
        declared("mailboxes: {log: {subscriptions: [{filter: msg.data >}]}}")
        found = runtime.target_at(f"sqlite:///{tmp_path}/none.db", "a test")
        with pytest.raises(
            ProjectInvalid, match=f"{tmp_path}/agentic.yaml:1: the filter 'msg.data >' does not"
        ):
            found.open()
        assert not (tmp_path / "none.db").exists()

    def test_whoever_opens_a_store_may_have_a_name(self, connect):
        connect("own", conn_type="agentic", extra={"url": "memory://"})
        with runtime.open_store("own", owner="me:1") as store:
            store.bus.send(Message(source="shop", recipient="box"))
            store.bus.receive("box")
            assert store.bus.find(DeliveryQuery(mailbox="box"))[0].owner == "me:1"

    def test_large_data_goes_where_the_option_says(self, connect, tmp_path):
        connect(
            "own",
            conn_type="agentic",
            extra={
                "url": "memory://",
                "claim_check_path": f"file://{tmp_path}/blobs",
                "claim_check_bytes": 1000,
            },
        )
        assert runtime.target_at("memory://", "a test").blobs is None
        with runtime.open_store("own") as store:
            store.bus.send(Message(source="shop", recipient="box", data="x" * 2000))
            kept = store.bus.find(DeliveryQuery(mailbox="box"))[0].message
            assert kept.data is None
            assert kept.data_ref.startswith(f"file://{tmp_path}/blobs/")
            assert store.bus.receive("box")[0].message.data == "x" * 2000

    def test_delays_that_contradict_those_of_the_project_are_told_with_the_connection(
        self, connect, declared
    ):
        declared("settings: {retry_base_seconds: 20}")
        connect("own", conn_type="agentic", extra={"retry_max_seconds": 10})
        with pytest.raises(
            InvalidOption, match="connection 'own': retry_base_seconds = 20: must not be more"
        ):
            runtime.target("own")


class TestConnectionsOfServers:
    def test_one_of_postgresql_is_its_url(self, connect):
        connect(
            "server",
            conn_type="postgres",
            host="db.example.com",
            port=5433,
            login="ana@sales",
            password="p:/@ %",
            schema="work",
            extra={"sslmode": "require", "keepalives_idle": 30, "cursor": "dictcursor", "sslcert": ""},
        )
        found = runtime.target("server")
        parsed = make_url(found.url)
        assert (parsed.host, parsed.port, parsed.database) == ("db.example.com", 5433, "work")
        assert (parsed.username, parsed.password) == ("ana@sales", "p:/@ %")
        assert dict(parsed.query) == {"sslmode": "require", "keepalives_idle": "30"}
        assert found.origin == "connection server"
        assert ":***@" in found.shown
        assert "p:/" not in repr(found) + found.shown

    def test_one_of_postgresql_may_name_the_directory_of_a_socket_or_almost_nothing(self, connect):
        connect("socket", conn_type="postgres", host="/run/postgresql", schema="work")
        assert runtime.target("socket").url == "postgresql:///work?host=%2Frun%2Fpostgresql"
        connect("bare", conn_type="postgres", schema="work")
        assert runtime.target("bare").url == "postgresql:///work"

    @pytest.mark.parametrize(
        ("values", "url"),
        [
            ({}, "redis://localhost:6379/0"),
            ({"host": "r", "port": 6380, "extra": {"db": 3}}, "redis://r:6380/3"),
            ({"host": "r", "schema": "2", "password": "p/@:"}, "redis://:p%2F%40%3A@r:6379/2"),
            ({"host": "::1", "login": "ana", "password": "p"}, "redis://ana:p@[::1]:6379/0"),
            (
                {"host": "r", "extra": {"ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": True}},
                "rediss://r:6379/0?ssl_cert_reqs=none",
            ),
            (
                {"host": "r", "extra": {"ssl": False, "ssl_cert_reqs": "none", "decode": 1}},
                "redis://r:6379/0",
            ),
        ],
    )
    def test_one_of_redis_is_its_url(self, connect, values, url):
        connect("server", conn_type="redis", **values)
        found = runtime.target("server")
        assert found.url == url
        if password := values.get("password"):
            assert password not in found.shown.replace("redis", "")

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            (
                {"conn_type": "http"},
                "is of type 'http'; the agentic provider needs one of type 'agentic', 'postgres'",
            ),
            ({"conn_type": "redis", "schema": "work"}, "names the database 'work'; Redis has numbers"),
            (
                {"conn_type": "redis", "extra": {"ssl": "true", "ssl_check_hostname": False}},
                "sets ssl_check_hostname to false",
            ),
            ({"conn_type": "postgres", "extra": {"max_attempts": 3}}, "sets max_attempts: say that in"),
            ({"conn_type": "redis", "extra": {"lease_seconds": 3}}, "sets lease_seconds: say that in"),
            ({"conn_type": "postgres", "extra": {"iam": True}}, "gets its password from a cloud (iam)"),
        ],
    )
    def test_what_cannot_be_used_is_refused_by_name(self, connect, values, says):
        connect("server", password="hunter2", **values)
        with pytest.raises(ConfigurationError) as refused:
            runtime.target("server")
        assert says in str(refused.value)
        assert "hunter2" not in str(refused.value)


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
