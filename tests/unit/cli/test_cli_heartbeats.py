from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from commandline import Run

from airflow_agentic.messaging import Kind, Message
from airflow_agentic.stores import Store


@pytest.fixture
def hours_pass(tmp_path: Path, store: Store) -> None:
    """Two sources were heard of: one just now, one two hours ago."""
    store.bus.send(Message(source="scanner", kind=Kind.HEARTBEAT, data={"load": 3}))
    database = sqlite3.connect(tmp_path / "agentic.db")
    with database:
        database.execute("UPDATE agentic_heartbeat SET at = at - 7200000, due_at = due_at - 7200000")
    database.close()
    store.bus.send(Message(source="auditor", kind=Kind.HEARTBEAT))


@pytest.mark.usefixtures("hours_pass")
def test_list_shows_who_is_late(on_store: Run) -> None:
    ended = on_store("heartbeats", "list", "-o", "json")
    auditor, scanner = ended.json
    shown = on_store("heartbeats", "list").out

    assert (auditor["source"], auditor["late"]) == ("auditor", False)
    assert (scanner["source"], scanner["late"], scanner["reported"]) == ("scanner", True, False)
    assert scanner["message"]["data"] == {"load": 3}
    assert "1 source of 2 late" in ended.err
    assert "late by 1 h 59 min" in shown
    assert "in 59 s" in shown


@pytest.mark.usefixtures("hours_pass")
def test_list_shows_of_whom_somebody_was_told(on_store: Run, store: Store) -> None:
    assert store.bus.report_late_heartbeats() == ["scanner"]

    assert on_store("heartbeats", "list", "-o", "json").json[1]["reported"] is True


@pytest.mark.usefixtures("hours_pass")
def test_one_of_a_newer_version_is_listed_all_the_same(on_store: Run, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "agentic.db")
    with database:
        newer = b'{"specversion": "1.0", "agenticcodec": 99}'
        database.execute("UPDATE agentic_heartbeat SET envelope = ?", (newer,))
    database.close()

    assert on_store("heartbeats", "list", "-o", "json").json[0]["message"] is None
    assert on_store("heartbeats", "list").out.count("(unreadable)") == 2


def test_without_any_the_list_is_empty(on_store: Run) -> None:
    assert on_store("heartbeats", "list", "-o", "json").json == []
