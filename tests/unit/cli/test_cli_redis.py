"""The commands on a store in Redis. Its URL has a password in it, which nothing may show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis_server
from commandline import Ended, Run

from airflow_agentic.messaging import Kind, Message
from airflow_agentic.resilience import Breaker, Budget, Policy, RateLimit
from airflow_agentic.stores import Store, open_store

_PASSWORD = "hunter2"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with redis_server.private(folder) as server:
        with redis_server.client(server.url) as client:
            client.acl_setuser("ana", enabled=True, passwords=[f"+{_PASSWORD}"], keys="*", commands=["+@all"])
        yield server.url.replace("://", f"://ana:{_PASSWORD}@")


@pytest.fixture
def url_of_one(url: str, request: pytest.FixtureRequest) -> str:
    return f"{url}?prefix={abs(hash(request.node.name))}"


@pytest.fixture
def store(url_of_one: str) -> Iterator[Store]:
    with open_store(url_of_one, owner="worker-1:42") as opened:
        yield opened


@pytest.fixture
def on_server(agentic: Run, url_of_one: str) -> Run:
    def run(*words: object) -> Ended:
        ended = agentic(*words, "--store-url", url_of_one)
        assert _PASSWORD not in ended.out + ended.err
        return ended

    return run


def test_guards_are_shown_and_set_by_hand(on_server: Run, store: Store) -> None:
    policy = Policy(breaker=Breaker(), limits=RateLimit(rate=5), budget=Budget(calls=1))
    store.guard(policy, "conn:primary").call(lambda: None)

    assert on_server("breakers", "trip", "conn:primary", "--reason", "x").code == 0
    assert on_server("breakers", "list", "-o", "json").json[0]["state"] == "forced_open"
    assert on_server("limits", "list", "-o", "json").json[0]["key"] == "conn:primary"
    assert on_server("budgets", "list", "-o", "json").json[0]["exceeded"] == ["calls"]


def test_messages_are_sent_shown_and_traced(on_server: Run, store: Store) -> None:
    on_server("routes", "subscribe", "triage", "--topic", "orders.#")
    sent = on_server(
        "messages", "send", "--topic", "orders.new", "--source", "ana", "--data", "1", "-o", "json"
    )
    store.bus.receive("triage")[0].ack()

    assert sent.json["mailboxes"] == ["triage"]
    assert (
        on_server("messages", "show", sent.json["id"], "-o", "json").json["deliveries"][0]["state"] == "done"
    )
    assert "by worker-1:42" in on_server("messages", "trace", sent.json["id"]).out
    assert on_server("messages", "stats", "-o", "json").json[0]["done"] == 1
    assert on_server("messages", "purge", "-o", "json").json["forgotten"] == 0


def test_dead_letters_are_listed_and_redriven(on_server: Run, store: Store) -> None:
    store.bus.send_many(Message(source="shop", recipient="box", data=n) for n in range(3))
    for delivery in store.bus.receive("box", max_messages=3):
        delivery.reject("no use")

    redriven = on_server(
        "dead-letters", "redrive", "--filter", "msg.data > 0", "--reason", "again", "-o", "json"
    )

    assert [record["message"]["data"] for record in redriven.json] == [1, 2]
    assert [record["message"]["data"] for record in on_server("dead-letters", "list", "-o", "json").json] == [
        0
    ]


def test_routes_and_heartbeats_are_listed(on_server: Run, store: Store) -> None:
    store.bus.subscribe("triage", "orders.#")
    store.bus.send(Message(source="scanner", kind=Kind.HEARTBEAT))

    assert [each["mailbox"] for each in on_server("routes", "list", "-o", "json").json] == ["triage"]
    assert on_server("routes", "explain", "--topic", "orders.x", "-o", "json").json[0]["gets_it"] is True
    assert [each["source"] for each in on_server("heartbeats", "list", "-o", "json").json] == ["scanner"]


def test_a_schema_is_nothing_that_it_has(on_server: Run) -> None:
    ended = on_server("db", "check")

    assert ended.code == 1
    assert "has no schema" in ended.err
    assert "redis://ana:***@127.0.0.1" in ended.err


def test_an_airflow_connection_of_its_own_type_names_it(
    agentic: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(url.rpartition(":")[2].partition("/")[0])
    connection = {
        "conn_type": "redis",
        "host": "127.0.0.1",
        "port": port,
        "login": "ana",
        "password": _PASSWORD,
    }
    monkeypatch.setenv("AIRFLOW_CONN_SERVER", json.dumps(connection))

    sent = agentic(
        "messages", "send", "box", "--source", "ana", "--data", "1", "--conn-id", "server", "-o", "json"
    )
    found = agentic("messages", "peek", "box", "--conn-id", "server", "-o", "json")

    assert [record["message"]["id"] for record in found.json] == [sent.json["id"]]
    assert _PASSWORD not in sent.err + found.err


def test_runs_are_listed_checked_moved_and_changed(on_server: Run, store: Store, tmp_path: Path) -> None:
    with store.run("triage", key="k", persistence="snapshot") as run:
        run.step("read", lambda: 1)
        run.emit({"n": 1})

    assert on_server("runs", "list", "--status", "finished", "-o", "json").json[0]["key"] == "k"
    assert "1 done" in on_server("runs", "show", "k").out
    assert on_server("runs", "verify", "--all").code == 0
    assert on_server("runs", "export", "k", tmp_path / "k.zip", "--include-data").code == 0
    assert on_server("runs", "import", tmp_path / "k.zip", "--to", "k2").code == 0
    assert on_server("runs", "set-state", "k2", "--patch", '{"n": 2}', "--reason", "x").code == 0
    assert on_server("runs", "prune", "--whole", "--keep", "1", "--yes", "-o", "json").json["runs"] == 1
    assert [head.stream for head in store.runs.find_all()] == ["k2"]
    assert store.verify("k2") == []
