"""A store on PostgreSQL whose connections are lost, and which many use at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import postgres
import psycopg
import pytest

from airflow_agentic.errors import StoreError, StoreUnavailable
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores import open_store

OPTIONS = BusOptions(max_attempts=2, poll=timedelta(milliseconds=10))


@pytest.fixture
def store(url):
    with open_store(url, options=OPTIONS) as opened:
        yield opened


@pytest.fixture
def other(name, store):
    """A second user of the same tables, who does not ask us first."""
    with psycopg.connect(postgres.server(), options=f"-csearch_path={name}", autocommit=True) as connection:
        yield connection


def message(data=None, box="box", **values):
    return Message(source="test", recipient=box, data=data, **values)


def backend(store):
    return store.agents._db.fetch("SELECT pg_backend_pid()")[0][0]


def cut(pid):
    postgres.query("SELECT pg_terminate_backend(%s)", pid)
    while postgres.query("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid):
        time.sleep(0.005)


def when_it_waits(pid, call):
    """Do something in another thread as soon as that backend waits for a lock."""

    def watch():
        while not postgres.query(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", pid
        ):
            time.sleep(0.005)
        call()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


class TestALostConnection:
    @pytest.mark.parametrize(
        "call",
        [
            lambda store, held: store.bus.send(message()),
            lambda store, held: store.bus.send_many([message(), message()]),
            lambda store, held: store.bus.receive("box"),
            lambda store, held: store.bus.stats("box"),
            lambda store, held: store.agents.list(),
            lambda store, held: held.ack(),
            lambda store, held: held.ack(send=[message()]),
            lambda store, held: held.nack(reason="no"),
            lambda store, held: held.extend(),
            lambda store, held: store.probe(),
        ],
        ids=[
            "send",
            "send many",
            "receive",
            "stats",
            "list",
            "ack",
            "ack and send",
            "nack",
            "extend",
            "probe",
        ],
    )
    def test_that_ended_while_nobody_used_it_is_replaced_unseen(self, store, call):
        store.bus.send(message())
        [held] = store.bus.receive("box")
        cut(backend(store))
        call(store, held)

    def test_in_the_middle_of_a_settlement_is_told_and_the_next_call_has_a_new_one(self, store, other):
        store.bus.send(message())
        [held] = store.bus.receive("box")
        pid = backend(store)
        with other.transaction():
            other.execute("SELECT 1 FROM agentic_delivery FOR UPDATE")
            ending = when_it_waits(pid, lambda: cut(pid))
            with pytest.raises(StoreUnavailable, match="terminating connection") as caught:
                held.ack()
            ending.join()
        assert caught.value.retry_helps
        assert store.bus.stats("box").leased == 1
        held.ack()
        assert store.bus.stats("box").done == 1

    def test_in_the_middle_of_a_transaction_undoes_all_of_it(self, store, other):
        store.bus.send_many([message(1), message(2)])
        first, second = store.bus.receive("box", max_messages=2)
        pid = backend(store)
        with other.transaction():
            other.execute("SELECT 1 FROM agentic_delivery WHERE delivery_id = 2 FOR UPDATE")
            ending = when_it_waits(pid, lambda: cut(pid))
            with pytest.raises(StoreUnavailable):
                store.bus.ack(first, second, send=[message(box="next")])
            ending.join()
        assert (store.bus.stats("box").leased, store.bus.stats("next").total) == (2, 0)
        store.bus.ack(first, second, send=[message(box="next")])
        assert (store.bus.stats("box").done, store.bus.stats("next").total) == (2, 1)

    def test_in_the_middle_of_a_claim_is_not_seen_at_all(self, store, other):
        store.bus.send(message())
        pid = backend(store)
        with other.transaction():
            other.execute("LOCK TABLE agentic_delivery IN ACCESS EXCLUSIVE MODE")
            ending = when_it_waits(pid, lambda: (cut(pid), release.set()))
            release = threading.Event()
            with ThreadPoolExecutor(1) as pool:
                # The fresh connection waits for the table too: until it is unlocked.
                unlock = pool.submit(lambda: (release.wait(10), other.execute("COMMIT")))
                [held] = store.bus.receive("box")
                unlock.result()
            ending.join()
        assert held.attempt == 1

    def test_is_replaced_as_soon_as_the_server_is_back(self):
        with postgres.database() as name, open_store(postgres.url_of_database(name)) as store:
            store.bus.send(message())
            postgres.query(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            cut(backend(store))
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="cannot use the store"):
                    store.bus.receive("box")
                with pytest.raises(StoreUnavailable, match="cannot use the store"):
                    store.bus.send_many([message(), message()])
            postgres.query(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            [held] = store.bus.receive("box")
            held.ack()
            assert store.bus.stats("box").total == 1

    def test_by_an_interrupt_leaves_the_store_usable(self, store, other):
        """As Ctrl-C or a task's timeout does it: the runner gives its messages back afterwards."""
        store.bus.send(message())
        [held] = store.bus.receive("box")

        def interrupt(*_):
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGALRM, interrupt)
        try:
            with other.transaction():
                other.execute("LOCK TABLE agentic_message IN ACCESS EXCLUSIVE MODE")
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with pytest.raises(KeyboardInterrupt):
                    store.bus.send_many([message(), message()])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        held.release()
        assert (store.bus.stats("box").ready, store.bus.stats("box").total) == (1, 1)

    def test_a_signal_handler_in_the_middle_of_a_statement_is_told_that_the_store_is_busy(self, store, other):
        said = []

        def handler(*_):
            try:
                store.bus.send(message("from the handler"))
            except StoreUnavailable as error:
                said.append(str(error))
            other.execute("COMMIT")

        previous = signal.signal(signal.SIGALRM, handler)
        try:
            other.execute("BEGIN")
            other.execute("LOCK TABLE agentic_message IN ACCESS EXCLUSIVE MODE")
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            assert store.bus.send(message("interrupted"))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert said == ["the store is busy: a statement of this thread was interrupted"]
        assert store.bus.send(message("later"))
        assert store.bus.stats("box").ready == 2


class TestRefusals:
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
        with pytest.raises(StoreError, match="refused a statement") as caught:
            store.agents._db.execute("UPDATE agentic_delivery SET state = 'lost'")
        assert not caught.value.retry_helps

    def test_a_reason_with_a_nul_is_kept_without_it(self, store):
        store.bus.send(message())
        store.bus.receive("box")[0].reject("bad \0 byte")
        assert store.bus.dead_letters()[0].reason == "bad \N{REPLACEMENT CHARACTER} byte"

    def test_a_number_that_no_delivery_can_have_finds_nothing(self, store):
        store.bus.send(message())
        assert store.bus.find(DeliveryQuery(ids=(1 << 70,))) == []


RECEIVER = """
import sys, time
from datetime import timedelta
from airflow_agentic.messaging import BusOptions
from airflow_agentic.stores import open_store

with open_store(sys.argv[1], options=BusOptions(lease=timedelta(seconds=60))) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    while deliveries := store.bus.receive("box", max_messages=3):
        for delivery in deliveries:
            print(delivery.delivery_id)
            if delivery.delivery_id % 2:
                delivery.ack()
"""


class TestTogether:
    def test_eight_threads_never_have_one_delivery_twice_within_a_lease(self, store):
        store.bus.send_many(message(i) for i in range(400))
        together = threading.Barrier(8)

        def receive(_number):
            together.wait()
            seen = []
            while deliveries := store.bus.receive("box", max_messages=3):
                seen += [delivery.delivery_id for delivery in deliveries]
            return seen

        with ThreadPoolExecutor(8) as pool:
            seen = Counter(number for found in pool.map(receive, range(8)) for number in found)
        assert seen == Counter(range(1, 401))

    def test_eight_processes_never_have_one_delivery_twice_within_a_lease(self, store, url):
        store.bus.send_many(message(i) for i in range(400))
        command = [sys.executable, "-W", "error", "-c", RECEIVER, url]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(8)]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 8
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        ended = [process.communicate(timeout=60) for process in processes]
        assert [err for _, err in ended] == [""] * 8
        assert Counter(int(word) for out, _ in ended for word in out.split()) == Counter(range(1, 401))
        assert (store.bus.stats("box").done, store.bus.stats("box").leased) == (200, 200)

    def test_a_claim_passes_over_what_somebody_else_is_taking(self, store, other):
        store.bus.send_many(message(i) for i in range(2))
        with other.transaction():
            other.execute("SELECT 1 FROM agentic_delivery WHERE delivery_id = 1 FOR UPDATE")
            [found] = store.bus.receive("box", max_messages=2)
        assert found.message.data == 1

    def test_threads_that_send_one_message_at_once_send_it_once(self, store):
        together = threading.Barrier(8)

        def send(_number):
            together.wait()
            return store.bus.send(message(id="m-1"))

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(send, range(8))) == [False] * 7 + [True]
        assert store.bus.stats("box").ready == 1

    def test_threads_that_redrive_the_same_do_it_once(self, store):
        store.bus.send_many(message(i) for i in range(50))
        for delivery in store.bus.receive("box", max_messages=50):
            delivery.reject("no")
        together = threading.Barrier(4)

        def redrive(_number):
            together.wait()
            return store.bus.redrive(mailbox="box", actor="ana", reason="again")

        with ThreadPoolExecutor(4) as pool:
            redriven = [number for found in pool.map(redrive, range(4)) for number in found]
        assert sorted(redriven) == list(range(1, 51))
        assert all(record.redrives == 1 for record in store.bus.find(DeliveryQuery()))

    def test_connections_of_ended_threads_are_ended(self, store):
        for _ in range(5):
            thread = threading.Thread(target=store.bus.stats, args=("box",))
            thread.start()
            thread.join()
        assert len(store.agents._db._held) <= 3

    def test_a_forked_child_has_a_connection_of_its_own(self, store):
        store.bus.send(message("before"))
        mine = backend(store)
        child = os.fork()
        if child == 0:  # pragma: no cover  # its coverage cannot be collected
            well = backend(store) != mine and store.bus.send(message("from the child"))
            store.close()
            os._exit(0 if well else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert backend(store) == mine
        assert store.bus.stats("box").ready == 2
