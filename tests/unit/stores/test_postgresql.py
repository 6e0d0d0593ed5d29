"""What only a real server can show: its clock, lost connections, and many users at once."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import postgres
import psycopg
import pytest

from airflow_agentic.errors import (
    InvalidOption,
    SchemaTooNew,
    SchemaTooOld,
    StaleLease,
    StoreNotWritable,
    StoreUnavailable,
)
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores import open_store
from airflow_agentic.stores.sql import connect, schema
from airflow_agentic.stores.sql.dialects import POSTGRESQL
from airflow_agentic.stores.sql.statements import statements_of

SHORT = timedelta(milliseconds=80)
OPTIONS = BusOptions(max_attempts=2, poll=timedelta(milliseconds=10))


@pytest.fixture
def store(url):
    with open_store(f"{url}&application_name=agentic_here", options=OPTIONS) as opened:
        yield opened


@pytest.fixture
def other(name):
    """A second user of the same tables, who does not ask us first."""
    with psycopg.connect(postgres.server(), options=f"-csearch_path={name}", autocommit=True) as connection:
        yield connection


def message(data=None, box="box", **values):
    return Message(source="test", recipient=box, data=data, **values)


class TestUrls:
    def test_the_driver_may_be_named(self, url):
        with open_store(url.replace("postgresql:", "postgresql+psycopg:")) as store:
            assert store.bus.send(message())

    def test_options_are_those_of_the_driver(self, store, name):
        assert store.agents._db.fetch("SELECT current_schema(), current_setting('application_name')") == [
            (name, "agentic_here")
        ]

    def test_another_driver_is_refused(self):
        with pytest.raises(
            InvalidOption, match=r"no store of kind 'postgresql\+psycopg2'.*postgresql://user@host"
        ):
            open_store("postgresql+psycopg2://host/db")

    def test_without_the_driver_it_says_what_to_install(self, url):
        code = (
            "import sys; sys.modules['psycopg'] = None\n"
            "from airflow_agentic.stores import open_store\n"
            "from airflow_agentic.errors import InvalidOption\n"
            f"try: open_store({url!r})\n"
            "except InvalidOption as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "pip install 'airflow-provider-agentic[postgres]'" in done.stdout

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://ana:hunter2@127.0.0.1:1/db",
            "postgresql://ana@127.0.0.1:1/db?password=hunter2",
        ],
    )
    def test_a_server_that_does_not_answer_is_unavailable_and_no_password_is_shown(self, url):
        with pytest.raises(StoreUnavailable) as caught:
            open_store(url)
        assert caught.value.retry_helps
        assert "***" in str(caught.value)
        seen = [caught.value, caught.value.__cause__, caught.value.__cause__.__cause__]
        assert "hunter2" not in " ".join(f"{error} {error!r}" for error in seen)

    def test_an_option_that_the_driver_does_not_know_is_refused(self):
        with pytest.raises(InvalidOption, match=r"ana:\*\*\*@.*nonsense") as caught:
            open_store("postgresql://ana:hunter2@127.0.0.1:1/db?nonsense=1")
        assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"

    def test_an_open_store_shows_no_password(self, url):
        with open_store(url.replace("postgres@", "postgres:hunter2@", 1)) as store:
            assert "hunter2" not in f"{store!r} {store.url} {store}"
            assert "postgres:***@" in store.url


class TestClock:
    def test_times_are_those_of_the_server_in_utc(self, store):
        store.agents._db.execute("SET timezone = 'Asia/Kathmandu'")
        store.bus.send(message())
        [found] = store.bus.find(DeliveryQuery())
        assert abs(found.updated_at - datetime.now(UTC)) < timedelta(seconds=2)

    def test_a_lease_really_ends(self, store):
        store.bus.send(message())
        [first] = store.bus.receive("box", lease=SHORT)
        assert store.bus.receive("box") == []
        time.sleep(0.09)
        with pytest.raises(StaleLease):
            first.ack()
        [second] = store.bus.receive("box", lease=SHORT)
        assert second.attempt == 2
        time.sleep(0.09)
        assert store.bus.receive("box") == []
        assert store.bus.stats("box").dead == 1

    def test_a_commit_waits_for_the_disk_and_a_wait_for_a_lock_ends(self, url):
        with open_store(f"{url}%20-csynchronous_commit%3Doff") as store:
            [row] = store.agents._db.fetch(
                "SELECT current_setting('synchronous_commit'), current_setting('lock_timeout')"
            )
            assert tuple(row) == ("on", "30s")


class TestSchema:
    def test_processes_that_open_one_new_store_at_once_all_succeed(self):
        postgres.require()
        code = (
            "import sys\n"
            "from airflow_agentic.messaging import Message\n"
            "from airflow_agentic.stores import migrations, open_store, sql\n"
            "for line in sys.stdin:\n"
            "    with open_store(line.strip()) as store:\n"
            "        store.bus.send(Message(source='process', recipient='box', id=sys.argv[1]))\n"
            "    print('done', flush=True)\n"
        )
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        processes = [
            subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(i)], text=True, **pipes)
            for i in range(3)
        ]
        for _ in range(10):
            with postgres.schema() as name:
                for process in processes:
                    process.stdin.write(f"{postgres.url_of(name)}\n")
                    process.stdin.flush()
                answers = [process.stdout.readline() for process in processes]
                if answers != ["done\n"] * 3:
                    break
                with open_store(postgres.url_of(name)) as store:
                    assert store.bus.stats("box").ready == 3
        assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 3

    def test_an_older_store_is_refused_and_can_be_upgraded(self, url):
        database = connect(url)
        schema.upgrade(database, "0001")
        with pytest.raises(SchemaTooOld, match="has schema 0001"):
            open_store(url)
        schema.upgrade(database)
        assert schema.current(database) == schema.HEAD
        database.close()
        open_store(url).close()

    def test_a_newer_store_is_refused(self, url, other):
        open_store(url).close()
        other.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
        with pytest.raises(SchemaTooNew, match="has schema 9999"):
            open_store(url)

    def test_the_tables_of_a_schema_that_is_searched_later_are_not_ours(self, url, name):
        open_store(url).close()
        with postgres.schema() as mine, open_store(postgres.url_of(mine, name)) as store:
            store.bus.send(message())
            assert postgres.query(f"SELECT count(*) FROM {mine}.agentic_message") == [(1,)]
            assert postgres.query(f"SELECT count(*) FROM {name}.agentic_message") == [(0,)]

    def test_a_schema_that_does_not_exist_is_told(self):
        postgres.require()
        with pytest.raises(StoreNotWritable, match="Create the schema that search_path names"):
            open_store(postgres.url_of("agentic_test_missing"))

    def test_a_server_that_takes_no_writes_is_told(self, url):
        open_store(url).close()
        with (
            open_store(f"{url}%20-cdefault_transaction_read_only%3Don") as store,
            pytest.raises(StoreNotWritable, match="read-only"),
        ):
            store.bus.send(message())

    @pytest.mark.parametrize(
        ("statement", "index"),
        [
            (statements_of(POSTGRESQL).claim, "agentic_delivery_claim"),
            (statements_of(POSTGRESQL).settle["ack"], "agentic_delivery_pkey"),
            (statements_of(POSTGRESQL).find.format(where="m.message_id = 'm'"), "agentic_message_identity"),
        ],
        ids=["claim", "ack", "find by id"],
    )
    def test_the_queries_of_every_message_read_an_index(self, store, statement, index):
        database = store.agents._db
        database.execute(
            "INSERT INTO agentic_message (message_id, source, correlation_id, created_at, envelope)"
            " SELECT CAST(n AS TEXT), 's', 'c', 0, '' FROM generate_series(1, 5000) n"
        )
        database.execute(
            "INSERT INTO agentic_delivery (message_seq, mailbox, state, visible_at, max_attempts, updated_at)"
            " SELECT seq, 'x', 'ready', 9e15, 5, 0 FROM agentic_message"
        )
        database.execute("ANALYZE agentic_message, agentic_delivery")
        values = {"mailbox": "x", "limit": 1, "lease": 1, "owner": "me", "id": 1, "token": "t"}
        plan = "\n".join(row[0] for row in database.fetch(f"EXPLAIN {statement}", values))
        assert index in plan
        assert "Seq Scan on agentic_delivery" not in plan
