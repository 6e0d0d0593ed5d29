from __future__ import annotations

import sqlite3

import pytest

from airflow_agentic.errors import SchemaMismatch, SchemaTooNew, SchemaTooOld
from airflow_agentic.messaging import Message
from airflow_agentic.stores import migrations, open_store
from airflow_agentic.stores.sql import connect, schema
from airflow_agentic.stores.sql.books import CONVERSATION
from airflow_agentic.stores.sql.dialects import SQLITE
from airflow_agentic.stores.sql.statements import statements_of

SQL = statements_of(SQLITE)


def url_of(path):
    return f"sqlite:///{path}"


def tables(path):
    with sqlite3.connect(path) as database:
        rows = database.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
        )
        found = rows.fetchall()
    database.close()
    return found


def set_revision(path, revision):
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = ?", (revision,))
    database.close()


@pytest.fixture
def old(tmp_path):
    """A store as version 0001 made it, with a message in it."""
    path = tmp_path / "old.db"
    database = connect(url_of(path))
    schema.upgrade(database, "0001")
    database.execute(
        "INSERT INTO agentic_message (message_id, source, correlation_id, created_at, envelope)"
        " VALUES ('m-1', 's', 'c', 0, :envelope)",
        {
            "envelope": b'{"specversion":"1.0","id":"m-1","source":"s","type":"t","recipient":"box","data":"kept"}'
        },
    )
    database.execute(
        "INSERT INTO agentic_delivery (message_seq, mailbox, state, visible_at, max_attempts, updated_at)"
        " VALUES (1, 'box', 'ready', 0, 5, 0)"
    )
    database.close()
    return path


def test_this_version_needs_the_newest_revision_there_is_a_step_for():
    assert migrations.head() == schema.HEAD


def test_a_new_store_has_the_newest_revision(tmp_path):
    with open_store(url_of(tmp_path / "new.db")) as store:
        assert store.probe() == schema.HEAD


def test_an_older_store_is_refused_with_the_command_to_run_and_not_touched(old):
    before = tables(old)
    with pytest.raises(SchemaTooOld, match=r"has schema 0001.*airflow agentic db upgrade") as caught:
        open_store(url_of(old))
    assert str(old) in str(caught.value)
    assert tables(old) == before


def test_an_upgrade_keeps_what_is_in_the_store(old):
    database = connect(url_of(old))
    schema.upgrade(database)
    assert schema.current(database) == schema.HEAD
    database.close()
    with open_store(url_of(old)) as store:
        [delivery] = store.bus.receive("box")
        assert delivery.message.data == "kept"


def test_an_upgraded_store_is_like_a_new_one(old, tmp_path):
    database = connect(url_of(old))
    schema.upgrade(database)
    database.close()
    open_store(url_of(tmp_path / "new.db")).close()
    assert tables(old) == tables(tmp_path / "new.db")


def test_an_upgrade_of_an_upgraded_store_does_nothing(tmp_path):
    with open_store(url_of(tmp_path / "new.db")) as store:
        before = tables(tmp_path / "new.db")
        schema.upgrade(store.agents._db)
        assert store.probe() == schema.HEAD
    assert tables(tmp_path / "new.db") == before


def test_an_upgrade_that_fails_halfway_changes_nothing(old, monkeypatch):
    before = tables(old)
    database = connect(url_of(old))
    run = migrations.run_upgrade

    def run_and_fail(*arguments):
        run(*arguments)
        raise OSError("power cut")

    monkeypatch.setattr(migrations, "run_upgrade", run_and_fail)
    with pytest.raises(OSError, match="power cut"):
        schema.upgrade(database)
    database.close()
    assert tables(old) == before


def test_a_newer_store_is_refused_and_not_touched(tmp_path):
    path = tmp_path / "newer.db"
    open_store(url_of(path)).close()
    set_revision(path, "9999")
    with pytest.raises(SchemaTooNew, match=r"has schema 9999.*Upgrade airflow-provider-agentic"):
        open_store(url_of(path))
    database = connect(url_of(path))
    with pytest.raises(SchemaTooNew):
        schema.upgrade(database)
    assert schema.current(database) == "9999"
    database.close()


def test_no_schema_mismatch_is_helped_by_a_retry():
    assert not SchemaMismatch("x").retry_helps


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (SQL.claim, "agentic_delivery_claim"),
        (SQL.find.format(where=CONVERSATION.replace(":correlation_id", "'c'")), "agentic_message_correlation"),
        (SQL.find.format(where="m.message_id = 'm'"), "sqlite_autoindex_agentic_message_1"),
        (SQL.find.format(where="d.mailbox = 'm' AND d.state = 'dead'"), "agentic_delivery_dead"),
        (SQL.dead.format(where="d.mailbox = 'm'"), "agentic_delivery_dead"),
        (SQL.stats_of, "agentic_delivery_done"),
        (SQL.stats_of, "agentic_delivery_lane"),
        (SQL.promote, "agentic_delivery_lane"),
        (SQL.count_open, "agentic_delivery_claim"),
        (SQL.late, "agentic_delivery_expiry"),
    ],
    ids=[
        "claim", "find by conversation", "find by id", "dead letters", "redrive", "stats", "stats of lanes", "lane",
        "depth", "expiry",
    ],
)  # fmt: skip
def test_the_queries_read_an_index_and_never_the_whole_table(tmp_path, statement, index):
    values = dict.fromkeys(("mailbox", "owner", "actor", "reason", "key"), "x") | {"limit": 1, "lease": 1}
    with open_store(url_of(tmp_path / "a.db")) as store:
        store.bus.send(Message(source="s", recipient="a"))
        plan = [row.detail for row in store.agents._db.fetch(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert any(index in step for step in plan), plan
    assert not any(step.startswith("SCAN agentic") for step in plan), plan
