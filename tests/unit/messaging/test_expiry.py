"""Messages that are of no use after a time, on every store. A message's end is by its sender's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from mailbox_steps import BOX, LEASE, OTHER, SECOND, counts, message, one, record

from airflow_agentic.errors import InvalidMessage, StaleLease
from airflow_agentic.messaging import DeliveryState, Message
from airflow_agentic.messaging.ports import EXPIRED


def until(seconds):
    return datetime.now(UTC) + timedelta(seconds=seconds)


def short_lived(data=None, seconds=30, **values):
    return message(data, expires_at=until(seconds), **values)


class TestInTime:
    def test_it_arrives_with_its_end(self, bus):
        sent = short_lived("quick")
        bus.send(sent)
        assert one(bus).message.expires_at == sent.expires_at

    def test_the_clock_of_the_store_may_be_any(self, bus, clock):
        clock.advance(timedelta(days=3_650))
        bus.send(short_lived("quick"))
        assert one(bus).message.data == "quick"

    def test_who_holds_it_may_finish(self, bus, clock):
        bus.send(short_lived("quick"))
        delivery = one(bus)
        clock.advance(31)
        delivery.ack()
        assert counts(bus)["done"] == 1


class TestTooLate:
    def test_it_is_received_by_nobody_and_becomes_a_dead_letter(self, bus, clock):
        bus.send(short_lived("slow"))
        bus.send(message("fine"))
        clock.advance(31)
        assert [delivery.message.data for delivery in bus.receive(BOX, max_messages=9)] == ["fine"]
        dead = record(bus)
        assert (dead.state, dead.reason, dead.attempts) == (DeliveryState.DEAD, EXPIRED, 0)
        assert [(entry.event, entry.detail, entry.at) for entry in dead.history] == [
            ("expired", EXPIRED, clock())
        ]

    def test_many_of_them_hide_nothing(self, bus, clock):
        bus.send_many(short_lived(number) for number in range(50))
        clock.advance(31)
        bus.send(message("fine"))
        assert one(bus).message.data == "fine"

    def test_it_is_not_handed_out_again_after_a_failure(self, bus, clock):
        bus.send(short_lived())
        delivery = one(bus)
        clock.advance(31)
        delivery.nack(delay=timedelta(0), reason="service down")
        assert bus.receive(BOX) == []
        assert record(bus).reason == EXPIRED
        assert [entry.event for entry in record(bus).history] == ["nack", "expired"]

    def test_it_is_not_handed_out_again_after_a_lost_lease(self, bus, clock):
        bus.send(short_lived())
        delivery = one(bus)
        clock.advance(LEASE)
        assert bus.receive(BOX) == []
        assert [entry.event for entry in record(bus).history] == ["lease-expired", "expired"]
        with pytest.raises(StaleLease):
            delivery.ack()

    def test_a_purge_finds_it_where_nobody_receives(self, bus, clock):
        bus.send(short_lived())
        bus.send(message("fine"))
        clock.advance(31)
        assert bus.purge() == 0
        assert counts(bus) == {"ready": 1, "leased": 0, "done": 0, "dead": 1}

    def test_a_copy_for_one_subscriber_may_be_in_time_and_the_other_not(self, bus, clock):
        for mailbox in (BOX, OTHER):
            bus.subscribe(mailbox, "orders.#")
        bus.publish(Message(source="shop", topic="orders", expires_at=until(30)))
        one(bus).ack()
        clock.advance(31)
        assert bus.receive(OTHER) == []
        assert (counts(bus)["done"], counts(bus, OTHER)["dead"]) == (1, 1)

    def test_a_redriven_one_does_not_expire_again(self, bus, clock):
        bus.send(short_lived("second chance"))
        clock.advance(31)
        bus.receive(BOX)
        bus.redrive(1, actor="ana", reason="still wanted")
        clock.advance(timedelta(days=30))
        assert one(bus).message.data == "second chance"


class TestThatIsOverAlready:
    def test_it_is_refused_and_the_time_is_named(self, bus):
        late = short_lived(seconds=-5, id="m-1")
        with pytest.raises(
            InvalidMessage, match=r"message m-1 expired at .*, before it was sent: give it a later"
        ):
            bus.send(late)
        with pytest.raises(InvalidMessage, match="before it was sent"):
            bus.send_many([message(), late])
        assert bus.mailboxes() == []

    def test_it_is_not_published(self, bus):
        bus.subscribe(BOX, "orders.#")
        with pytest.raises(InvalidMessage, match="before it was sent"):
            bus.publish(Message(source="shop", topic="orders", expires_at=until(-5)))
        assert bus.mailboxes() == []

    def test_what_handling_produced_too_late_is_a_dead_letter_and_the_ack_holds(self, bus):
        bus.send(message())
        one(bus).ack(send=[short_lived("answer", seconds=-5, recipient=OTHER)])
        assert counts(bus)["done"] == 1
        [dead] = bus.dead_letters(OTHER)
        assert (dead.message.data, dead.reason) == ("answer", EXPIRED)

    def test_it_is_a_dead_letter_too_when_a_delivery_is_given_back(self, bus):
        for settle in (lambda d, late: d.nack(send=late), lambda d, late: d.reject("no", send=late)):
            bus.send(message())
            settle(one(bus), [short_lived(seconds=-5, recipient=OTHER)])
        assert counts(bus, OTHER)["dead"] == 2

    def test_an_end_before_the_time_it_may_be_received_is_an_end(self, bus, clock):
        bus.send(short_lived(), delay=60 * SECOND)
        clock.advance(60)
        assert bus.receive(BOX) == []
        assert record(bus).reason == EXPIRED
