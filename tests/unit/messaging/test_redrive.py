"""Dead letters on their way back: which, where to, how fast; on every store."""

from __future__ import annotations

from datetime import timedelta

import pytest
from mailbox_steps import BOX, OTHER, bury, counts, foreign, message, one, record

from airflow_agentic.errors import InvalidFilter, InvalidMessage, MessageNotFound, Unroutable
from airflow_agentic.messaging import BusOptions, DeliveryState, Message, MessageBus
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.messaging.routing import UNROUTABLE

WHY = {"actor": "ana", "reason": "mended"}


def lost(bus, data=None, topic="orders.eu", **values):
    """Publish what leads to nobody; return its number."""
    bus.publish(Message(source="shop", topic=topic, data=data, **values))
    return bus.dead_letters(UNROUTABLE)[-1].delivery_id


def data(deliveries):
    return [delivery.message.data for delivery in deliveries]


class Blobs:
    """A place for large data, in memory."""

    def __init__(self):
        self.kept = {}

    def put(self, name, content):
        self.kept[name] = content
        return name

    def get(self, where):
        return self.kept[where]

    def delete(self, where):
        self.kept.pop(where, None)


class TestWhich:
    def test_one_by_its_number(self, bus):
        first, second = bury(bus, 1), bury(bus, 2)
        assert bus.redrive(second, **WHY) == [second]
        assert (record(bus, first).state, record(bus, second).state) == (
            DeliveryState.DEAD,
            DeliveryState.READY,
        )

    def test_those_that_fit_a_filter(self, bus):
        numbers = [bury(bus, {"total": total}) for total in (50, 150, 250)]
        bury(bus, "no total")
        assert bus.redrive(mailbox=BOX, filter="msg.data.total > 100", **WHY) == numbers[1:]
        assert counts(bus)["dead"] == 2

    def test_a_filter_alone_looks_into_every_mailbox(self, bus):
        mine = bury(bus, 1)
        bus.send(message(2, recipient=OTHER))
        theirs = one(bus, OTHER)
        theirs.reject("no")
        assert bus.redrive(filter="true", **WHY) == [mine, theirs.delivery_id]

    def test_one_that_cannot_be_read_fits_no_filter_and_can_be_named(self, bus):
        foreign(bus, b"x")
        assert bus.receive(BOX) == []
        assert bus.redrive(mailbox=BOX, filter="true", **WHY) == []
        assert bus.redrive(1, **WHY) == [1]

    def test_a_thousand_are_redriven_by_a_filter(self, bus):
        bus.send_many(message(number) for number in range(1_000))
        for delivery in bus.receive(BOX, max_messages=1_000):
            delivery.reject("no")
        assert len(bus.redrive(filter="msg.data >= 0", **WHY)) == 1_000
        assert counts(bus)["ready"] == 1_000

    @pytest.mark.parametrize(
        ("arguments", "error", "said"),
        [
            ({}, InvalidMessage, "one of the two"),
            ({"ids": [1], "filter": "true"}, InvalidMessage, "one of the two"),
            ({"filter": "msg.data >"}, InvalidFilter, "does not compile"),
            ({"ids": 1, "rate": 0}, InvalidMessage, "rate must be positive"),
            ({"ids": 1, "rate": -2.5}, InvalidMessage, "rate must be positive"),
            ({"ids": 1, "to": "not a mailbox"}, InvalidMessage, "recipient"),
            ({"ids": [1, 99]}, MessageNotFound, "99"),
        ],
    )
    def test_what_cannot_be_meant_is_refused_and_changes_nothing(self, bus, arguments, error, said):
        bury(bus)
        with pytest.raises(error, match=said):
            bus.redrive(**arguments, **WHY)
        assert counts(bus)["dead"] == 1


class TestWhereTo:
    def test_another_mailbox_gets_it_with_its_history(self, bus):
        number = bury(bus, "poison")
        assert bus.redrive(number, to=OTHER, **WHY) == [number]
        again = one(bus, OTHER)
        assert (again.message.data, again.attempt) == ("poison", 1)
        assert [entry.event for entry in record(bus, number).history] == ["reject", "redrive"]
        assert bus.stats(BOX).total == 0

    def test_a_whole_mailbox_can_be_moved(self, bus):
        numbers = [bury(bus, number) for number in range(3)]
        assert bus.redrive(mailbox=BOX, to=OTHER, **WHY) == numbers
        assert data(bus.receive(OTHER, max_messages=9)) == [0, 1, 2]


class TestHowFast:
    def test_at_most_so_many_can_be_received_a_second(self, bus, clock):
        for number in range(4):
            bury(bus, number)
        bus.redrive(mailbox=BOX, rate=2, **WHY)
        seen = []
        for _ in range(4):
            seen.append(data(bus.receive(BOX, max_messages=9)))
            clock.advance(0.5)
        assert seen == [[0], [1], [2], [3]]

    def test_a_filter_keeps_to_the_rate_too(self, bus, clock):
        for number in range(4):
            bury(bus, number)
        bus.redrive(mailbox=BOX, filter="msg.data > 0", rate=0.1, **WHY)
        assert data(bus.receive(BOX, max_messages=9)) == [1]
        clock.advance(10)
        assert data(bus.receive(BOX, max_messages=9)) == [2]

    def test_those_that_led_to_nobody_keep_to_it_wherever_they_go(self, bus, clock):
        for number in range(6):
            lost(bus, number, topic="orders.eu" if number % 2 else "orders.us")
        bus.subscribe(BOX, "orders.eu")
        bus.subscribe(OTHER, "orders.us")
        assert len(bus.redrive(mailbox=UNROUTABLE, rate=1, **WHY)) == 6
        came = 0
        for _ in range(6):
            came += len(bus.receive(BOX, max_messages=9)) + len(bus.receive(OTHER, max_messages=9))
            clock.advance(1)
        assert came == 6
        visible = sorted(
            found.visible_at for found in bus.find(DeliveryQuery(states=(DeliveryState.LEASED,)))
        )
        assert len(visible) == 6

    def test_those_that_led_to_nobody_do_not_come_all_at_once(self, bus):
        for number in range(5):
            lost(bus, number)
        bus.subscribe(BOX, "orders.#")
        bus.redrive(mailbox=UNROUTABLE, rate=1, **WHY)
        assert data(bus.receive(BOX, max_messages=9)) == [0]
        assert bus.stats(BOX).delayed == 4


class TestThatLedNowhere:
    def test_they_are_routed_anew(self, bus):
        number = lost(bus, "news")
        bus.subscribe(BOX, "orders.#")
        bus.subscribe(OTHER, "orders.#")
        assert bus.redrive(number, **WHY) == [number]
        assert data(bus.receive(BOX, max_messages=9)) == ["news"]
        assert data(bus.receive(OTHER, max_messages=9)) == ["news"]
        assert bus.stats(UNROUTABLE).total == 0

    def test_the_first_keeps_the_history_and_the_copies_are_new(self, bus):
        number = lost(bus, "news")
        bus.subscribe(BOX, "orders.#")
        bus.subscribe(OTHER, "orders.#")
        bus.redrive(number, **WHY)
        moved, copy = bus.find(DeliveryQuery(message_id=record(bus, number).message.id))
        assert (moved.delivery_id, moved.mailbox, moved.redrives) == (number, BOX, 1)
        assert (copy.mailbox, copy.redrives) == (OTHER, 0)

    def test_one_that_still_leads_to_nobody_stops_all_of_it(self, bus):
        first, second = lost(bus, 1), lost(bus, 2, topic="audit")
        buried = bury(bus)
        bus.subscribe(BOX, "orders.#")
        with pytest.raises(
            Unroutable, match=f"delivery {second} still leads to nobody: nobody subscribed to topic audit"
        ):
            bus.redrive([first, second, buried], **WHY)
        assert {record(bus, number).state for number in (first, second, buried)} == {DeliveryState.DEAD}

    def test_they_can_be_sent_somewhere_by_name(self, bus):
        number = lost(bus, "news")
        assert bus.redrive(number, to=BOX, **WHY) == [number]
        assert one(bus).message.data == "news"

    def test_they_go_with_others_in_one_call(self, bus):
        number, buried = lost(bus, "news"), bury(bus, "old")
        bus.subscribe(OTHER, "orders.#")
        assert bus.redrive([buried, number], **WHY) == [number, buried]
        assert (one(bus).message.data, one(bus, OTHER).message.data) == ("old", "news")

    def test_a_broadcast_finds_its_audience(self, bus):
        bus.send(Message(source="shop", audience="role:auditor", data="hello"))
        bus.subscribe(BOX, role="auditor")
        bus.redrive(mailbox=UNROUTABLE, **WHY)
        assert one(bus).message.data == "hello"

    def test_large_data_that_is_kept_elsewhere_decides_too(self, store):
        bus = MessageBus(store.bus._store, BusOptions(claim_check_bytes=500), blobs=Blobs())
        large = {"total": 120, "text": "x" * 1_000}
        number = lost(bus, large)
        assert record(bus, number).message.data is None
        bus.subscribe(BOX, "orders.#", "msg.data.total > 100")
        assert bus.redrive(number, filter=None, **WHY) == [number]
        delivery = one(bus)
        assert delivery.message.data == large
        delivery.reject("no")
        assert bus.redrive(filter="msg.data.total > 1000", **WHY) == []
        assert bus.redrive(filter="msg.data.total > 100", **WHY) == [number]

    def test_large_data_that_is_gone_fits_no_filter_on_it(self, store):
        blobs = Blobs()
        bus = MessageBus(store.bus._store, BusOptions(claim_check_bytes=500), blobs=blobs)
        bus.send(message({"total": 120, "text": "x" * 1_000}))
        one(bus).reject("no")
        blobs.kept = dict.fromkeys(blobs.kept, b"other")
        assert bus.redrive(filter="msg.data.total > 100", **WHY) == []
        assert bus.redrive(filter="msg.source == 'scanner'", **WHY) == [1]


class TestWhoAndWhy:
    def test_texts_of_any_kind_are_kept(self, bus):
        number = bury(bus)
        bus.redrive(number, actor="ána <ana@example.org>", reason='it\'s "mended"\n漢字 100% {x} \udc80')
        entry = record(bus, number).history[-1]
        assert entry.actor == "ána <ana@example.org>"
        assert entry.detail == 'it\'s "mended"\n漢字 100% {x} ?'

    def test_each_time_is_kept(self, bus, clock):
        number = bury(bus)
        for who in ("ana", "bob"):
            bus.redrive(number, actor=who, reason="again")
            clock.advance(timedelta(minutes=1))
            one(bus).reject("still")
        found = record(bus, number)
        assert found.redrives == 2
        assert [(entry.event, entry.actor) for entry in found.history if entry.event == "redrive"] == [
            ("redrive", "ana"),
            ("redrive", "bob"),
        ]
