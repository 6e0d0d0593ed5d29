"""Messages with one ordering key, as agents see them, on every store."""

from __future__ import annotations

import random
import time
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mailbox_steps import ATTEMPTS, BOX, LEASE, OTHER, SECOND, counts, message, one, record

from airflow_agentic.errors import StaleLease
from airflow_agentic.messaging import DeliveryState, Message, MessageBus
from airflow_agentic.messaging.ports import Address, Outgoing
from airflow_agentic.stores.memory import memory_bus_store
from airflow_agentic.testing import FakeClock


def keyed(data, key="k", **values):
    return message(data, ordering_key=key, **values)


def data(deliveries):
    return [delivery.message.data for delivery in deliveries]


class TestOrder:
    def test_one_key_is_handled_in_order_and_one_at_a_time(self, bus):
        bus.send_many(keyed(number) for number in range(3))
        for number in range(3):
            [delivery] = bus.receive(BOX, max_messages=9)
            assert (delivery.message.data, delivery.ordering_key) == (number, "k")
            assert bus.receive(BOX, max_messages=9) == []
            delivery.ack()

    def test_a_batch_has_one_of_each_key_and_all_that_have_none(self, bus):
        bus.send_many([keyed("k1"), keyed("k2"), keyed("l1", "l"), message("free 1"), message("free 2")])
        assert data(bus.receive(BOX, max_messages=9)) == ["k1", "l1", "free 1", "free 2"]

    def test_ack_and_receive_goes_on_in_the_lane(self, bus):
        bus.send_many(keyed(number) for number in range(3))
        handled, deliveries = [], bus.receive(BOX)
        while deliveries:
            handled += data(deliveries)
            deliveries = bus.ack_and_receive(*deliveries)
        assert handled == [0, 1, 2]

    def test_what_is_sent_by_the_ack_of_the_first_waits_its_turn(self, bus):
        bus.send_many([keyed("first"), keyed("second")])
        one(bus).ack(send=[keyed("third")])
        assert data(bus.receive(BOX, max_messages=9)) == ["second"]

    def test_each_mailbox_of_a_topic_has_lanes_of_its_own(self, bus):
        bus.subscribe(BOX, "orders.#")
        bus.subscribe(OTHER, "orders.#")
        for number in (1, 2):
            bus.publish(Message(source="shop", topic="orders.eu", ordering_key="k", data=number))
        first = one(bus)
        assert data(bus.receive(OTHER, max_messages=9)) == [1]
        first.ack()
        assert data(bus.receive(BOX, max_messages=9)) == [2]
        assert bus.receive(OTHER) == []


class TestFailure:
    def test_a_blocked_key_holds_up_only_itself(self, bus, clock):
        bus.send_many([keyed("k1"), keyed("k2"), keyed("l1", "l")])
        one(bus).nack(delay=10 * SECOND)
        assert data(bus.receive(BOX, max_messages=9)) == ["l1"]
        clock.advance(10)
        assert data(bus.receive(BOX, max_messages=9)) == ["k1"]

    def test_who_dies_with_the_first_one_holds_its_lane_until_the_lease_ends(self, bus, clock):
        bus.send_many([keyed(1), keyed(2)])
        one(bus)
        clock.advance(LEASE - 1)
        assert bus.receive(BOX) == []
        clock.advance(1)
        again = one(bus)
        assert (again.message.data, again.attempt) == (1, 2)

    def test_a_poisonous_one_blocks_its_lane_only_until_its_attempts_are_spent(self, bus):
        bus.send_many([keyed("poison"), keyed("fine")])
        for _ in range(ATTEMPTS):
            one(bus).nack(delay=timedelta(0))
        assert one(bus).message.data == "fine"
        assert counts(bus)["dead"] == 1

    def test_one_that_cannot_be_read_lets_the_next_go(self, store):
        address = (Address(BOX, ATTEMPTS),)
        store.bus._store.messages.append([Outgoing("m-0", "elsewhere", "c", b"x", address, "k")])
        store.bus.send(keyed("fine"))
        assert one(store.bus).message.data == "fine"

    def test_a_released_one_is_still_the_first(self, bus):
        bus.send_many([keyed(1), keyed(2)])
        one(bus).release()
        assert data(bus.receive(BOX, max_messages=9)) == [1]

    def test_one_of_several_can_be_settled_and_the_others_not(self, bus):
        bus.send_many([keyed(f"{key}{number}", key) for number in (1, 2) for key in "abc"])
        first, second, third = bus.receive(BOX, max_messages=9)
        second.ack()
        assert data(bus.receive(BOX, max_messages=9)) == ["b2"]
        bus.ack(first, third)
        assert data(bus.receive(BOX, max_messages=9)) == ["a2", "c2"]


class TestLooking:
    def test_what_waits_is_counted_and_shown(self, bus):
        bus.send_many(keyed(number) for number in range(3))
        stats = bus.stats(BOX)
        assert (stats.ready, stats.waiting, stats.claimable, stats.open) == (3, 2, 1, 3)
        assert [record(bus, number).waiting for number in (1, 2, 3)] == [False, True, True]
        one(bus).ack()
        assert (bus.stats(BOX).waiting, bus.stats(BOX).claimable) == (1, 1)

    def test_a_redriven_one_waits_behind_the_one_that_is_at_work(self, bus):
        bus.send_many([keyed(1), keyed(2), keyed(3)])
        one(bus).reject("no")
        second = one(bus)
        bus.redrive(1, actor="ana", reason="mended")
        assert bus.receive(BOX) == []
        second.ack()
        assert data(bus.receive(BOX, max_messages=9)) == [1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False), st.integers(1, 4), st.integers(1, 25))
def test_whatever_fails_each_key_ends_in_order(chance: random.Random, lanes, count):
    clock = FakeClock()
    bus = MessageBus(memory_bus_store(clock))
    bus = bus.with_options(max_attempts=1_000, retry_max=SECOND)
    for number in range(count):
        bus.send(keyed(number, f"key-{chance.randrange(lanes)}"))
    ended, held = {}, []
    while bus.stats(BOX).open:
        held += bus.receive(BOX, max_messages=chance.randint(1, 3), lease=5 * SECOND)
        clock.advance(chance.choice([0, 1, 6]))
        chance.shuffle(held)
        while held and chance.random() < 0.7:
            delivery = held.pop()
            try:
                chance.choice(
                    [delivery.ack, delivery.nack, delivery.release, lambda d=delivery: d.reject("no")]
                )()
            except StaleLease:
                continue
            if record(bus, delivery.delivery_id).state in (DeliveryState.DONE, DeliveryState.DEAD):
                ended.setdefault(delivery.ordering_key, []).append(delivery.message.data)
    assert all(order == sorted(order) for order in ended.values())
    assert sum(map(len, ended.values())) == count


def test_a_thousand_blocked_keys_do_not_slow_the_others(bus):
    bus.send_many(keyed(number, f"key-{number % 1_000}") for number in range(2_000))
    blocked = bus.receive(BOX, max_messages=1_000)
    assert len(blocked) == 1_000
    bus.send(message("free"))
    start = time.perf_counter()
    assert one(bus).message.data == "free"
    assert time.perf_counter() - start < 1
    blocked[7].ack()
    assert one(bus).message.data == 1_007
