"""How deliveries end, on every store. The clock stands still unless a test moves it."""

from __future__ import annotations

from datetime import timedelta

import clocked
import pytest
from mailbox_steps import ATTEMPTS, BOX, LEASE, OTHER, SECOND, counts, message, one, record

from airflow_agentic.errors import InvalidMessage, StaleLease
from airflow_agentic.messaging import BusOptions, DeliveryState, MessageBus
from airflow_agentic.messaging.ports import DeliveryQuery


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


class TestAckAndReceive:
    def test_the_next_ones_come_with_the_ack(self, bus):
        bus.send_many(message(i) for i in range(4))
        deliveries = bus.receive(BOX)
        deliveries = bus.ack_and_receive(*deliveries, send=[message("sum", recipient=OTHER)], max_messages=2)
        assert [d.message.data for d in deliveries] == [1, 2]
        assert counts(bus) == {"ready": 1, "leased": 2, "done": 1, "dead": 0}
        assert one(bus, OTHER).message.data == "sum"

    def test_a_stale_lease_receives_nothing(self, bus, clock):
        bus.send_many([message(1), message(2)])
        stale = one(bus)
        clock.advance(LEASE)
        with pytest.raises(StaleLease):
            bus.ack_and_receive(stale)
        assert counts(bus) == {"ready": 1, "leased": 1, "done": 0, "dead": 0}

    def test_without_anything_to_ack_it_is_refused(self, bus):
        with pytest.raises(InvalidMessage, match="receive gives the first one"):
            bus.ack_and_receive()


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


class TestReasons:
    TEXT = "file 'a\udcff.txt' is bad\n漢字 100% {x} \"y\" \\"
    KEPT = "file 'a?.txt' is bad\n漢字 100% {x} \"y\" \\"

    @pytest.mark.parametrize(
        "settle",
        [lambda d, t: d.nack(delay=timedelta(0), reason=t), lambda d, t: d.reject(t)],
        ids=["nack", "reject"],
    )
    def test_any_text_is_kept_and_half_a_character_stops_nothing(self, bus, settle):
        bus.send(message())
        settle(one(bus), self.TEXT)
        assert record(bus).reason == self.KEPT
        assert record(bus).history[0].detail == self.KEPT


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
