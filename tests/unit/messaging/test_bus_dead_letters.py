"""Dead letters, on every store."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

import clocked
import pytest
from mailbox_steps import ATTEMPTS, BOX, OTHER, bury, counts, foreign, message, one, record

from airflow_agentic.errors import InvalidMessage, MessageNotFound
from airflow_agentic.messaging import DeliveryState, MessageBus
from airflow_agentic.messaging.bus import process_name
from airflow_agentic.messaging.ports import DeliveryQuery, Settlement, Wanted
from airflow_agentic.stores.memory import memory_bus_store
from airflow_agentic.testing import FakeClock


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
        b'{"specversion":"1.0","agenticcodec":3,"id":"foreign-1","source":"elsewhere","type":"t","data":1}'
    )

    @pytest.mark.parametrize(
        ("envelope", "reason"),
        [
            (b"\xff\xfe not json", "the envelope is not JSON"),
            (b"[1, 2]", "not a CloudEvents 1.0 event"),
            (NEWER, "codec version 3; this version reads up to 2"),
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
        assert "codec version 3" in record(bus).reason

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

    def test_a_lease_that_ends_meanwhile_stops_nobody(self):
        clock = FakeClock()
        bus = MessageBus(memory_bus_store(lambda: clock.advance(2)))
        foreign(bus, b"x")
        assert bus.receive(BOX, lease=timedelta(seconds=1)) == []
        assert [dead.reason for dead in bus.dead_letters()] == [
            f"attempts spent: the lease of the last one ({process_name()}) ended"
        ]

    def test_what_another_version_handled_is_forgotten_with_the_rest(self, store, clock):
        class Elsewhere:
            deleted: ClassVar[list[str]] = []

            def delete(self, where):
                self.deleted.append(where)

        bus = MessageBus(store.bus._store, blobs=Elsewhere())
        foreign(bus, b'{"agenticcodec":9,"dataref":"theirs"}')
        bus.send(message(data_ref="ours", data_digest="0" * 64))
        claims = bus._store.messages.claim(Wanted(BOX, 9, timedelta(hours=1), "them"))
        bus._store.messages.settle([Settlement(c.delivery_id, c.token, "ack", mailbox=BOX) for c in claims])
        clock.advance(timedelta(days=30))
        assert bus.purge() == 2
        assert Elsewhere.deleted == ["ours"]
