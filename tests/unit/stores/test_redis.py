"""What is particular about a store on Redis: its scripts, and what others may do to its keys."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
import redis_server

from airflow_agentic.messaging import BusOptions, DeliveryState, Message, MessageBus
from airflow_agentic.messaging.ports import DeliveryQuery, Settlement
from airflow_agentic.stores import open_store
from airflow_agentic.stores.redis import open_redis
from airflow_agentic.testing import FakeClock

OPTIONS = BusOptions(max_attempts=3, poll=timedelta(seconds=5))
SECOND = timedelta(seconds=1)


@pytest.fixture
def prefix():
    with redis_server.prefix() as name:
        yield name


@pytest.fixture
def store(prefix):
    with open_store(redis_server.url_of(prefix), options=OPTIONS) as opened:
        yield opened


@pytest.fixture
def direct(prefix):
    """A second user of the same keys, who does not ask us first."""
    with redis_server.client() as client:
        yield client


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    with redis_server.private(tmp_path_factory.mktemp("redis")) as server:
        yield server


def message(data=None, box="box", **values):
    return Message(source="test", recipient=box, data=data, **values)


def data_of(deliveries):
    return [each.message.data for each in deliveries]


class TestScripts:
    @pytest.mark.parametrize(
        "call",
        [
            lambda store, held: store.bus.send(message()),
            lambda store, held: store.bus.receive("box"),
            lambda store, held: held.extend(),
            lambda store, held: held.ack(),
            lambda store, held: held.ack(send=[message()], state={"count": 1}),
            lambda store, held: held.reject("no"),
            lambda store, held: store.bus.stats("box"),
            lambda store, held: store.bus.find(DeliveryQuery()),
            lambda store, held: store.bus.redrive(mailbox="box", actor="ana", reason="again"),
            lambda store, held: store.agents.list(),
            lambda store, held: store.probe(),
        ],
    )
    def test_a_server_that_forgot_the_scripts_is_given_them_again(self, store, direct, call):
        store.bus.send_many([message(1), message(2)])
        [held] = store.bus.receive("box")
        direct.script_flush()
        call(store, held)

    def test_a_batch_is_one_script(self, private):
        url = f"{private.url}?prefix=batches"
        with open_store(url) as store, redis_server.client(private.url) as client:
            for _ in range(2):  # the first time, the server does not know the scripts
                client.config_resetstat()
                store.bus.send_many(message(i) for i in range(100))
                held = store.bus.receive("box", max_messages=100)
                store.bus.ack(*held, send=[message(box="next")], state={"count": 100})
            assert len(held) == 100
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3

    def test_a_message_is_found_by_its_ids_without_looking_at_the_others(self, private):
        with open_store(f"{private.url}?prefix=found") as store, redis_server.client(private.url) as client:
            store.bus.send_many(message(i, id=f"m-{i}") for i in range(1_000))
            store.bus.send(message("answer", id="a-1", correlation_id="m-500"))
            store.bus.receive("box", max_messages=3)[0].reject("no")
            for query, found in (
                (DeliveryQuery(message_id="m-500"), 1),
                (DeliveryQuery(correlation_id="m-500"), 2),
                (DeliveryQuery(ids=(500, 700)), 2),
                (DeliveryQuery(mailbox="box", states=(DeliveryState.DEAD,)), 1),
                (DeliveryQuery(states=(DeliveryState.LEASED,)), 2),
                (DeliveryQuery(mailbox="box", limit=5), 5),
            ):
                client.config_resetstat()
                assert len(store.bus.find(query)) == found
                assert client.info("commandstats")["cmdstat_get"]["calls"] <= 2 * found + 2


class TestForeignHands:
    @pytest.mark.parametrize(
        "fields",
        [
            {"payload": b"\xff\xfe\x00"},
            {"d": "1"},
            {"d": "nothing"},
            {"d": "1e400"},
            {"a": "1", "d": "2"},
            {"": ""},
        ],
    )
    def test_an_entry_that_somebody_else_wrote_becomes_a_dead_letter(self, prefix, store, direct, fields):
        store.bus.send(message("first"))
        entry = direct.xadd(f"{prefix}:q:4:box", fields)
        store.bus.send(message("second"))
        assert data_of(store.bus.receive("box", max_messages=9)) == ["first", "second"]
        [dead] = store.bus.dead_letters("box")
        assert dead.message is None
        assert dead.reason == (
            f"foreign: somebody else wrote the entry {entry} into the stream {prefix}:q:4:box"
        )
        assert [(each.event, each.detail) for each in dead.history] == [("reject", dead.reason)]
        stats = store.bus.stats("box")
        assert (stats.leased, stats.dead, stats.total) == (2, 1, 3)

    def test_it_dies_again_when_it_is_redriven(self, prefix, store, direct):
        store.bus.send(message())
        direct.xadd(f"{prefix}:q:4:box", {"some": "thing"})
        assert len(store.bus.receive("box", max_messages=9)) == 1
        [dead] = store.bus.dead_letters("box")
        store.bus.redrive(dead.delivery_id, actor="ana", reason="to see")
        assert store.bus.receive("box") == []
        [dead] = store.bus.dead_letters("box")
        assert [each.event for each in dead.history] == ["reject", "redrive", "reject"]
        assert "not JSON" in dead.reason

    def test_many_of_them_do_not_hide_the_message_behind_them(self, prefix, store, direct):
        store.bus.send(message("first"))
        assert data_of(store.bus.receive("box")) == ["first"]
        for number in range(500):
            direct.xadd(f"{prefix}:q:4:box", {"number": number})
        store.bus.send(message("last"))
        assert data_of(store.bus.receive("box")) == ["last"]
        assert store.bus.receive("box") == []
        assert store.bus.stats("box").dead == 500

    def test_an_id_from_the_future_stops_nobody(self, prefix, store, direct):
        store.bus.send(message(0))
        direct.xadd(f"{prefix}:q:4:box", {"far": "away"}, id="99999999999999-0")
        store.bus.send_many(message(number) for number in (1, 2))
        assert data_of(store.bus.receive("box", max_messages=9)) == [0, 1, 2]

    @pytest.mark.parametrize("damage", ["xtrim", "delete"])
    def test_what_somebody_took_out_of_the_stream_is_received_all_the_same(
        self, prefix, store, direct, damage
    ):
        store.bus.send_many(message(number) for number in range(150))
        if damage == "xtrim":
            direct.xtrim(f"{prefix}:q:4:box", maxlen=10)
        else:
            direct.delete(f"{prefix}:q:4:box")
        received = set()
        while found := store.bus.receive("box", max_messages=40):
            received.update(data_of(found))
        assert received == set(range(150))

    def test_a_clock_that_goes_back_loses_nothing(self, prefix):
        clock = FakeClock()
        server = open_redis(redis_server.url_of(prefix), clock=clock)
        bus = MessageBus(server.bus_store())
        bus.send(message("before"))
        clock.now -= timedelta(minutes=10)
        bus.send(message("after"))
        assert sorted(data_of(bus.receive("box", max_messages=9))) == ["after", "before"]
        server.close()


class TestManyMessages:
    """More than one script takes at once."""

    def test_they_are_found_counted_and_redriven_page_by_page(self, store):
        store.bus.send_many((message(number) for number in range(1_200)), delay=timedelta(milliseconds=1))
        time.sleep(0.01)
        stats = store.bus.stats("box")
        assert (stats.ready, stats.delayed, stats.newest_claimable) == (1_200, 0, 1_200)
        held = store.bus.receive("box", max_messages=1_200)
        store.bus._store.messages.settle(
            [Settlement(each.delivery_id, each.token, "reject", reason="no") for each in held]
        )
        found = store.bus.dead_letters("box", limit=1_100)
        assert [each.delivery_id for each in found] == list(range(1, 1_101))
        assert store.bus.redrive(mailbox="box", actor="ana", reason="again") == list(range(1, 1_201))
        assert store.bus.stats("box").claimable == 1_200

    def test_they_are_forgotten_page_by_page_and_nothing_is_left(self, prefix, store, direct):
        store.bus.send_many(message(number, ordering_key=f"k-{number}") for number in range(1_200))
        store.bus.ack(*store.bus.receive("box", max_messages=1_200), inbox="audits")
        store.bus.send(message(correlation_id="talk", box="other"))
        time.sleep(0.01)
        envelopes = store.bus._store.books.purge(timedelta(0), 1_150)
        assert len(envelopes) == 1_150
        assert b'"data":0' in envelopes[0]
        store.bus.receive("other")[0].ack()
        time.sleep(0.01)
        store.bus._store.books.purge(timedelta(0), 1_000)
        assert store.bus.mailboxes() == []
        assert set(direct.keys(f"{prefix}:*")) == {f"{prefix}:schema", f"{prefix}:n"}

    def test_the_server_needs_little_more_than_the_envelopes(self, prefix, store, direct):
        store.bus.send_many(message("x" * 1_000) for _ in range(1_000))
        used = sum(
            direct.memory_usage(key, samples=0) for key in direct.scan_iter(f"{prefix}:*", count=10_000)
        )
        assert used / 1_000 < 1_300 + 900


class TestWaiting:
    def test_it_ends_when_something_is_sent(self, store):
        sender = threading.Timer(0.1, store.bus.send, [message("late", priority=9)])
        sender.start()
        before = time.monotonic()
        assert data_of(store.bus.receive("box", wait=10 * SECOND)) == ["late"]
        assert time.monotonic() - before < 3
        sender.join()

    def test_it_ends_when_something_is_due(self, store):
        store.bus.send(message("later"), delay=timedelta(seconds=0.2))
        before = time.monotonic()
        assert data_of(store.bus.receive("box", wait=10 * SECOND)) == ["later"]
        assert 0.1 < time.monotonic() - before < 3

    def test_it_ends_when_a_lease_ends(self, store):
        store.bus.send(message("again"))
        store.bus.receive("box", lease=timedelta(seconds=0.2))
        assert data_of(store.bus.receive("box", wait=10 * SECOND)) == ["again"]

    def test_it_keeps_nobody_else_from_the_store_and_asks_little(self, private):
        with (
            open_store(f"{private.url}?prefix=waiting", options=OPTIONS) as store,
            redis_server.client(private.url) as client,
        ):
            store.bus.receive("box")
            client.config_resetstat()
            waiting = threading.Thread(target=store.bus.receive, args=["box"], kwargs={"wait": SECOND})
            waiting.start()
            before = time.monotonic()
            store.bus.send(message(box="other"))
            assert store.bus.receive("other")
            assert time.monotonic() - before < 0.9
            waiting.join()
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] < 10
