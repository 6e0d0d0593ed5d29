"""Signs of life, and what happens when one does not come, on every store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from mailbox_steps import BOX, OTHER, SECOND, counts, message, one

from airflow_agentic.errors import InvalidMessage, MailboxFull, MessageTooLarge, StaleLease
from airflow_agentic.messaging import BusOptions, Kind, MailboxRules, Message, MessageBus
from airflow_agentic.messaging.codec import decode
from airflow_agentic.messaging.liveness import MISSED
from airflow_agentic.messaging.routing import UNROUTABLE

EVERY = BusOptions().heartbeat


def beat(source="scanner", data=None, **values):
    return Message(source=source, kind=Kind.HEARTBEAT, data=data, **values)


def sources(bus, **conditions):
    return [
        found.source
        for found in bus.heartbeats()
        if all(getattr(found, name) == value for name, value in conditions.items())
    ]


class TestKeeping:
    def test_the_last_one_of_every_source_counts(self, bus, clock):
        bus.send(beat("b", 1))
        bus.send(beat("a", 2))
        clock.advance(1)
        assert bus.send(beat("b", 3)) is True
        first, second = bus.heartbeats()
        assert (first.source, decode(first.envelope).data) == ("a", 2)
        assert (second.source, decode(second.envelope).data, second.at) == ("b", 3, clock())

    def test_they_are_no_messages(self, bus):
        bus.send(beat())
        assert bus.mailboxes() == []
        assert bus.dead_letters() == []

    def test_the_next_one_is_due_in_the_usual_time_or_when_it_says(self, bus, clock):
        bus.send(beat("usual"))
        bus.send(beat("quick", expires_at=datetime.now(UTC) + 5 * SECOND))
        quick, usual = bus.heartbeats()
        assert usual.due_at == clock() + EVERY
        assert timedelta(0) < quick.due_at - clock() <= 5 * SECOND

    def test_they_travel_with_other_messages(self, bus):
        assert bus.send_many([message(1), beat(), message(2)]) == [True, True, True]
        assert counts(bus)["ready"] == 2
        assert sources(bus) == ["scanner"]

    @pytest.mark.parametrize(
        "settle",
        [
            lambda d: d.ack(send=[beat()]),
            lambda d: d.nack(send=[beat()]),
            lambda d: d.reject("no", send=[beat()]),
        ],
        ids=["ack", "nack", "reject"],
    )
    def test_they_come_with_the_end_of_a_delivery(self, bus, settle):
        bus.send(message())
        settle(one(bus))
        assert sources(bus) == ["scanner"]

    def test_they_do_not_come_with_a_stale_lease(self, bus, clock):
        bus.send(message())
        delivery = one(bus)
        clock.advance(3_600)
        with pytest.raises(StaleLease):
            delivery.ack(send=[beat()])
        assert bus.heartbeats() == []


class TestMissing:
    def test_a_source_that_is_silent_for_too_long_is_late(self, bus, clock):
        bus.send(beat("silent"))
        clock.advance(EVERY - SECOND)
        bus.send(beat("alive"))
        assert sources(bus, late=True) == []
        clock.advance(1)
        assert sources(bus, late=True) == ["silent"]

    def test_whoever_subscribed_is_told_once_each_time(self, bus, clock):
        bus.subscribe(BOX, MISSED)
        bus.send(beat("scanner"))
        due = clock.advance(EVERY)
        assert bus.report_late_heartbeats() == ["scanner"]
        assert bus.report_late_heartbeats() == []
        delivery = one(bus)
        delivery.ack()
        told = delivery.message
        assert (told.kind, told.topic, told.type, told.subject) == (
            Kind.NOTIFICATION,
            MISSED,
            MISSED,
            "scanner",
        )
        assert told.data == {
            "source": "scanner",
            "last": (due - EVERY).isoformat(),
            "due": due.isoformat(),
        }
        bus.send(beat("scanner"))
        clock.advance(EVERY)
        assert bus.report_late_heartbeats() == ["scanner"]
        assert one(bus).message.data["due"] == clock().isoformat()

    def test_several_reporters_tell_it_once(self, bus, clock):
        bus.subscribe(BOX, MISSED)
        bus.send(beat("scanner"))
        clock.advance(EVERY)
        [late] = bus.heartbeats()
        assert bus.report_late_heartbeats() == ["scanner"]
        # Another one saw the same heartbeat before this one noted that it was reported.
        bus._store.heartbeats.beat("scanner", late.envelope, timedelta(0))
        [again] = bus.heartbeats()
        assert (again.due_at, again.reported) == (late.due_at, False)
        bus.report_late_heartbeats()
        assert counts(bus)["ready"] == 1

    def test_where_nobody_subscribed_it_is_a_dead_letter(self, bus, clock):
        bus.send(beat("scanner"))
        clock.advance(EVERY)
        assert bus.report_late_heartbeats() == ["scanner"]
        [dead] = bus.dead_letters(UNROUTABLE)
        assert dead.message.subject == "scanner"

    def test_a_listener_without_room_keeps_no_other_one_back(self, store, clock):
        options = BusOptions(mailboxes={BOX: MailboxRules(limit=1)})
        bus = MessageBus(store.bus._store, options)
        bus.subscribe(BOX, MISSED, "msg.subject == 'a'")
        bus.subscribe(OTHER, MISSED, "msg.subject == 'b'")
        bus.send(message("in the way"))
        bus.send_many([beat("a"), beat("b")])
        clock.advance(EVERY)
        assert bus.report_late_heartbeats() == ["b"]
        assert one(bus, OTHER).message.subject == "b"
        one(bus).ack()
        assert bus.report_late_heartbeats() == ["a"]


class TestBadInput:
    def test_one_with_an_address_stops_its_whole_batch(self, bus):
        with pytest.raises(InvalidMessage, match="a heartbeat is for nobody"):
            bus.send_many([message(), beat(recipient=BOX)])
        assert bus.mailboxes() == []

    def test_one_with_an_address_stops_the_ack(self, bus):
        bus.send(message())
        delivery = one(bus)
        with pytest.raises(InvalidMessage, match="a heartbeat is for nobody"):
            delivery.ack(send=[beat(recipient=BOX)])
        assert counts(bus)["leased"] == 1
        delivery.ack()

    def test_one_that_is_late_when_it_is_sent_is_refused(self, bus):
        late = beat(expires_at=datetime.now(UTC) - SECOND)
        with pytest.raises(InvalidMessage, match="a heartbeat expired before it was sent"):
            bus.send_many([message(), late])
        assert (bus.mailboxes(), bus.heartbeats()) == ([], [])
        bus.send(message())
        one(bus).ack(send=[late])
        assert sources(bus, late=True) == ["scanner"]

    def test_one_over_the_limit_is_refused(self, store):
        bus = MessageBus(store.bus._store, BusOptions(max_message_bytes=2_000))
        with pytest.raises(MessageTooLarge, match="limit is 2,000"):
            bus.send(beat(data="x" * 2_000))
        assert bus.heartbeats() == []

    def test_there_is_always_room_for_one(self, store):
        bus = MessageBus(store.bus._store, BusOptions(mailbox_limit=1))
        bus.send(message())
        with pytest.raises(MailboxFull):
            bus.send(message())
        assert bus.send_many([beat(), beat("b")]) == [True, True]
