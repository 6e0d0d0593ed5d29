from __future__ import annotations

import json
import os
import sqlite3
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from commandline import Run

from airflow_agentic.cli import access
from airflow_agentic.cli.command import command, recorded
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging import Message
from airflow_agentic.stores import Store


def _args(conn_id: str | None = None, store_url: str | None = None) -> Namespace:
    return Namespace(conn_id=conn_id, store_url=store_url, verbose=False)


def _connect(monkeypatch: pytest.MonkeyPatch, conn_id: str, url: str, conn_type: str = "agentic") -> None:
    monkeypatch.setenv(
        f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": conn_type, "extra": {"url": url}})
    )


@pytest.fixture
def metadata_database(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Airflow's metadata database; it answers unless ``problem`` is set."""
    answer: dict[str, str | None] = {"problem": None}
    monkeypatch.setattr(access, "_metadata_problem", lambda _conn_id: answer["problem"])
    return answer


def test_a_connection_names_the_store(agentic: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.bus.send(Message(source="cron", recipient="inbox"))
    _connect(monkeypatch, "agentic_default", store.url)
    _connect(monkeypatch, "night_shift", store.url)

    assert agentic("messages", "stats", "-o", "json").json[0]["mailbox"] == "inbox"
    assert (
        agentic("messages", "stats", "--conn-id", "night_shift", "-o", "json").json[0]["mailbox"] == "inbox"
    )


def test_hints_are_about_the_same_connection(
    agentic: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _connect(monkeypatch, "night_shift", store.url)

    ended = agentic("dead-letters", "show", 1, "--conn-id", "night_shift")

    assert "`airflow agentic dead-letters list --conn-id night_shift`" in ended.err


def test_a_connection_in_the_environment_needs_no_metadata_database(
    store: Store, monkeypatch: pytest.MonkeyPatch, metadata_database: dict[str, str | None]
) -> None:
    metadata_database["problem"] = "connection refused"
    _connect(monkeypatch, "agentic_default", store.url)

    assert access.find_target(_args()).url == store.url


def test_without_a_metadata_database_no_default_store_is_guessed(
    monkeypatch: pytest.MonkeyPatch, metadata_database: dict[str, str | None]
) -> None:
    metadata_database["problem"] = "no such table: connection"
    monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", "sqlite:////srv/agentic.db")

    with pytest.raises(ConfigurationError) as caught:
        access.find_target(_args())

    text = str(caught.value)
    assert "no such table: connection" in text
    assert "airflow db migrate" in text
    assert "--store-url sqlite:////srv/agentic.db" in text


def test_with_a_metadata_database_the_default_is_the_configured_store(
    monkeypatch: pytest.MonkeyPatch, metadata_database: dict[str, str | None]
) -> None:
    monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", "sqlite:////srv/agentic.db")

    assert access.find_target(_args()).origin == "[agentic] store_url"


@pytest.mark.parametrize(
    ("problem", "says"), [(None, "there is no connection 'nope'"), ("refused", "does not answer (refused)")]
)
def test_an_unknown_connection_and_an_unknowable_one_are_told_apart(
    metadata_database: dict[str, str | None], problem: str | None, says: str
) -> None:
    metadata_database["problem"] = problem

    with pytest.raises(ConfigurationError, match="nope") as caught:
        access.find_target(_args(conn_id="nope"))

    assert says in str(caught.value)


def test_a_connection_of_another_type_is_refused(
    monkeypatch: pytest.MonkeyPatch, metadata_database: dict[str, str | None]
) -> None:
    _connect(monkeypatch, "web", "x", conn_type="http")

    with pytest.raises(ConfigurationError, match="of type 'http'"):
        access.find_target(_args(conn_id="web"))


def test_two_stores_at_once_are_refused(agentic: Run) -> None:
    ended = agentic("messages", "stats", "--conn-id", "a", "--store-url", "memory://")

    assert ended.code == 1
    assert "give one of them" in ended.err


def test_the_lookup_leaves_the_process_as_it_was(
    monkeypatch: pytest.MonkeyPatch, metadata_database: dict[str, str | None]
) -> None:
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT", raising=False)
    access.find_target(_args())
    assert "_AIRFLOW_PROCESS_CONTEXT" not in os.environ

    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    access.find_target(_args())
    assert os.environ["_AIRFLOW_PROCESS_CONTEXT"] == "client"


@pytest.mark.parametrize(
    "words",
    [
        ["messages", "stats"],
        ["messages", "send", "inbox", "--source", "ana", "--data", "1"],
        ["dead-letters", "redrive", "1", "--reason", "x"],
        ["agents", "list"],
    ],
)
def test_a_mistyped_path_makes_no_store(agentic: Run, tmp_path: Path, words: list[str]) -> None:
    ended = agentic(*words, "--store-url", f"sqlite:///{tmp_path}/typo.db")

    assert ended.code == 1
    assert "there is no store at" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_first_message_makes_the_configured_store(
    agentic: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _connect(monkeypatch, "agentic_default", f"sqlite:///{tmp_path}/first.db")

    assert agentic("messages", "send", "inbox", "--source", "ana", "--data", "1").code == 0
    assert (tmp_path / "first.db").is_file()


def test_a_database_of_somebody_else_gets_no_tables(agentic: Run, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE theirs (id INTEGER)")

    ended = agentic("messages", "stats", "--store-url", f"sqlite:///{tmp_path}/other.db")

    assert ended.code == 1
    assert "has no tables of this provider" in ended.err
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    other.close()


def test_a_file_that_is_no_database_is_named(agentic: Run, tmp_path: Path) -> None:
    (tmp_path / "junk.db").write_text("not a database, by far" * 100)

    ended = agentic("messages", "stats", "--store-url", f"sqlite:///{tmp_path}/junk.db")

    assert ended.code == 1
    assert "is not a store" in ended.err
    assert "Traceback" not in ended.err


def test_what_people_change_is_entered_in_airflows_audit_log() -> None:
    from airflow.utils import cli_action_loggers

    entered: list[dict[str, Any]] = []
    cli_action_loggers.register_pre_exec_callback(lambda **entry: entered.append(entry))
    ran: list[Namespace] = []

    @command
    @recorded
    def change(args: Namespace) -> None:
        ran.append(args)

    change(_args())
    assert [entry["sub_command"] for entry in entered] == ["change"]
    change(_args(store_url="memory://"))
    assert len(entered) == 1
    assert len(ran) == 2
