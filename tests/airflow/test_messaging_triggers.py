"""Triggers on a real event loop, and the ack mode of Airflow's own shared streams."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.triggers.base import TriggerEvent
from airflow.triggers.shared_stream import SharedStreamManager, reject_shared_stream_event
from messaging_steps import records_of

from airflow_agentic.messaging import DeliveryState, Kind, Message
from airflow_agentic.messaging.liveness import MISSED
from airflow_agentic.stores import open_store
from airflow_agentic.triggers import looking
from airflow_agentic.triggers.looking import SharedStore
from airflow_agentic.triggers.messaging import (
    AgentMessageTrigger,
    HeartbeatTrigger,
    MailboxTrigger,
    ReplyTrigger,
)


class Picky(AgentMessageTrigger):
    """Refuses what is too heavy."""

    async def filter_shared_stream(self, shared_stream):
        async for event in shared_stream:
            if event["message"]["data"] == "heavy":
                reject_shared_stream_event()
            else:
                yield TriggerEvent(event)


class Watcher:
    """What the triggerer does with one trigger of a shared stream."""

    def __init__(self, manager, trigger, number=1):
        self.manager, self.number, self.key = manager, number, trigger.shared_stream_key()
        stream = manager.subscribe(trigger_id=number, trigger=trigger, key=self.key)
        self._events = trigger.filter_shared_stream(stream)
        self._pull = None
        self.unconfirmed = []

    async def next(self, seconds=20.0):
        """Take the next event, as far as the queue to Airflow's database."""
        self.pull()
        event = await asyncio.wait_for(asyncio.shield(self._pull), seconds)
        self._pull = None
        self.unconfirmed.append(self.manager.bind_pending_event(trigger_id=self.number, key=self.key))
        return event.payload

    def pull(self):
        """Ask for the next event; that is when the present one is left behind."""
        if self._pull is None:
            self._pull = asyncio.ensure_future(anext(self._events))

    def stored(self):
        """Airflow's database has the events."""
        self.manager.confirm_persisted(self.unconfirmed)
        self.unconfirmed = []

    async def leave(self):
        if self._pull is not None:
            self._pull.cancel()
            await asyncio.gather(self._pull, return_exceptions=True)
        await self.manager.unsubscribe(self.number, self.key)


@contextlib.asynccontextmanager
async def watching(*triggers, **options):
    manager = SharedStreamManager(**options)
    watchers = [Watcher(manager, trigger, number) for number, trigger in enumerate(triggers, 1)]
    try:
        yield watchers
    finally:
        for watcher in watchers:
            await watcher.leave()


async def until(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.02)


def send(store, *data, mailbox="parcels"):
    store.bus.send_many([Message(source="t", recipient=mailbox, data=each) for each in data])


def parcels(kind=AgentMessageTrigger):
    return kind("parcels", deliver=True)


@pytest.fixture(autouse=True)
def all_stores_are_left():
    yield
    assert SharedStore._all == {}


class TestAckMode:
    def test_a_message_is_acked_when_its_event_is_in_the_database_and_not_before(self, store):
        async def go():
            async with watching(parcels()) as [watcher]:
                send(store, "light")
                payload = await watcher.next()
                assert payload["message"]["data"] == "light"
                watcher.pull()
                await asyncio.sleep(0.5)
                assert store.bus.stats("parcels").leased == 1
                watcher.stored()
                await until(lambda: store.bus.stats("parcels").done == 1)

        asyncio.run(go())

    def test_one_receiver_serves_all_watchers_and_acks_when_all_of_them_are_served(self, store):
        async def go():
            async with watching(parcels(), parcels(), parcels()) as watchers:
                send(store, "light")
                payloads = [await watcher.next() for watcher in watchers]
                assert payloads[0] == payloads[1] == payloads[2]
                [record] = records_of(store, "parcels")
                assert record.attempts == 1
                for watcher in watchers:
                    assert store.bus.stats("parcels").done == 0
                    watcher.pull()
                    watcher.stored()
                await until(lambda: store.bus.stats("parcels").done == 1)

        asyncio.run(go())

    def test_what_a_watcher_refuses_goes_to_the_dead_letters(self, store):
        async def go():
            async with watching(parcels(Picky)) as [watcher]:
                send(store, "heavy", "light")
                assert (await watcher.next())["message"]["data"] == "light"
                watcher.pull()
                watcher.stored()
                await until(lambda: store.bus.stats("parcels").open == 0)

        asyncio.run(go())
        [dead] = store.bus.dead_letters("parcels")
        assert (dead.message.data, dead.reason) == ("heavy", "refused by a watcher of the mailbox")
        assert store.bus.stats("parcels").done == 1

    def test_a_database_slower_than_the_lease_brings_no_message_twice(self, store, monkeypatch):
        monkeypatch.setenv("AIRFLOW__AGENTIC__LEASE_SECONDS", "0.6")

        async def go():
            async with watching(parcels()) as [watcher]:
                send(store, "light")
                await watcher.next()
                watcher.pull()
                await asyncio.sleep(2)
                watcher.stored()
                await until(lambda: store.bus.stats("parcels").done == 1)

        asyncio.run(go())
        [record] = records_of(store, "parcels")
        assert (record.attempts, record.history) == (1, ())

    def test_what_a_watcher_could_not_store_comes_again(self, store, monkeypatch):
        monkeypatch.setattr("airflow_agentic.triggers.streams._YOUNG_SECONDS", 0.2)

        async def go():
            async with watching(parcels(), ack_timeout=0.3) as [watcher]:
                send(store, "light")
                await watcher.next()
                watcher.pull()
                await until(lambda: records_of(store, "parcels")[0].state is DeliveryState.READY)

        asyncio.run(go())
        [record] = records_of(store, "parcels")
        assert [entry.detail for entry in record.history] == ["a watcher could not store the event"]

    def test_what_nobody_stored_when_the_triggerer_stops_is_given_back_at_once_and_uncounted(self, store):
        async def go():
            async with watching(parcels()) as [watcher]:
                send(store, *range(30))
                await watcher.next()
                await until(lambda: store.bus.stats("parcels").leased == 30)

        asyncio.run(go())
        records = records_of(store, "parcels")
        assert {(record.state, record.attempts) for record in records} == {(DeliveryState.READY, 0)}

    def test_a_message_that_comes_while_the_stream_ends_is_not_kept_by_it(self, store):
        async def go():
            for number in range(10):
                async with watching(parcels()):
                    await asyncio.sleep(0.05 * number)
                    send(store, number)

        asyncio.run(go())
        assert store.bus.stats("parcels").ready == 10

    def test_it_takes_no_more_than_it_can_hand_over(self, store, monkeypatch):
        monkeypatch.setattr("airflow_agentic.triggers.streams._MOST_UNSETTLED", 25)

        async def go():
            async with watching(parcels()) as [watcher]:
                send(store, *range(60))
                await until(lambda: store.bus.stats("parcels").leased == 25)
                await asyncio.sleep(0.5)
                assert store.bus.stats("parcels").leased == 25
                for _ in range(60):
                    await watcher.next()
                    watcher.pull()
                    watcher.stored()
                await until(lambda: store.bus.stats("parcels").done == 60)

        asyncio.run(go())

    def test_a_message_is_an_event_at_once(self, store, monkeypatch):
        monkeypatch.setenv("AIRFLOW__AGENTIC__POLL_SECONDS", "0.5")
        spans = []

        async def go():
            async with watching(parcels()) as [watcher]:
                watcher.pull()
                await asyncio.sleep(0.5)
                for _ in range(5):
                    began = time.monotonic()
                    send(store, "light")
                    await watcher.next()
                    spans.append(time.monotonic() - began)
                    watcher.pull()
                    watcher.stored()

        asyncio.run(go())
        assert min(spans) < 0.6, spans


class TestStoresThatAreAway:
    @pytest.fixture
    def later(self, tmp_path, monkeypatch):
        """A store whose disk is not mounted yet."""
        folder = tmp_path / "mounted"
        monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", f"sqlite:///{folder}/agentic.db")
        monkeypatch.setenv("AIRFLOW__AGENTIC__POLL_SECONDS", "0.05")
        return folder

    def test_a_receiver_waits_for_them(self, later):
        async def go():
            async with watching(parcels()) as [watcher]:
                watcher.pull()
                await asyncio.sleep(0.3)
                later.mkdir()
                with open_store(f"sqlite:///{later}/agentic.db") as store:
                    send(store, "light")
                    assert (await watcher.next())["message"]["data"] == "light"

        asyncio.run(go())

    def test_whoever_looks_waits_for_them(self, later):
        async def go():
            events = MailboxTrigger("parcels", "message").run()
            event = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.3)
            later.mkdir()
            with open_store(f"sqlite:///{later}/agentic.db") as store:
                send(store, "light")
                fired = await asyncio.wait_for(event, 20)
            await events.aclose()
            return fired

        assert asyncio.run(go()).payload["mailbox"]["ready"] == 1

    def test_one_that_can_never_be_used_is_told(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", "nowhere://at-all")
        for trigger in (MailboxTrigger("m", "message"), HeartbeatTrigger("s")):
            fired = asyncio.run(first(trigger)).payload
            assert (fired["retry_helps"], "nowhere" in fired["error"]) == (False, True)


async def first(trigger, seconds=20.0):
    events = trigger.run()
    try:
        return await asyncio.wait_for(anext(events), seconds)
    finally:
        await events.aclose()


class TestLooking:
    def test_a_hundred_that_wait_share_one_store(self, store, monkeypatch):
        opened = []
        monkeypatch.setattr("airflow_agentic.stores.open_store", _counted(open_store, opened))

        async def go():
            waiting = [asyncio.ensure_future(first(MailboxTrigger("late", "message"))) for _ in range(100)]
            await asyncio.sleep(0.5)
            send(store, 1, mailbox="late")
            return await asyncio.gather(*waiting)

        assert len(asyncio.run(go())) == 100
        assert len(opened) == 1

    def test_sources_that_are_late_are_reported_by_whoever_waits(self, store, monkeypatch):
        monkeypatch.setattr(looking, "_REPORT_SECONDS", 0.1)
        store.bus.subscribe("on-call", MISSED)
        beat = Message(source="importer", kind=Kind.HEARTBEAT)
        store.bus.send(beat.model_copy(update={"expires_at": beat.time + timedelta(seconds=0.5)}))

        async def go():
            waiting = asyncio.ensure_future(first(MailboxTrigger("nothing", "message")))
            await until(lambda: store.bus.stats("on-call").ready == 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

        asyncio.run(go())
        assert records_of(store, "on-call")[0].message.subject == "importer"

    def test_what_goes_wrong_with_a_report_does_not_end_the_wait(self, store, monkeypatch):
        monkeypatch.setattr(looking, "_REPORT_SECONDS", 0.0)
        from airflow_agentic.messaging.bus import MessageBus

        def broken(self):
            raise RuntimeError("broken")

        monkeypatch.setattr(MessageBus, "report_late_heartbeats", broken)
        send(store, 1)
        assert asyncio.run(first(MailboxTrigger("parcels", "message"))).payload["mailbox"]["ready"] == 1


class TestSerializing:
    @pytest.mark.parametrize(
        "trigger",
        [
            MailboxTrigger("m", "work", "c"),
            ReplyTrigger({"id": "1"}, "c"),
            HeartbeatTrigger("s", False, "c"),
            AgentMessageTrigger("m", True, "c"),
        ],
        ids=lambda trigger: type(trigger).__name__,
    )
    def test_a_trigger_can_be_made_again_from_what_airflow_keeps(self, trigger):
        path, kwargs = trigger.serialize()
        module, _, name = path.rpartition(".")
        again = getattr(__import__(module, fromlist=[name]), name)(**kwargs)
        assert again.serialize() == (path, kwargs)

    def test_making_one_opens_nothing(self, store_url):
        AgentMessageTrigger.create_shared_stream_producer(parcels().serialize()[1])
        assert not Path(store_url.removeprefix("sqlite:///")).exists()


def _counted(function, calls):
    def counted(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return counted
