"""The real ``airflow`` command, in a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_agentic.messaging import Message
from airflow_agentic.stores import Store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "dags").mkdir(parents=True)
    return home


def _airflow(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _python(home, "-m", "airflow", "agentic", *words)


def _python(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return subprocess.run(
        [sys.executable, *words],
        env={**environment, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        timeout=100,
    )


def test_a_named_store_needs_no_metadata_database_and_stdout_is_json(home: Path, store: Store) -> None:
    store.bus.send(Message(source="cron", recipient="inbox", data={"n": 1}))

    done = _airflow(home, "messages", "peek", "inbox", "--store-url", store.url, "-o", "json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["message"]["data"] == {"n": 1}
    assert not (home / "airflow.db").exists()
    assert not (home / "agentic.db").exists()


def test_without_a_metadata_database_the_way_out_is_named(home: Path) -> None:
    done = _airflow(home, "messages", "stats")

    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "no such table: connection" in done.stderr
    assert f"--store-url sqlite:///{home}/agentic.db" in done.stderr
    assert not (home / "agentic.db").exists()


def test_a_connection_in_the_metadata_database_is_found_and_logs_stay_out_of_json(
    home: Path, store: Store
) -> None:
    store.bus.send(Message(source="cron", recipient="inbox"))
    # Airflow's own migration takes ten times as long, and two tables are enough.
    made = _python(
        home,
        "-c",
        "from airflow import settings; from airflow.models import Connection\n"
        "from airflow.models.team import Team; from airflow.utils.session import create_session\n"
        "Connection.metadata.create_all(settings.engine, [Team.__table__, Connection.__table__])\n"
        "with create_session() as session:\n"
        f"    session.add(Connection('agentic_default', 'agentic', extra={{'url': {store.url!r}}}))",
    )
    assert made.returncode == 0, made.stderr

    done = _airflow(home, "messages", "stats", "-o", "json", "-v")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["mailbox"] == "inbox"
