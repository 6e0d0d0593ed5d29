from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from commandline import Run

from airflow_agentic.stores import open_store
from airflow_agentic.stores.sql import connect, schema


def _at(url: str, revision: str) -> None:
    database = connect(url)
    schema.upgrade(database, revision)
    database.close()


def _set_revision(path: Path, revision: str) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = ?", (revision,))
    database.close()


def test_check_of_a_store_of_this_version_is_content(on_store: Run, store_url: str) -> None:
    ended = on_store("db", "check", "-o", "json")

    assert ended.code == 0
    assert ended.json == [
        {"store": store_url, "origin": "--store-url", "revision": schema.HEAD, "needed": schema.HEAD}
    ]


def test_check_of_an_older_store_says_how_to_upgrade_this_one(agentic: Run, store_url: str) -> None:
    _at(store_url, "0001")

    ended = agentic("db", "check", "--store-url", store_url, "-o", "json")

    assert ended.code == 1
    assert ended.json[0]["revision"] == "0001"
    assert f"`airflow agentic db upgrade --store-url {store_url}`" in ended.err


def test_check_of_a_newer_store_says_to_upgrade_the_package(
    agentic: Run, store_url: str, tmp_path: Path
) -> None:
    open_store(store_url).close()
    _set_revision(tmp_path / "agentic.db", "9999")

    ended = agentic("db", "check", "--store-url", store_url)

    assert ended.code == 1
    assert "Upgrade airflow-provider-agentic" in ended.err


def test_check_makes_no_store(agentic: Run, store_url: str, tmp_path: Path) -> None:
    ended = agentic("db", "check", "--store-url", store_url, "-o", "json")

    assert ended.code == 1
    assert ended.json[0]["revision"] is None
    assert list(tmp_path.iterdir()) == []


def test_upgrade_makes_a_store_and_then_has_nothing_to_do(agentic: Run, store_url: str) -> None:
    first = agentic("db", "upgrade", "--store-url", store_url)
    second = agentic("db", "upgrade", "--store-url", store_url)

    assert first.out == f"created the store {store_url} with schema {schema.HEAD}\n"
    assert second.out == f"the store {store_url} is at schema {schema.HEAD} already: nothing to do\n"


def test_upgrade_says_from_where_to_where(agentic: Run, store_url: str) -> None:
    _at(store_url, "0001")

    ended = agentic("db", "upgrade", "--store-url", store_url)

    assert ended.out == f"upgraded the store {store_url} from schema 0001 to {schema.HEAD}\n"
    open_store(store_url).close()


def test_upgrade_of_a_newer_store_changes_nothing(agentic: Run, store_url: str, tmp_path: Path) -> None:
    open_store(store_url).close()
    _set_revision(tmp_path / "agentic.db", "9999")

    assert agentic("db", "upgrade", "--store-url", store_url).code == 1
    assert "9999" in agentic("db", "check", "--store-url", store_url).out


@pytest.mark.parametrize("url", ["memory://", "mysql://u:s3cret@host/db", "nonsense"])
@pytest.mark.parametrize("command", ["check", "upgrade"])
def test_a_url_without_a_file_is_refused_without_its_password(agentic: Run, url: str, command: str) -> None:
    ended = agentic("db", command, "--store-url", url)

    assert ended.code == 1
    assert "sqlite:////absolute/path/agentic.db" in ended.err
    assert "s3cret" not in ended.err


def test_upgrade_into_a_missing_directory_says_so(agentic: Run, tmp_path: Path) -> None:
    ended = agentic("db", "upgrade", "--store-url", f"sqlite:///{tmp_path}/missing/agentic.db")

    assert ended.code == 1
    assert "does not exist" in ended.err
