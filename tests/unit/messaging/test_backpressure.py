"""Mailboxes that hold so many messages and no more, on every store."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from mailbox_steps import BOX, OTHER, counts, message, one

from airflow_agentic.errors import MailboxFull
from airflow_agentic.messaging import BusOptions, DeliveryState, MailboxRules, Message, MessageBus

POLL = timedelta(seconds=0.01)


def limited(store, limit=2, **options):
    options = {"poll": POLL, "block": timedelta(seconds=0.05), **options}
    return MessageBus(store.bus._store, BusOptions(mailbox_limit=limit, **options))


def full(store, **options):
    """A bus whose first mailbox has no room: one message waits and one is in somebody's hands."""
    bus = limited(store, **options)
    bus.send_many([message(1), message(2)])
    return bus, one(bus)


class TestRefuse:
    def test_a_full_mailbox_takes_nothing_and_says_so(self, store):
        bus, _ = full(store)
        with pytest.raises(
            MailboxFull, match=f"the mailbox '{BOX}' is full: it may have 2 open messages"
        ) as caught:
            bus.send(message(3))
        assert caught.value.retry_helps
        assert counts(bus) == {"ready": 1, "leased": 1, "done": 0, "dead": 0}

    @pytest.mark.parametrize("end", [lambda d: d.ack(), lambda d: d.reject("no")], ids=["ack", "reject"])
    def test_what_ends_makes_room(self, store, end):
        bus, delivery = full(store)
        end(delivery)
        assert bus.send(message(3)) is True

    @pytest.mark.parametrize("back", [lambda d: d.nack(), lambda d: d.release()], ids=["nack", "release"])
    def test_what_comes_back_makes_none(self, store, back):
        bus, delivery = full(store)
        back(delivery)
        with pytest.raises(MailboxFull):
            bus.send(message(3))

    def test_nothing_of_a_batch_is_sent_and_all_of_it_can_be_sent_later(self, store):
        bus, delivery = full(store)
        batch = [message("a", recipient=OTHER, id="m-a"), message("b", id="m-b")]
        with pytest.raises(MailboxFull):
            bus.send_many(batch)
        assert bus.stats(OTHER).total == 0
        delivery.ack()
        assert bus.send_many(batch) == [True, True]

    def test_whoever_sends_again_what_is_there_is_told_so(self, store):
        bus = limited(store, limit=1)
        bus.send(message(1, id="m-1"))
        assert bus.send(message(1, id="m-1")) is False

    def test_one_full_subscriber_refuses_for_all(self, store):
        bus, _ = full(store)
        for mailbox in (BOX, OTHER):
            bus.subscribe(mailbox, "orders.#")
        with pytest.raises(MailboxFull):
            bus.publish(Message(source="shop", topic="orders"))
        assert bus.stats(OTHER).total == 0

    def test_what_a_message_leads_to_has_no_room_so_it_is_not_acked(self, store):
        bus, _ = full(store)
        bus.send(message("work", recipient=OTHER))
        delivery = one(bus, OTHER)
        with pytest.raises(MailboxFull):
            delivery.ack(send=[message(3)], state={"seen": 1}, inbox="agent")
        assert counts(bus, OTHER)["leased"] == 1
        assert bus.state(OTHER).get("seen") is None
        assert not bus.handled("agent", delivery.message)
        delivery.nack(reason="no room")

    def test_without_a_limit_there_is_room(self, store):
        bus = limited(store, limit=0)
        bus.send_many(message(number) for number in range(50))
        assert counts(bus)["ready"] == 50


class TestBlock:
    def test_a_sender_waits_until_there_is_room(self, store):
        bus, delivery = full(store, overflow="block", block=timedelta(seconds=30))
        worker = threading.Timer(0.1, delivery.ack)
        worker.start()
        assert bus.send(message(3)) is True
        worker.join()
        assert counts(bus) == {"ready": 2, "leased": 0, "done": 1, "dead": 0}

    def test_a_sender_does_not_wait_for_ever(self, store):
        bus, _ = full(store, overflow="block", block=timedelta(seconds=0.1))
        start = time.monotonic()
        with pytest.raises(MailboxFull):
            bus.send(message(3))
        assert 0.1 <= time.monotonic() - start < 10
        assert counts(bus)["ready"] == 1

    def test_who_holds_a_lease_does_not_wait_with_it(self, store):
        bus, _ = full(store, overflow="block", block=timedelta(seconds=30))
        bus.send(message("work", recipient=OTHER))
        start = time.monotonic()
        with pytest.raises(MailboxFull):
            one(bus, OTHER).ack(send=[message(3)])
        assert time.monotonic() - start < 10


class TestDeadLetter:
    def test_what_is_too_much_is_kept_as_a_dead_letter(self, store):
        bus, _ = full(store, overflow="dead-letter")
        assert bus.send(message(3)) is True
        [dead] = bus.dead_letters(BOX)
        assert dead.message.data == 3
        assert dead.reason == f"the mailbox '{BOX}' is full: it may have 2 open messages"

    def test_it_can_be_redriven_when_there_is_room(self, store):
        bus, delivery = full(store, overflow="dead-letter")
        bus.send(message(3))
        delivery.ack()
        bus.redrive(mailbox=BOX, actor="ana", reason="room again")
        assert [delivery.message.data for delivery in bus.receive(BOX, max_messages=9)] == [2, 3]

    def test_other_subscribers_get_theirs(self, store):
        bus, _ = full(store, overflow="dead-letter")
        for mailbox in (BOX, OTHER):
            bus.subscribe(mailbox, "orders.#")
        assert bus.publish(Message(source="shop", topic="orders", data="news")) == [BOX, OTHER]
        assert one(bus, OTHER).message.data == "news"
        assert counts(bus)["dead"] == 1

    def test_an_ack_that_leads_to_one_holds(self, store):
        bus, _ = full(store, overflow="dead-letter")
        bus.send(message("work", recipient=OTHER))
        one(bus, OTHER).ack(send=[message(3)])
        assert (counts(bus, OTHER)["done"], counts(bus)["dead"]) == (1, 1)


class TestRulesOfAMailbox:
    def test_they_come_before_those_of_the_bus(self, store):
        rules = {BOX: MailboxRules(limit=1, overflow="dead-letter"), "open": MailboxRules(limit=0)}
        bus = limited(store, limit=2, mailboxes=rules)
        bus.send_many([message(1), message(2)])
        bus.send_many(message(number, recipient="open") for number in range(5))
        bus.send_many([message(1, recipient=OTHER), message(2, recipient=OTHER)])
        with pytest.raises(MailboxFull, match=f"'{OTHER}' is full: it may have 2"):
            bus.send(message(3, recipient=OTHER))
        assert [found.state for found in bus.dead_letters()] == [DeliveryState.DEAD]
        assert (counts(bus)["dead"], counts(bus, "open")["ready"]) == (1, 5)

    def test_a_limit_that_was_lowered_stops_new_ones_and_keeps_old_ones(self, store):
        limited(store, limit=0).send_many(message(number) for number in range(5))
        bus = limited(store, limit=2)
        with pytest.raises(MailboxFull):
            bus.send(message(5))
        assert len(bus.receive(BOX, max_messages=9)) == 5
