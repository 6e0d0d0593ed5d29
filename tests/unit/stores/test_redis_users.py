"""A store on Redis whose connections are lost, whose server refuses or dies, and which many use at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import redis_server
from redis import exceptions

from airflow_agentic.errors import (
    InvalidOption,
    StoreError,
    StoreNotWritable,
    StoreUnavailable,
)
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores import open_store
from airflow_agentic.stores.redis import faults

OPTIONS = BusOptions(max_attempts=2, poll=timedelta(milliseconds=10))


@pytest.fixture
def private(tmp_path):
    with redis_server.private(tmp_path) as server:
        yield server


@pytest.fixture
def direct(private):
    with redis_server.client(private.url) as client:
        yield client


@pytest.fixture
def store(private):
    with open_store(private.url, options=OPTIONS) as opened:
        yield opened


def message(data=None, box="box", **values):
    return Message(source="test", recipient=box, data=data, **values)


class Proxy:
    """Stands before a server and, when it is told to, passes a command on and keeps the answer for itself."""

    def __init__(self, port):
        self.port = port
        self.armed = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._threads.append(threading.Thread(target=self._pass, args=[client], daemon=True))
                self._threads[-1].start()

    def _pass(self, client):
        with (
            client,
            socket.create_connection(("127.0.0.1", self.port)) as server,
            contextlib.suppress(OSError),
        ):
            while asked := client.recv(1_000_000):
                server.sendall(asked)
                answer = server.recv(1_000_000)
                if self.armed and b"EVAL" in asked and not answer.startswith(b"-NOSCRIPT"):
                    self.armed = False
                    return
                client.sendall(answer)

    def close(self):
        # To wake up the one who accepts.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def proxy(private):
    proxy = Proxy(private.port)
    yield proxy
    proxy.close()


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
        ids=["send", "many", "receive", "stats", "list", "ack", "ack and send", "nack", "extend", "probe"],
    )
    def test_that_ended_while_nobody_used_it_is_replaced_unseen(self, store, direct, call):
        store.bus.send(message())
        [held] = store.bus.receive("box")
        direct.client_kill_filter(_type="normal", skipme=True)
        call(store, held)


class TestALostAnswer:
    @pytest.fixture
    def store(self, proxy):
        with open_store(proxy.url, options=OPTIONS) as opened:
            yield opened

    def test_to_a_message_is_asked_for_again_and_the_message_is_there_once(self, store, proxy):
        store.bus.send(message(id="m-0"))
        proxy.armed = True
        batch = [message(id=name) for name in ("m-0", "m-1", "m-2", "m-2")]
        assert store.bus.send_many(batch) == [False, True, True, False]
        assert not proxy.armed
        assert store.bus.stats("box").total == 3
        assert store.bus.send(message(id="m-1")) is False

    def test_to_a_claim_leaves_that_lease_to_end(self, store, proxy):
        store.bus.send_many([message(1), message(2)])
        proxy.armed = True
        [held] = store.bus.receive("box")
        assert (held.message.data, store.bus.stats("box").leased) == (2, 2)

    @pytest.mark.parametrize(
        ("end", "state"),
        [(lambda held: held.ack(), "done"), (lambda held: held.ack(send=[message(box="next")]), "done"),
         (lambda held: held.reject("no"), "dead")],
    )  # fmt: skip
    def test_to_a_settlement_is_told_since_it_may_have_been_done(self, store, proxy, end, state):
        store.bus.send(message())
        [held] = store.bus.receive("box")
        proxy.armed = True
        with pytest.raises(StoreUnavailable) as caught:
            end(held)
        assert caught.value.retry_helps
        assert getattr(store.bus.stats("box"), state) == 1

    def test_of_a_server_that_never_says_anything_is_not_waited_for_for_ever(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            before = time.monotonic()
            with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}"):
                open_store(f"redis://user:hunter2@127.0.0.1:{port}/0?timeout=0.2")
            assert time.monotonic() - before < 3


class TestRefusals:
    def test_a_replica_is_told_from_its_primary_server(self, private, store, direct):
        direct.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreNotWritable, match=r"cannot be written: .*Name the primary server"):
            store.bus.send(message())
        assert store.bus.find(DeliveryQuery()) == []
        with pytest.raises(StoreNotWritable):
            open_store(private.url)

    def test_a_full_memory_takes_no_message_and_lets_the_work_drain(self, store, direct):
        store.bus.send_many([message(1), message(2)])
        [held] = store.bus.receive("box")
        direct.config_set("maxmemory", "1")
        with pytest.raises(StoreNotWritable, match=r"memory is full: raise maxmemory"):
            store.bus.send(message())
        with pytest.raises(StoreNotWritable):
            held.ack(send=[message()])
        [other] = store.bus.receive("box")
        store.bus.ack(held, other)
        assert store.bus.stats("box").done == 2

    @pytest.mark.parametrize(
        ("rights", "text"),
        [
            ("~agentic:* +@all -zadd", "cannot be written"),
            ("~other:* +@all", "cannot be written"),
            ("~agentic:* +@all -eval -evalsha", "cannot be written"),
        ],
    )
    def test_a_user_without_the_rights_is_refused_when_it_is_opened(self, private, direct, rights, text):
        direct.execute_command("ACL", "SETUSER", "poor", "on", ">hunter2", *rights.split())
        url = private.url.replace("redis://", "redis://poor:hunter2@")
        with pytest.raises(StoreNotWritable, match=text) as caught:
            open_store(url)
        assert "Let this user run" in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert [key for key in direct.keys("*") if key != "agentic:schema"] in ([], ["agentic:probe"])

    def test_a_user_needs_no_right_to_administer(self, private, direct, caplog):
        rights = (
            "~agentic:*",
            "-@all",
            "+@read",
            "+@write",
            "+@connection",
            "+@scripting",
            "+@fast",
            "-@admin",
        )
        direct.execute_command("ACL", "SETUSER", "modest", "on", ">hunter2", *rights)
        direct.config_set("appendfsync", "everysec")
        with open_store(private.url.replace("redis://", "redis://modest:hunter2@")) as store:
            assert store.bus.send(message())
            assert len(store.bus.receive("box", wait=timedelta(seconds=1))) == 1
            assert store.bus.receive("box", wait=timedelta(seconds=0.1)) == []
            assert store.url == private.url.replace("redis://", "redis://modest:***@")
        assert caplog.records == []

    def test_a_wrong_password_is_told_without_it(self, private, direct):
        direct.execute_command("ACL", "SETUSER", "ana", "on", ">right", "~*", "+@all")
        with pytest.raises(StoreUnavailable, match="invalid username-password pair") as caught:
            open_store(private.url.replace("redis://", "redis://ana:hunter2@"))
        assert "hunter2" not in str(caught.value)

    def test_keys_of_another_kind_are_an_error_and_no_crash(self, store, direct):
        direct.set("agentic:mailboxes", "mine")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            store.bus.send(message())

    @pytest.mark.parametrize(
        ("error", "kind", "text"),
        [
            (
                exceptions.ResponseError("MISCONF Errors writing to the AOF file"),
                StoreNotWritable,
                "look at its log",
            ),
            (exceptions.ResponseError("BUSY Redis is busy running a script"), StoreUnavailable, "BUSY"),
            (exceptions.BusyLoadingError("Redis is loading"), StoreUnavailable, "loading"),
            (exceptions.ResponseError("NOREPLICAS Not enough good replicas"), StoreUnavailable, "replicas"),
            (
                exceptions.MovedError("3999 127.0.0.1:6381", status_code="MOVED"),
                InvalidOption,
                "Redis Cluster, which is not supported",
            ),
            (exceptions.ResponseError("ERR for hunter2 only"), StoreError, r"ERR for \*\*\* only"),
        ],
    )
    def test_what_else_a_server_may_say_is_told_as_what_it_means(self, error, kind, text):
        told = faults.translated(error, "redis://host/0", "hunter2")
        assert type(told) is kind
        with pytest.raises(kind, match=text):
            raise told


class TestAServerThatDies:
    def test_is_told_without_the_password_and_used_again_when_it_is_back(self, tmp_path):
        with (
            redis_server.private(tmp_path, "--requirepass", "hunter2") as private,
            open_store(private.url.replace("redis://", "redis://:hunter2@"), options=OPTIONS) as store,
        ):
            store.bus.send(message("kept"))
            [held] = store.bus.receive("box")
            private.kill()
            for call in (lambda: store.bus.send(message()), lambda: store.bus.receive("box"), held.ack):
                with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{private.port}") as caught:
                    call()
                assert caught.value.retry_helps
                assert "hunter2" not in str(caught.value)
            private.start()
            assert store.bus.stats("box").leased == 1
            held.ack()
            assert store.bus.stats("box").done == 1

    def test_wakes_up_who_waits(self, private, store):
        killing = threading.Timer(0.2, private.kill)
        killing.start()
        with pytest.raises(StoreUnavailable):
            store.bus.with_options(poll=timedelta(seconds=5)).receive("box", wait=timedelta(seconds=30))
        killing.join()

    def test_at_any_moment_loses_nothing_that_was_sent_or_acked(self, private, store):
        """Four workers send and ack while the server is killed five times."""
        sent, acked = set(), set()
        stop = threading.Event()

        def work(worker):
            number = 0
            while not stop.is_set():
                with contextlib.suppress(StoreUnavailable):
                    number += 1
                    name = f"{worker}-{number}"
                    store.bus.send(message(name, id=name))
                    sent.add(name)
                    for held in store.bus.receive("box", lease=timedelta(milliseconds=200)):
                        with contextlib.suppress(StoreUnavailable, StoreError):
                            held.ack()
                            acked.add(held.message.id)

        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(work, worker) for worker in range(4)]
            for _ in range(5):
                time.sleep(0.3)
                private.kill()
                private.start()
            stop.set()
            for each in working:
                each.result()
        known = {each.message.id: str(each.state) for each in store.bus.find(DeliveryQuery(limit=100_000))}
        assert len(sent) > 20
        assert sent <= set(known)
        assert {name for name in acked if known[name] != "done"} == set()


class TestManyUsers:
    def test_threads_share_a_store_and_each_message_is_handled_once(self, store):
        store.bus.send_many(message(number, ordering_key=f"k-{number % 7}") for number in range(200))
        handled = []

        def work():
            while found := store.bus.receive("box", max_messages=3, wait=timedelta(seconds=0.5)):
                handled.extend(each.message.data for each in found)
                store.bus.ack(*found)

        with ThreadPoolExecutor(8) as pool:
            for each in [pool.submit(work) for _ in range(8)]:
                each.result()
        assert Counter(handled) == Counter(range(200))
        for key in range(7):
            of_key = [number for number in handled if number % 7 == key]
            assert of_key == sorted(of_key)

    def test_a_forked_child_has_connections_of_its_own(self, private):
        with open_store(private.url, options=OPTIONS) as store:
            store.bus.send(message("before"))
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    for number in range(200):
                        store.bus.send(message(f"child {number}", "child"))
                        assert store.bus.stats("child").total == number + 1
                    code = 0
                finally:
                    os._exit(code)
            for number in range(200):
                store.bus.send(message(f"parent {number}", "parent"))
                assert store.bus.stats("parent").total == number + 1
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert store.bus.stats("child").total == 200

    def test_a_process_that_is_killed_leaves_its_lease_to_others(self, private):
        with open_store(private.url, options=OPTIONS) as store:
            store.bus.send(message("kept"))
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                store.bus.receive("box", lease=timedelta(seconds=0.3))
                os.write(write, b"x")
                time.sleep(60)
                os._exit(0)
            os.read(read, 1)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(read)
            os.close(write)
            [held] = store.bus.receive("box", wait=timedelta(seconds=5))
            assert (held.message.data, held.attempt) == ("kept", 2)
            held.ack()
