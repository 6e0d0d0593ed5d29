"""What only a real file can show: its clock, its locks, its limits, and several users at once."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from airflow_agentic.errors import StaleLease, StoreError, StoreNotWritable, StoreUnavailable
from airflow_agentic.messaging import BusOptions, DeliveryState, Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores import open_store
from airflow_agentic.stores.sql import sqlite as database_module

SHORT = timedelta(milliseconds=60)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agentic.db"


@pytest.fixture
def store(path):
    with open_store(
        f"sqlite:///{path}", options=BusOptions(max_attempts=2, poll=timedelta(milliseconds=10))
    ) as opened:
        yield opened


@pytest.fixture
def other(path, store):
    """A second user of the same file, who does not ask us first."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    yield connection
    connection.close()


def message(data=None, box="box", **values):
    return Message(source="test", recipient=box, data=data, **values)


class TestClock:
    def test_times_are_the_time_of_day_in_utc(self, store):
        before = datetime.now(UTC) - timedelta(seconds=1)
        store.bus.send(message())
        [found] = store.bus.find(DeliveryQuery())
        assert before < found.updated_at < datetime.now(UTC) + timedelta(seconds=1)
        assert found.updated_at.tzinfo is UTC

    def test_a_lease_really_ends(self, store):
        store.bus.send(message())
        [first] = store.bus.receive("box", lease=SHORT)
        assert store.bus.receive("box") == []
        time.sleep(0.07)
        with pytest.raises(StaleLease):
            first.ack()
        [second] = store.bus.receive("box", lease=SHORT)
        assert second.attempt == 2
        time.sleep(0.07)
        assert store.bus.receive("box") == []
        assert store.bus.stats("box").dead == 1

    def test_a_lease_that_is_extended_does_not_end(self, store):
        store.bus.send(message())
        [delivery] = store.bus.receive("box", lease=SHORT)
        delivery.extend(timedelta(seconds=30))
        time.sleep(0.07)
        delivery.ack()
        assert store.bus.stats("box").done == 1

    def test_a_delay_really_ends(self, store):
        store.bus.send(message(), delay=SHORT)
        assert store.bus.receive("box") == []
        assert store.bus.receive("box", wait=timedelta(seconds=5))


class TestDisk:
    def test_a_commit_waits_for_the_disk(self, store):
        database = store.agents._db
        assert database.fetch("PRAGMA synchronous")[0][0] == 2
        assert database.fetch("PRAGMA journal_mode")[0][0] == "wal"
        assert database.fetch("PRAGMA foreign_keys")[0][0] == 1

    def test_what_is_sent_is_seen_by_others_when_send_returns(self, store, other):
        store.bus.send(message())
        assert other.execute("SELECT count(*) FROM agentic_message").fetchone() == (1,)

    def test_a_full_disk_is_told_and_nothing_is_half_done(self, store):
        database = store.agents._db
        pages = database.fetch("PRAGMA page_count")[0][0]
        database.execute(f"PRAGMA max_page_count={pages + 20}")
        sent = []

        def fill():
            while len(sent) < 200:
                store.bus.send_many([message("x" * 4_000), message("y" * 4_000)])
                sent.append(2)

        with pytest.raises(StoreNotWritable, match="full"):
            fill()
        assert store.bus.stats("box").total == sum(sent) > 0
        database.execute("PRAGMA max_page_count=1000000")
        assert store.bus.send(message()), "the store did not recover"
        assert store.bus.stats("box").total == sum(sent) + 1

    def test_a_commit_that_fails_leaves_no_transaction_open(self, store, other):
        database = store.agents._db

        def commit_an_orphan():
            with database.transaction():
                database.execute("PRAGMA defer_foreign_keys=ON")
                database.execute(
                    "INSERT INTO agentic_delivery"
                    " (message_seq, mailbox, state, visible_at, max_attempts, updated_at)"
                    " VALUES (999, 'box', 'ready', 0, 5, 0)"
                )

        with pytest.raises(StoreError, match="FOREIGN KEY"):
            commit_an_orphan()
        store.bus.send(message())
        assert other.execute("SELECT count(*) FROM agentic_delivery").fetchone() == (1,)

    def test_an_error_inside_a_transaction_undoes_all_of_it(self, store):
        database = store.agents._db

        def fail_halfway():
            with database.transaction():
                database.execute("INSERT INTO agentic_agent (name, agent_type) VALUES ('a', 'b')")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_halfway()
        assert database.fetch("SELECT * FROM agentic_agent") == []

    def test_a_state_that_does_not_exist_cannot_be_stored(self, store):
        store.bus.send(message())
        with pytest.raises(StoreError, match="refused a statement"):
            store.agents._db.execute("UPDATE agentic_delivery SET state = 'lost'")


class TestForeignRows:
    """What somebody else wrote into the tables by SQL."""

    def write(self, other, envelope):
        other.execute(
            "INSERT INTO agentic_message (message_id, source, correlation_id, created_at, envelope)"
            " VALUES ('m-1', 'them', 'c-1', 0, ?)",
            (envelope,),
        )
        other.execute(
            "INSERT INTO agentic_delivery (message_seq, mailbox, state, visible_at, max_attempts, updated_at)"
            " VALUES (last_insert_rowid(), 'box', 'ready', 0, 5, 0)"
        )

    def test_a_cloud_event_of_somebody_else_is_received(self, store, other):
        self.write(
            other,
            b'{"specversion":"1.0","id":"m-1","source":"them","type":"t","recipient":"box","data":{"a":1},'
            b'"unknownextension":true}',
        )
        [delivery] = store.bus.receive("box")
        assert delivery.message.data == {"a": 1}
        assert delivery.message.source == "them"

    @pytest.mark.parametrize(
        "envelope",
        [b"\x00\x01", b'{"specversion":"1.0","agenticcodec":999,"id":"1","source":"s","type":"t"}', "text"],
    )
    def test_what_cannot_be_read_is_put_aside_with_the_reason(self, store, other, envelope):
        self.write(other, envelope)
        assert store.bus.receive("box") == []
        [dead] = store.bus.dead_letters()
        assert dead.message is None
        assert dead.reason
        assert dead.state is DeliveryState.DEAD


class TestBusy:
    def test_a_store_that_stays_locked_is_unavailable_and_a_retry_may_help(self, path, monkeypatch):
        monkeypatch.setattr(database_module, "_BUSY_SECONDS", 0.05)
        with open_store(f"sqlite:///{path}") as store:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked") as caught:
                store.bus.send(message())
            assert caught.value.retry_helps
            assert store.bus.stats("box").total == 0, "reading must not wait for a writer"
            other.execute("ROLLBACK")
            other.close()
            assert store.bus.send(message())

    def test_a_short_lock_is_waited_for(self, store, other):
        other.execute("BEGIN IMMEDIATE")
        unlock = threading.Timer(0.1, other.execute, ["ROLLBACK"])
        unlock.start()
        assert store.bus.send(message())
        unlock.join()

    def test_an_interrupt_while_it_waits_leaves_the_store_usable(self, store, other):
        """As Ctrl-C or a task's timeout does it: the runner gives its messages back afterwards."""
        store.bus.send(message("held"))
        [held] = store.bus.receive("box")
        other.execute("BEGIN IMMEDIATE")
        unlock = threading.Timer(0.15, other.execute, ["ROLLBACK"])

        def interrupt(*_):
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGALRM, interrupt)
        try:
            unlock.start()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                store.bus.send_many([message("one"), message("two")])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            unlock.join()
        held.release()
        stats = store.bus.stats("box")
        assert (stats.ready, stats.total) == (1, 1)
        assert store.agents._db.fetch("PRAGMA synchronous")[0][0] == 2


OPEN_AT_ONCE = """
import sys
from airflow_agentic.messaging import Message
from airflow_agentic.stores import migrations, open_store, sql  # imported before the start

for line in sys.stdin:
    with open_store(line.strip()) as store:
        store.bus.send(Message(source="process", recipient="box", id=sys.argv[1]))
    print("done", flush=True)
"""


class TestTogether:
    def test_processes_that_open_one_new_store_at_once_all_succeed(self, path):
        command = [sys.executable, "-W", "error", "-c", OPEN_AT_ONCE]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        processes = [subprocess.Popen([*command, str(i)], text=True, **pipes) for i in range(4)]
        urls = [f"sqlite:///{path}-{turn}" for turn in range(25)]
        for url in urls:
            for process in processes:
                process.stdin.write(f"{url}\n")
                process.stdin.flush()
            answers = [process.stdout.readline() for process in processes]
            if answers != ["done\n"] * 4:
                break
        errors = [process.communicate(timeout=60)[1] for process in processes]
        assert errors == [""] * 4
        for url in urls:
            with open_store(url) as store:
                assert store.bus.stats("box").ready == 4

    def test_threads_share_one_store(self, store):
        """Four send, four receive; every message is handled once."""
        handled, per_thread, all_sent = [], 30, threading.Event()

        def send(name):
            for i in range(per_thread):
                store.bus.send(message(f"{name}-{i}"))

        def receive(_name):
            while not (all_sent.is_set() and store.bus.stats("box").open == 0):
                for delivery in store.bus.receive("box", max_messages=3):
                    handled.append(delivery.message.data)
                    delivery.ack(send=[message(delivery.message.data, box="done")])

        with ThreadPoolExecutor(8) as pool:
            receiving = [pool.submit(receive, name) for name in "abcd"]
            sending = [pool.submit(send, name) for name in "abcd"]
            for future in sending:
                future.result(timeout=30)
            all_sent.set()
            for future in receiving:
                future.result(timeout=30)
        assert len(handled) == len(set(handled)) == 4 * per_thread
        assert store.bus.stats("box").done == store.bus.stats("done").ready == 4 * per_thread

    def test_two_stores_on_one_file_see_each_other(self, path, store):
        with open_store(f"sqlite:///{path}") as second:
            store.bus.send(message("hello"))
            [delivery] = second.bus.receive("box")
            assert store.bus.receive("box") == []
            delivery.ack()
            assert store.bus.stats("box").done == 1


def test_a_signal_handler_in_the_middle_of_a_transaction_does_not_end_it(store, other):
    database = store.agents._db
    said = []

    def handler(_number, _frame):
        try:
            store.bus.send_many([Message(source="handler", recipient="box")])
        except StoreUnavailable as error:
            said.append(str(error))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with database.transaction():
            database.execute("UPDATE agentic_delivery SET reason = 'first' WHERE 1 = 0")
            signal.raise_signal(signal.SIGUSR1)
            database.execute(
                "INSERT INTO agentic_message (message_id, source, correlation_id, created_at, envelope)"
                " VALUES ('m', 's', 'c', 0, '')"
            )
            assert other.execute("SELECT count(*) FROM agentic_message").fetchone() == (0,)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert said == ["the store is busy: a transaction of this thread was interrupted"]
    assert other.execute("SELECT message_id FROM agentic_message").fetchall() == [("m",)]
    assert store.bus.send(Message(source="later", recipient="box"))
