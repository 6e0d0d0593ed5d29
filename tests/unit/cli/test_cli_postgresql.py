"""The commands on a store in PostgreSQL. Its URL has a password in it, which nothing may show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest
from commandline import Ended, Run
from sqlalchemy.engine import make_url

from airflow_agentic.messaging import Message
from airflow_agentic.resilience import Breaker, Budget, Policy, RateLimit
from airflow_agentic.stores import open_store
from airflow_agentic.stores.sql import schema

_PASSWORD = "hunter2"
_NOBODY_LISTENS = f"postgresql://ana:{_PASSWORD}@127.0.0.1:1/db"


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.schema() as name:
        with_password = make_url(postgres.url_of(name)).set(password=_PASSWORD)
        yield with_password.render_as_string(hide_password=False)


@pytest.fixture
def on_server(agentic: Run, url: str) -> Run:
    def run(*words: object) -> Ended:
        ended = agentic(*words, "--store-url", url)
        assert _PASSWORD not in ended.out + ended.err
        return ended

    return run


def test_guards_are_shown_and_set_by_hand(on_server: Run, url: str) -> None:
    policy = Policy(breaker=Breaker(), limits=RateLimit(rate=5), budget=Budget(calls=1))
    with open_store(url) as store:
        store.guard(policy, "conn:primary").call(lambda: None)

    assert on_server("breakers", "trip", "conn:primary", "--reason", "x").code == 0
    assert on_server("breakers", "list", "-o", "json").json[0]["state"] == "forced_open"
    assert on_server("limits", "list", "-o", "json").json[0]["key"] == "conn:primary"
    assert on_server("budgets", "list", "-o", "json").json[0]["exceeded"] == ["calls"]


def test_check_of_a_schema_without_tables_says_how_to_make_them(on_server: Run) -> None:
    ended = on_server("db", "check", "-o", "json")

    assert ended.code == 1
    assert ended.json[0]["revision"] is None
    assert ":***@" in ended.json[0]["store"]
    assert "`airflow agentic db upgrade --store-url" in ended.err
    assert ended.err.count("\n") == 0


def test_upgrade_makes_the_tables_and_then_has_nothing_to_do(on_server: Run) -> None:
    first, second = on_server("db", "upgrade"), on_server("db", "upgrade")

    assert first.out.startswith("created the store postgresql://")
    assert "nothing to do" in second.out
    assert on_server("db", "check", "-o", "json").json[0]["revision"] == schema.HEAD


def test_upgrade_says_from_where_to_where(on_server: Run, url: str) -> None:
    database = schema.connect(url)
    schema.upgrade(database, "0001")
    database.close()

    assert f"from schema 0001 to {schema.HEAD}" in on_server("db", "upgrade").out


def test_a_listing_of_a_store_that_was_never_made_makes_none(on_server: Run, url: str) -> None:
    ended = on_server("messages", "stats")

    assert ended.code == 1
    assert "there is no store at postgresql://" in ended.err
    assert on_server("db", "check", "-o", "json").json[0]["revision"] is None


def test_messages_and_dead_letters_are_listed_and_redriven(on_server: Run, url: str) -> None:
    with open_store(url) as store:
        store.bus.send(Message(source="scanner", recipient="auditor", data={"a": 1}))
        [delivery] = store.bus.receive("auditor")
        delivery.reject("no use")

    assert on_server("messages", "stats", "-o", "json").json[0]["dead"] == 1
    assert on_server("dead-letters", "list", "-o", "json").json[0]["reason"] == "no use"
    assert on_server("dead-letters", "redrive", "1", "--reason", "again", "--yes").code == 0
    assert on_server("messages", "stats", "-o", "json").json[0]["ready"] == 1
    assert on_server("agents", "list", "-o", "json").json == []


def test_doctor_finds_a_store_that_is_well_and_one_that_is_not_made_yet(on_server: Run, url: str) -> None:
    def found() -> dict[str, tuple[str, str]]:
        return {
            f["check"]: (f["result"], f["text"]) for f in json.loads(on_server("doctor", "-o", "json").out)
        }

    before = found()
    assert before["store"][0] == "warning"
    assert "does not exist yet" in before["store"][1]
    open_store(url).close()
    after = found()
    assert after["store"][0] == after["schema and write access"][0] == after["leases"][0] == "ok"
    assert "file system" not in after


@pytest.mark.parametrize(
    "words", [("db", "check"), ("db", "upgrade"), ("messages", "stats"), ("agents", "list")], ids=" ".join
)
def test_a_server_that_does_not_answer_is_told_in_one_line(agentic: Run, words: tuple[str, ...]) -> None:
    ended = agentic(*words, "--store-url", _NOBODY_LISTENS)

    assert ended.code == 1
    assert ended.err.startswith("error: cannot use the store postgresql://ana:***@127.0.0.1:1/db: ")
    assert ended.err.count("\n") == 0


def test_doctor_tells_of_a_server_that_does_not_answer(agentic: Run) -> None:
    ended = agentic("doctor", "--store-url", _NOBODY_LISTENS)

    assert ended.code == 1
    assert "FAIL     store: cannot use the store postgresql://ana:***@127.0.0.1:1/db" in ended.out
    assert _PASSWORD not in ended.out + ended.err


def test_an_airflow_connection_names_the_store(
    agentic: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_agentic.hooks.messaging import AgenticHook

    connection = {"conn_type": "agentic", "extra": {"url": url, "max_attempts": 2}}
    monkeypatch.setenv("AIRFLOW_CONN_SERVER", json.dumps(connection))
    with AgenticHook("server").get_conn() as store:
        store.bus.send(Message(source="scanner", recipient="auditor"))
        assert store.bus.receive("auditor")[0].max_attempts == 2

    works, text = AgenticHook("server").test_connection()
    assert works
    assert ":***@" in text
    ended = agentic("messages", "stats", "--conn-id", "server", "-o", "json")
    assert ended.json[0]["leased"] == 1
    assert _PASSWORD not in text


def test_a_connection_of_its_own_type_names_the_store_too(
    agentic: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = make_url(url)
    options = dict(parsed.query)
    connection = {
        "conn_type": "postgres",
        "host": parsed.host or options.pop("host", None),
        "port": parsed.port,
        "login": parsed.username,
        "password": parsed.password,
        "schema": parsed.database,
        "extra": {**options, "cursor": "dictcursor"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SERVER", json.dumps(connection))
    open_store(url).close()

    sent = agentic("messages", "send", "box", "--source", "a", "--data", "1", "--conn-id", "server")

    assert sent.code == 0
    assert _PASSWORD not in sent.out + sent.err
    with open_store(url) as store:
        assert store.bus.stats("box").ready == 1


def test_a_password_among_the_options_of_the_url_is_not_shown_either(agentic: Run) -> None:
    ended = agentic("db", "check", "--store-url", f"postgresql://ana@127.0.0.1:1/db?password={_PASSWORD}")

    assert ended.code == 1
    assert "password=***" in ended.err
    assert _PASSWORD not in ended.out + ended.err


def test_an_older_schema_is_told_without_the_password(on_server: Run, url: str) -> None:
    database = schema.connect(url)
    schema.upgrade(database, "0001")
    database.close()

    assert "has schema 0001" in on_server("db", "check").err
    assert "has schema 0001" in on_server("messages", "stats").err


def test_runs_are_listed_checked_moved_and_changed(on_server: Run, url: str, tmp_path: Path) -> None:
    with open_store(url) as store, store.run("triage", key="k", persistence="snapshot") as run:
        run.step("read", lambda: 1)
        run.emit({"n": 1})

    assert on_server("runs", "list", "--status", "finished", "-o", "json").json[0]["key"] == "k"
    assert "1 done" in on_server("runs", "show", "k").out
    assert on_server("runs", "verify", "--all").code == 0
    assert on_server("runs", "export", "k", tmp_path / "k.zip", "--include-data").code == 0
    assert on_server("runs", "import", tmp_path / "k.zip", "--to", "k2").code == 0
    assert on_server("runs", "set-state", "k2", "--patch", '{"n": 2}', "--reason", "x").code == 0
    assert on_server("runs", "prune", "--whole", "--keep", "1", "--yes", "-o", "json").json["runs"] == 1
    with open_store(url) as store:
        assert [head.stream for head in store.runs.find_all()] == ["k2"]
        assert store.verify("k2") == []
