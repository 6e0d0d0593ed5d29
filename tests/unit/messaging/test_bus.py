"""What every store must do for the bus, tried through the bus. The clock stands still unless a test moves it."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta

import clocked
import pytest
from mailbox_steps import ATTEMPTS, BOX, LEASE, OTHER, SECOND, counts, foreign, message, one, record

from airflow_agentic.errors import InvalidMessage, MessageNotFound, MessageTooLarge
from airflow_agentic.messaging import BusOptions, DeliveryState, Kind, Message, MessageBus
from airflow_agentic.messaging.codec import encode
from airflow_agentic.messaging.ports import DeliveryQuery


class TestSendAndReceive:
    def test_what_is_sent_arrives_as_it_was(self, bus):
        sent = message(
            {"deps": ["a", 1, 2.5, None, True], "ü": "漢字"},
            kind=Kind.REQUEST,
            type="licences.audit",
            subject="left-pad",
            reply_to="scanner",
            causation_id="cause-1",
            correlation_id="dag:run",
            ordering_key="left-pad",
            priority=7,
            expires_at=datetime(2999, 1, 1, tzinfo=UTC),
            run="dag/run/task",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        assert bus.send(sent) is True
        delivery = one(bus)
        assert delivery.message == sent
        assert (delivery.mailbox, delivery.attempt, delivery.max_attempts) == (BOX, 1, ATTEMPTS)

    def test_a_delivery_names_the_end_of_its_lease(self, bus, clock):
        bus.send(message())
        [delivery] = bus.receive(BOX, lease=10 * SECOND)
        assert delivery.lease_until == clock() + 10 * SECOND

    def test_the_default_lease_is_that_of_the_bus(self, bus, clock):
        bus.send(message())
        assert one(bus).lease_until == clock() + LEASE * SECOND

    def test_messages_come_in_the_order_they_were_sent(self, bus):
        bus.send_many(message(i) for i in range(5))
        assert [d.message.data for d in bus.receive(BOX, max_messages=3)] == [0, 1, 2]
        assert [d.message.data for d in bus.receive(BOX, max_messages=3)] == [3, 4]

    def test_a_leased_message_is_given_to_nobody_else(self, bus):
        bus.send(message())
        one(bus)
        assert bus.receive(BOX) == []

    def test_a_mailbox_gives_only_its_own_messages(self, bus):
        bus.send(message("mine"))
        bus.send(message("theirs", recipient=OTHER))
        assert [d.message.data for d in bus.receive(OTHER, max_messages=9)] == ["theirs"]

    def test_an_unknown_mailbox_is_empty(self, bus):
        assert bus.receive("nobody") == []

    def test_two_deliveries_have_different_tokens(self, bus):
        bus.send_many([message(1), message(2)])
        first, second = bus.receive(BOX, max_messages=2)
        assert first.token != second.token
        assert len(first.token) >= 32

    @pytest.mark.parametrize("values", [{"max_messages": 0}, {"lease": timedelta(0)}, {"lease": -SECOND}])
    def test_receiving_nothing_or_for_no_time_is_refused(self, bus, values):
        bus.send(message())
        with pytest.raises(InvalidMessage, match="must be positive"):
            bus.receive(BOX, **values)
        assert counts(bus)["ready"] == 1

    def test_waiting_ends_with_nothing_when_nothing_comes(self, bus):
        assert bus.receive(BOX, wait=timedelta(seconds=0.03)) == []

    def test_waiting_ends_as_soon_as_something_comes(self, bus):
        sender = threading.Timer(0.05, bus.send, [message("late")])
        sender.start()
        [delivery] = bus.receive(BOX, wait=timedelta(seconds=30))
        sender.join()
        assert delivery.message.data == "late"

    def test_the_owner_of_a_lease_is_shown(self, bus):
        bus.send(message())
        assert record(bus).owner is None
        delivery = one(bus)
        assert record(bus).owner == clocked.OWNER
        delivery.ack()
        assert record(bus).owner == clocked.OWNER  # who did the work
        bus.send(message(2))
        one(bus).release()
        assert record(bus, 2).owner is None

    def test_a_bus_without_a_name_leases_as_host_and_process(self, store):
        nameless = MessageBus(store.bus._store)
        nameless.send(message())
        one(nameless)
        assert re.fullmatch(r".+:\d+", record(nameless).owner)


class TestDuplicates:
    def test_the_same_source_and_id_is_sent_once(self, bus):
        assert bus.send(message("first", id="m-1")) is True
        assert bus.send(message("second", id="m-1")) is False
        assert counts(bus)["ready"] == 1
        assert one(bus).message.data == "first"

    def test_the_same_id_of_another_source_is_another_message(self, bus):
        bus.send(message(id="m-1"))
        assert bus.send(Message(source="another", recipient=BOX, id="m-1")) is True
        assert counts(bus)["ready"] == 2

    def test_it_stays_a_duplicate_after_it_was_handled(self, bus):
        bus.send(message(id="m-1"))
        one(bus).ack()
        assert bus.send(message(id="m-1")) is False
        assert bus.receive(BOX) == []

    def test_a_batch_tells_for_each_message_whether_it_was_sent(self, bus):
        bus.send(message(id="m-2"))
        batch = [message(id=name) for name in ("m-1", "m-2", "m-3", "m-3")]
        assert bus.send_many(batch) == [True, False, True, False]
        assert counts(bus)["ready"] == 3

    def test_an_empty_batch_sends_nothing(self, bus):
        assert bus.send_many([]) == []


class TestSize:
    def bus_with_limit(self, store, limit):
        return MessageBus(store.bus._store, BusOptions(max_message_bytes=limit))

    def test_a_message_over_the_limit_is_refused_with_the_limit_and_the_way_out(self, store):
        with pytest.raises(MessageTooLarge, match=r"the limit is 2,000.*max_message_bytes"):
            self.bus_with_limit(store, 2_000).send(message("x" * 2_000))
        assert store.bus.mailboxes() == []

    def test_a_message_at_the_limit_is_sent(self, store):
        exact = message("ü" * 1_000, id="m-1")
        assert self.bus_with_limit(store, len(encode(exact))).send(exact)
        with pytest.raises(MessageTooLarge):
            self.bus_with_limit(store, len(encode(exact)) - 1).send(exact)

    def test_one_message_over_the_limit_stops_its_whole_batch(self, store):
        with pytest.raises(MessageTooLarge):
            self.bus_with_limit(store, 2_000).send_many([message("small"), message("x" * 2_000)])
        assert store.bus.mailboxes() == []

    def test_nothing_is_acked_when_the_answer_is_over_the_limit(self, store):
        bus = self.bus_with_limit(store, 2_000)
        bus.send(message())
        delivery = one(bus)
        with pytest.raises(MessageTooLarge):
            delivery.ack(send=[message("x" * 2_000, recipient=OTHER)])
        assert counts(bus) == {"ready": 0, "leased": 1, "done": 0, "dead": 0}


class TestDelay:
    def test_a_delayed_message_comes_when_its_time_has_come(self, bus, clock):
        bus.send(message(), delay=10 * SECOND)
        clock.advance(9.999)
        assert bus.receive(BOX) == []
        clock.advance(0.001)
        assert one(bus).attempt == 1

    def test_a_delayed_message_is_ready_and_not_claimable(self, bus, clock):
        bus.send(message(), delay=10 * SECOND)
        bus.send(message())
        stats = bus.stats(BOX)
        assert (stats.ready, stats.delayed, stats.claimable) == (2, 1, 1)
        clock.advance(10)
        stats = bus.stats(BOX)
        assert (stats.ready, stats.delayed, stats.claimable) == (2, 0, 2)

    def test_a_delayed_message_does_not_hold_up_a_later_one(self, bus):
        bus.send(message("late"), delay=SECOND)
        bus.send(message("now"))
        assert one(bus).message.data == "now"


class TestReading:
    def test_reading_takes_no_lease_and_changes_nothing(self, bus):
        bus.send(message("seen"))
        assert record(bus).message.data == "seen"
        assert record(bus) == record(bus)
        assert (record(bus).state, record(bus).attempts) == (DeliveryState.READY, 0)
        assert one(bus).attempt == 1

    def test_all_conditions_of_a_query_must_hold(self, bus):
        bus.send(message("a", id="m-a", correlation_id="talk-1"))
        bus.send(message("b", id="m-b", correlation_id="talk-1", recipient=OTHER))
        bus.send(message("c", id="m-c", correlation_id="talk-2"))
        one(bus).ack()

        def data(**conditions):
            return [found.message.data for found in bus.find(DeliveryQuery(**conditions))]

        assert data() == ["a", "b", "c"]
        assert data(mailbox=BOX) == ["a", "c"]
        assert data(states=(DeliveryState.READY,)) == ["b", "c"]
        assert data(states=(DeliveryState.READY, DeliveryState.DONE)) == ["a", "b", "c"]
        assert data(ids=(1, 3, 77)) == ["a", "c"]
        assert data(ids=()) == []
        assert data(message_id="m-b") == ["b"]
        assert data(correlation_id="talk-1") == ["a", "b"]
        assert data(correlation_id="talk-1", mailbox=BOX) == ["a"]
        assert data(limit=2) == ["a", "b"]

    def test_a_trace_finds_the_conversation_by_its_id_and_by_any_message_in_it(self, bus):
        first = message("question")
        bus.send(first)
        reply = message("answer", recipient=OTHER, correlation_id=first.id)
        one(bus).ack(send=[reply])
        bus.send(message("unrelated"))
        for identifier in (first.id, reply.id):
            assert [r.message.data for r in bus.trace(identifier)] == ["question", "answer"]
        with pytest.raises(MessageNotFound, match="'nothing'"):
            bus.trace("nothing")

    def test_a_trace_of_a_message_that_cannot_be_read_shows_that_one(self, bus):
        foreign(bus, b"x")
        assert [r.message for r in bus.trace("foreign-1")] == [None]


class TestStats:
    def test_the_counts_add_up_whatever_happens(self, bus, clock):
        for i in range(6):
            bus.send(message(i), delay=SECOND if i == 5 else timedelta(0))
        one(bus).ack()
        one(bus).reject("no")
        one(bus).nack(delay=SECOND)
        bus.receive(BOX, lease=SECOND)
        one(bus)
        stats = bus.stats(BOX)
        assert (stats.ready, stats.delayed, stats.leased, stats.done, stats.dead) == (2, 2, 2, 1, 1)
        assert (stats.total, stats.open, stats.claimable) == (6, 4, 0)
        assert stats.expired == 0
        clock.advance(1)
        stats = bus.stats(BOX)
        assert (stats.ready, stats.delayed, stats.leased, stats.expired) == (2, 0, 2, 1)
        assert stats.claimable == 3
        assert len(bus.receive(BOX, max_messages=9)) == 3

    def test_the_newest_is_the_newest_that_could_be_claimed(self, bus, clock):
        assert bus.stats(BOX).newest_claimable is None
        bus.send_many(message(i) for i in range(3))
        bus.send(message(), delay=5 * SECOND)
        assert bus.stats(BOX).newest_claimable == 3
        bus.receive(BOX, max_messages=3, lease=SECOND)
        assert bus.stats(BOX).newest_claimable is None
        clock.advance(1)
        assert bus.stats(BOX).newest_claimable == 3
        clock.advance(4)
        assert bus.stats(BOX).newest_claimable == 4
        bus.send(message(recipient=OTHER))
        assert bus.stats(BOX).newest_claimable == 4

    def test_the_age_of_the_oldest_is_that_of_the_oldest_that_could_be_claimed(self, bus, clock):
        assert bus.stats(BOX).oldest_ready_seconds is None
        bus.send(message(), delay=100 * SECOND)
        assert bus.stats(BOX).oldest_ready_seconds is None
        bus.send(message())
        clock.advance(5)
        bus.send(message())
        assert bus.stats(BOX).oldest_ready_seconds == 5
        one(bus)
        assert bus.stats(BOX).oldest_ready_seconds == 0

    def test_every_mailbox_is_counted_on_its_own_and_listed_by_name(self, bus):
        bus.send_many([message(recipient="zoe"), message(recipient="abe"), message(recipient="abe")])
        assert [(s.mailbox, s.ready) for s in bus.mailboxes()] == [("abe", 2), ("zoe", 1)]
        assert [s.mailbox for s in bus._store.books.stats("abe")] == ["abe"]

    def test_an_unknown_mailbox_has_zeros(self, bus):
        assert bus.stats("nobody").total == 0
        assert bus._store.books.stats("nobody") == []
