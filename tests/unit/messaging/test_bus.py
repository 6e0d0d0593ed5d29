"""What every store must do for the bus, tried through the bus. The clock stands still unless a test moves it."""

from __future__ import annotations

import re
import threading
from datetime import timedelta

import clocked
import pytest

from airflow_agentic.errors import InvalidMessage, MessageNotFound, MessageTooLarge, StaleLease
from airflow_agentic.messaging import BusOptions, DeliveryState, Kind, Message, MessageBus
from airflow_agentic.messaging.codec import encode
from airflow_agentic.messaging.ports import DeliveryQuery, Outgoing

SECOND = timedelta(seconds=1)
BOX = "auditor"
OTHER = "legal"
ATTEMPTS = 3
LEASE = 60


def message(data=None, *, recipient=BOX, **values):
    return Message(source="scanner", recipient=recipient, data=data, **values)


def one(bus, mailbox=BOX):
    [delivery] = bus.receive(mailbox)
    return delivery


def record(bus, delivery_id=1):
    [found] = bus.find(DeliveryQuery(ids=(delivery_id,)))
    return found


def counts(bus, mailbox=BOX):
    stats = bus.stats(mailbox)
    return {"ready": stats.ready, "leased": stats.leased, "done": stats.done, "dead": stats.dead}


def bury(bus, data=None):
    """Put a message into the dead letters; return its number."""
    bus.send(message(data))
    delivery = one(bus)
    delivery.reject("no use")
    return delivery.delivery_id


def foreign(bus, envelope, *, message_id="foreign-1"):
    """Store bytes that this version did not write."""
    bus._store.append([Outgoing(message_id, "elsewhere", BOX, "c-1", envelope, ATTEMPTS)])


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
        assert record(bus).owner is None

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


class TestAck:
    def test_an_acked_message_is_done_and_never_comes_again(self, bus, clock):
        bus.send(message())
        one(bus).ack()
        clock.advance(10 * LEASE)
        assert bus.receive(BOX) == []
        assert counts(bus) == {"ready": 0, "leased": 0, "done": 1, "dead": 0}

    def test_what_handling_produced_leaves_with_the_ack(self, bus):
        bus.send(message())
        one(bus).ack(send=[message("result", recipient=OTHER)])
        assert one(bus, OTHER).message.data == "result"

    def test_nothing_leaves_when_the_lease_is_stale(self, bus, clock):
        bus.send(message())
        delivery = one(bus)
        clock.advance(LEASE)
        with pytest.raises(StaleLease):
            delivery.ack(send=[message("result", recipient=OTHER)])
        assert bus.receive(OTHER) == []
        assert bus.stats(OTHER).total == 0
        assert record(bus).state is DeliveryState.LEASED

    def test_several_deliveries_are_acked_together(self, bus):
        bus.send_many(message(i) for i in range(3))
        bus.ack(*bus.receive(BOX, max_messages=3), send=[message("sum", recipient=OTHER)])
        assert counts(bus)["done"] == 3
        assert one(bus, OTHER).message.data == "sum"

    def test_one_stale_lease_stops_the_whole_ack(self, bus, clock):
        bus.send_many(message(i) for i in range(2))
        [stale] = bus.receive(BOX, lease=SECOND)
        [good] = bus.receive(BOX)
        clock.advance(2)
        for order in ((good, stale), (stale, good)):
            with pytest.raises(StaleLease):
                bus.ack(*order, send=[message(recipient=OTHER)])
        assert counts(bus) == {"ready": 0, "leased": 2, "done": 0, "dead": 0}
        assert bus.stats(OTHER).total == 0
        good.ack()

    def test_an_answer_that_was_sent_before_does_not_stop_the_ack(self, bus):
        bus.send(message())
        bus.send(message("earlier", recipient=OTHER, id="answer-1"))
        one(bus).ack(send=[message("again", recipient=OTHER, id="answer-1")])
        assert counts(bus)["done"] == 1
        assert [d.message.data for d in bus.receive(OTHER, max_messages=9)] == ["earlier"]


class TestNack:
    def test_a_failed_message_comes_again_after_its_delay(self, bus, clock):
        bus.send(message())
        one(bus).nack(delay=5 * SECOND, reason="service down")
        clock.advance(4.999)
        assert bus.receive(BOX) == []
        clock.advance(0.001)
        assert one(bus).attempt == 2

    @pytest.mark.parametrize(("attempt", "bound"), [(1, 4), (2, 8), (3, 10), (4, 10)])
    def test_without_a_delay_the_bus_chooses_one_within_bounds_that_grow(self, store, clock, attempt, bound):
        options = BusOptions(retry_base=4 * SECOND, retry_max=10 * SECOND, max_attempts=9)
        bus = MessageBus(store.bus._store, options)
        bus.send_many(message() for _ in range(40))
        for _ in range(attempt - 1):
            for delivery in bus.receive(BOX, max_messages=100):
                delivery.nack(delay=timedelta(0))
        for delivery in bus.receive(BOX, max_messages=100):
            assert delivery.attempt == attempt
            delivery.nack()
        delays = [(found.visible_at - clock()).total_seconds() for found in bus.find(DeliveryQuery())]
        assert all(0 <= delay <= bound for delay in delays)
        # Full jitter: anything between nothing and the bound. By chance once in 100,000 runs.
        assert min(delays) < bound / 4
        assert max(delays) > bound * 3 / 4

    def test_spent_attempts_end_in_the_dead_letters_with_the_last_reason(self, bus):
        bus.send(message())
        for attempt in range(1, ATTEMPTS + 1):
            delivery = one(bus)
            assert delivery.attempt == attempt
            delivery.nack(delay=timedelta(0), reason=f"failure {attempt}")
        assert bus.receive(BOX) == []
        [dead] = bus.dead_letters(BOX)
        assert dead.reason == "attempts spent: failure 3"
        assert dead.attempts == ATTEMPTS
        assert [(h.event, h.attempt, h.detail) for h in dead.history] == [
            ("nack", 1, "failure 1"),
            ("nack", 2, "failure 2"),
            ("nack", 3, "failure 3"),
        ]

    def test_spent_attempts_without_a_reason_read_well(self, bus):
        bus.send(message())
        for _ in range(ATTEMPTS):
            one(bus).nack(delay=timedelta(0))
        assert bus.dead_letters()[0].reason == "attempts spent"

    def test_the_last_reason_is_shown_until_it_is_done(self, bus):
        bus.send(message())
        one(bus).nack(delay=timedelta(0), reason="service down")
        assert (record(bus).state, record(bus).reason) == (DeliveryState.READY, "service down")
        delivery = one(bus)
        assert record(bus).reason == "service down"
        delivery.ack()
        assert record(bus).reason is None
        assert [h.detail for h in record(bus).history] == ["service down"]


class TestReject:
    def test_a_rejected_message_is_dead_at_once_with_its_reason(self, bus, clock):
        bus.send(message("poison"))
        one(bus).reject("cannot be read")
        clock.advance(10 * LEASE)
        assert bus.receive(BOX) == []
        [dead] = bus.dead_letters(BOX)
        assert (dead.message.data, dead.reason, dead.attempts) == ("poison", "cannot be read", 1)
        assert [(h.event, h.actor, h.detail, h.at) for h in dead.history] == [
            ("reject", clocked.OWNER, "cannot be read", clock() - 10 * LEASE * SECOND)
        ]


class TestRelease:
    def test_a_released_message_can_be_received_at_once_and_its_attempt_is_not_counted(self, bus):
        bus.send(message())
        for _ in range(ATTEMPTS + 1):
            delivery = one(bus)
            assert delivery.attempt == 1
            delivery.release()
        assert record(bus).attempts == 0
        assert record(bus).history == ()

    def test_several_are_released_together_or_not_at_all(self, bus, clock):
        bus.send_many(message(i) for i in range(2))
        [stale] = bus.receive(BOX, lease=SECOND)
        [good] = bus.receive(BOX)
        clock.advance(2)
        with pytest.raises(StaleLease):
            bus.release(good, stale)
        assert counts(bus)["leased"] == 2
        bus.release(good)
        assert counts(bus)["ready"] == 1


class TestLease:
    def test_an_ended_lease_gives_the_message_to_the_next_receiver(self, bus, clock):
        bus.send(message())
        one(bus)
        clock.advance(LEASE - 0.001)
        assert bus.receive(BOX) == []
        clock.advance(0.001)
        again = one(bus)
        assert again.attempt == 2
        [entry] = record(bus).history
        assert (entry.event, entry.attempt, entry.actor) == ("lease-expired", 1, clocked.OWNER)
        assert entry.at == clock()

    def test_leases_that_end_spend_the_attempts(self, bus, clock):
        bus.send(message())
        for _ in range(ATTEMPTS):
            one(bus)
            clock.advance(LEASE)
        assert bus.receive(BOX) == []
        [dead] = bus.dead_letters()
        assert dead.reason == f"attempts spent: the lease of the last one ({clocked.OWNER}) ended"
        assert [h.event for h in dead.history] == ["lease-expired"] * ATTEMPTS

    def test_a_message_that_spent_its_attempts_does_not_hide_the_one_behind_it(self, bus, clock):
        bus.send(message("kills its receiver"))
        for _ in range(ATTEMPTS):
            one(bus)
            clock.advance(LEASE)
        bus.send(message("fine"))
        assert one(bus).message.data == "fine"
        assert counts(bus) == {"ready": 0, "leased": 1, "done": 0, "dead": 1}

    @pytest.mark.parametrize(
        "late",
        [
            lambda d: d.ack(),
            lambda d: d.nack(delay=SECOND),
            lambda d: d.reject("late"),
            lambda d: d.release(),
            lambda d: d.extend(),
        ],
        ids=["ack", "nack", "reject", "release", "extend"],
    )
    class TestThatIsStale:
        def unchanged(self, bus, late, delivery):
            before = record(bus)
            with pytest.raises(StaleLease, match=f"delivery {delivery.delivery_id} ended"):
                late(delivery)
            assert record(bus) == before

        def test_can_do_nothing_after_its_end_even_if_nobody_claimed_the_message(self, bus, clock, late):
            bus.send(message())
            delivery = one(bus)
            clock.advance(LEASE)
            self.unchanged(bus, late, delivery)

        def test_can_do_nothing_after_somebody_else_claimed_the_message(self, bus, clock, late):
            bus.send(message())
            delivery = one(bus)
            clock.advance(LEASE)
            holder = one(bus)
            self.unchanged(bus, late, delivery)
            holder.ack()

        @pytest.mark.parametrize(
            "settle",
            [
                lambda d: d.ack(),
                lambda d: d.nack(delay=timedelta(0)),
                lambda d: d.reject("no"),
                lambda d: d.release(),
            ],
            ids=["ack", "nack", "reject", "release"],
        )
        def test_can_do_nothing_after_it_was_settled(self, bus, late, settle):
            bus.send(message())
            delivery = one(bus)
            settle(delivery)
            self.unchanged(bus, late, delivery)

        def test_can_do_nothing_with_a_token_of_its_own_making(self, bus, late):
            bus.send(message())
            delivery = one(bus)
            delivery.token = "0" * 32
            self.unchanged(bus, late, delivery)

    def test_the_last_millisecond_of_a_lease_still_counts(self, bus, clock):
        bus.send(message())
        delivery = one(bus)
        clock.advance(LEASE - 0.001)
        delivery.ack()
        assert counts(bus)["done"] == 1

    def test_an_extended_lease_lasts_from_now_on(self, bus, clock):
        bus.send(message())
        delivery = one(bus)
        clock.advance(LEASE - 1)
        delivery.extend(30 * SECOND)
        assert delivery.lease_until == clock() + 30 * SECOND
        clock.advance(29.999)
        assert bus.receive(BOX) == []
        delivery.ack()

    def test_an_extension_can_shorten_a_lease(self, bus, clock):
        bus.send(message())
        delivery = one(bus)
        delivery.extend(SECOND)
        clock.advance(1)
        assert one(bus).attempt == 2

    def test_without_a_time_a_lease_is_extended_by_that_of_the_bus(self, bus, clock):
        bus.send(message())
        delivery = one(bus)
        clock.advance(1)
        delivery.extend()
        assert delivery.lease_until == clock() + LEASE * SECOND

    @pytest.mark.parametrize("lease", [timedelta(0), -SECOND])
    def test_an_extension_for_no_time_is_refused(self, bus, lease):
        bus.send(message())
        delivery = one(bus)
        with pytest.raises(InvalidMessage, match="lease must be positive"):
            delivery.extend(lease)
        delivery.ack()


class TestDeadLetters:
    def test_a_redrive_gives_another_chance_and_keeps_who_did_it_and_why(self, bus):
        number = bury(bus, "poison")
        assert bus.redrive(number, actor="ana", reason="fixed the parser") == [number]
        again = one(bus)
        assert (again.message.data, again.attempt) == ("poison", 1)
        again.ack()
        kept = record(bus, number)
        assert (kept.state, kept.redrives, kept.reason) == (DeliveryState.DONE, 1, None)
        assert [(h.event, h.actor, h.detail) for h in kept.history] == [
            ("reject", clocked.OWNER, "no use"),
            ("redrive", "ana", "fixed the parser"),
        ]

    def test_a_redriven_message_has_all_its_attempts_again(self, bus):
        bus.send(message())
        for _ in range(ATTEMPTS):
            one(bus).nack(delay=timedelta(0))
        bus.redrive(1, actor="ana", reason="again")
        for attempt in range(1, ATTEMPTS + 1):
            delivery = one(bus)
            assert delivery.attempt == attempt
            delivery.nack(delay=timedelta(0))
        assert counts(bus)["dead"] == 1
        assert record(bus).redrives == 1

    def test_a_redrive_takes_only_the_numbers_it_is_given(self, bus):
        numbers = [bury(bus, i) for i in range(3)]
        assert bus.redrive(numbers[1:], actor="ana", reason="again") == numbers[1:]
        assert counts(bus)["dead"] == 1

    def test_a_mailbox_can_be_redriven_whole(self, bus):
        bury(bus)
        bury(bus)
        bus.send(message("waits"))
        bus.send(message(recipient=OTHER))
        one(bus, OTHER).reject("other")
        assert bus.redrive(mailbox=BOX, actor="ana", reason="again") == [1, 2]
        assert counts(bus) == {"ready": 3, "leased": 0, "done": 0, "dead": 0}
        assert counts(bus, OTHER)["dead"] == 1

    def test_a_redrive_of_a_number_that_is_not_dead_changes_nothing_at_all(self, bus):
        dead = bury(bus)
        bus.send(message("waits"))
        before = bus.find(DeliveryQuery())
        with pytest.raises(MessageNotFound, match="not in the dead letters: 2, 99"):
            bus.redrive([dead, 2, 99], actor="ana", reason="again")
        assert bus.find(DeliveryQuery()) == before

    def test_a_redrive_of_no_numbers_redrives_nothing(self, bus):
        bury(bus)
        assert bus.redrive([], actor="ana", reason="again") == []
        assert counts(bus)["dead"] == 1

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"actor": "ana", "reason": "x"}, "one of the two"),
            ({"ids": [1], "mailbox": BOX, "actor": "ana", "reason": "x"}, "one of the two"),
            ({"ids": [1], "actor": " ", "reason": "x"}, "actor and a reason"),
            ({"ids": [1], "actor": "ana", "reason": ""}, "actor and a reason"),
        ],
    )
    def test_a_redrive_without_a_target_an_actor_or_a_reason_is_refused(self, bus, arguments, text):
        bury(bus)
        with pytest.raises(InvalidMessage, match=text):
            bus.redrive(**arguments)
        assert counts(bus)["dead"] == 1

    def test_dead_letters_are_listed_oldest_first_and_by_mailbox(self, bus):
        bury(bus, 0)
        bus.send(message("other", recipient=OTHER))
        one(bus, OTHER).reject("other")
        bury(bus, 1)
        assert [d.message.data for d in bus.dead_letters()] == [0, "other", 1]
        assert [d.message.data for d in bus.dead_letters(BOX)] == [0, 1]
        assert [d.message.data for d in bus.dead_letters(limit=2)] == [0, "other"]


class TestUndecodable:
    NEWER = (
        b'{"specversion":"1.0","agenticcodec":2,"id":"foreign-1","source":"elsewhere","type":"t","data":1}'
    )

    @pytest.mark.parametrize(
        ("envelope", "reason"),
        [
            (b"\xff\xfe not json", "the envelope is not JSON"),
            (b"[1, 2]", "not a CloudEvents 1.0 event"),
            (NEWER, "codec version 2; this version reads up to 1"),
            (b'{"specversion":"1.0","source":"e","type":"t","recipient":"auditor"}', "the event has no id"),
            (
                b'{"specversion":"1.0","id":"1","source":"e","type":"t","recipient":"not a mailbox"}',
                "recipient",
            ),
            (b"[" * 100_000, "not JSON"),
        ],
        ids=["bytes", "not-an-event", "newer", "no-id", "invalid", "bottomless"],
    )
    def test_an_envelope_that_cannot_be_read_goes_to_the_dead_letters_with_the_reason(
        self, bus, envelope, reason
    ):
        foreign(bus, envelope)
        bus.send(message("fine"))
        assert one(bus).message.data == "fine"
        [dead] = bus.dead_letters(BOX)
        assert dead.message is None
        assert reason in dead.reason
        assert dead.history[0].event == "reject"

    def test_it_is_shown_without_a_message_before_anybody_received_it(self, bus):
        foreign(bus, self.NEWER)
        assert record(bus).message is None
        assert "codec version 2" in record(bus).reason

    def test_a_newer_message_can_be_redriven_after_the_upgrade(self, bus):
        foreign(bus, self.NEWER)
        assert bus.receive(BOX) == []
        bus.redrive(1, actor="ana", reason="upgraded")
        assert counts(bus)["ready"] == 1

    def test_many_of_them_do_not_hide_the_message_behind_them(self, bus):
        for i in range(20):
            foreign(bus, b"x", message_id=f"foreign-{i}")
        bus.send(message("fine"))
        assert one(bus).message.data == "fine"
        assert counts(bus)["dead"] == 20


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
        assert [s.mailbox for s in bus._store.stats("abe")] == ["abe"]

    def test_an_unknown_mailbox_has_zeros(self, bus):
        assert bus.stats("nobody").total == 0
        assert bus._store.stats("nobody") == []
