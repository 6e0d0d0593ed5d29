"""Values that consumers keep, and receipts of what they handled, on every store."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from mailbox_steps import BOX, LEASE, OTHER, counts, message, one

from airflow_agentic.errors import AlreadyHandled, InvalidMessage, StaleLease, StateConflict
from airflow_agentic.messaging import Message
from airflow_agentic.messaging.state import INBOX


class TestValues:
    @pytest.mark.parametrize("value", [0, "", [], {"ü": [1, 2.5, None]}, False, 10**30])
    def test_come_back_as_they_were(self, bus, value):
        state = bus.state("totals")
        state.put("k", value)
        assert state.get("k", "nothing") == value
        assert state.read("k") == (value, 1)

    def test_that_are_not_there_have_a_default_and_version_0(self, bus):
        state = bus.state("totals")
        assert (state.get("k"), state.get("k", 5), state.version("k"), state.read("k")) == (
            None,
            5,
            0,
            (None, 0),
        )

    def test_have_a_version_that_grows(self, bus):
        state = bus.state("totals")
        for version in (1, 2, 3):
            state.put("k", "same")
            assert state.version("k") == version

    def test_can_be_forgotten(self, bus):
        state = bus.state("totals")
        state.put("k", 1)
        state.put("k", None)
        assert state.read("k") == (None, 0)
        assert list(state.entries()) == []

    def test_belong_to_their_scope(self, bus):
        bus.state("totals").put("k", 1)
        assert bus.state("others").get("k") is None
        assert [(entry.scope, entry.key) for entry in bus.state("totals").entries()] == [("totals", "k")]

    def test_are_listed_by_key_with_when_they_changed(self, bus, clock):
        state = bus.state("totals")
        for key in ("b", "a", "c"):
            state.put(key, key)
        assert [entry.key for entry in state.entries()] == ["a", "b", "c"]
        assert [entry.key for entry in state.entries(2)] == ["a", "b"]
        assert {entry.updated_at for entry in state.entries()} == {clock()}

    def test_of_another_version_are_not_overwritten(self, bus):
        state = bus.state("totals")
        state.put("k", 1, version=0)
        state.put("k", 2, version=1)
        for stale in (0, 1, 7):
            with pytest.raises(
                StateConflict, match=f"'k' of 'totals' has version 2, not {stale}: somebody else"
            ):
                state.put("k", "lost", version=stale)
        assert state.read("k") == (2, 2)

    def test_that_many_add_to_lose_nothing(self, bus):
        def add():
            for _ in range(5):
                while True:
                    value, version = bus.state("totals").read("k")
                    try:
                        bus.state("totals").put("k", (value or 0) + 1, version=version)
                    except StateConflict:
                        continue
                    break

        workers = [threading.Thread(target=add) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert bus.state("totals").read("k") == (15, 15)

    @pytest.mark.parametrize(
        ("value", "place"),
        [
            ({1, 2}, r"state\['k'\] is a set"),
            ({"a": [float("nan")]}, r"state\['k'\]\['a'\]\[0\] is nan"),
            (b"x", "bytes"),
        ],
    )
    def test_that_are_no_json_are_refused_by_their_place(self, bus, value, place):
        with pytest.raises(InvalidMessage, match=place):
            bus.state("totals").put("k", value)
        assert bus.state("totals").version("k") == 0

    def test_that_could_not_be_read_again_are_refused(self, bus):
        deep = 1
        for _ in range(300):
            deep = [deep]
        with pytest.raises(InvalidMessage, match="nested too deeply"):
            bus.state("totals").put("k", deep)


class TestWithAnAck:
    def test_they_change_in_the_commit_of_the_ack(self, bus):
        bus.send(message(5))
        one(bus).ack(state={"total": 5, "last": "m"}, send=[message("next", recipient=OTHER)])
        assert bus.state(BOX).read("total") == (5, 1)
        assert bus.state(BOX).get("last") == "m"
        assert (counts(bus)["done"], counts(bus, OTHER)["ready"]) == (1, 1)

    def test_a_value_of_another_version_stops_everything(self, bus):
        bus.state(BOX).put("total", 1)
        bus.send(message(5))
        delivery = one(bus)
        bus.state(BOX).put("total", 2)
        with pytest.raises(StateConflict) as caught:
            delivery.ack(
                state={"total": 6, "other": 1}, versions={"total": 1}, send=[message(recipient=OTHER)]
            )
        assert not isinstance(caught.value, AlreadyHandled)
        assert (bus.state(BOX).get("total"), bus.state(BOX).get("other")) == (2, None)
        assert (counts(bus)["leased"], bus.stats(OTHER).total) == (1, 0)
        delivery.ack(state={"total": 7}, versions={"total": 2})
        assert bus.state(BOX).read("total") == (7, 3)

    def test_a_stale_lease_changes_nothing(self, bus, clock):
        bus.send(message(5))
        delivery = one(bus)
        clock.advance(LEASE)
        with pytest.raises(StaleLease):
            delivery.ack(state={"total": 5}, inbox="agent")
        assert bus.state(BOX).version("total") == 0
        assert not bus.handled("agent", delivery.message)

    def test_a_value_can_be_forgotten_by_it(self, bus):
        bus.state(BOX).put("total", 1)
        bus.send(message())
        one(bus).ack(state={"total": None}, versions={"total": 1})
        assert bus.state(BOX).version("total") == 0

    def test_deliveries_of_several_mailboxes_have_no_common_state(self, bus):
        bus.send_many([message(), message(recipient=OTHER)])
        deliveries = one(bus), one(bus, OTHER)
        with pytest.raises(InvalidMessage, match="ack deliveries of one mailbox at a time"):
            bus.ack(*deliveries, state={"total": 1})
        bus.ack(*deliveries)

    def test_a_version_of_what_is_not_changed_is_refused(self, bus):
        bus.send(message())
        delivery = one(bus)
        with pytest.raises(InvalidMessage, match="versions= names what state= does not change: other"):
            delivery.ack(state={"total": 1}, versions={"other": 1})
        delivery.ack()


class TestInbox:
    def test_a_message_is_handled_once_whatever_delivery_it_comes_by(self, bus):
        for mailbox in (BOX, OTHER):
            bus.subscribe(mailbox, "orders.#")
        bus.publish(Message(source="shop", topic="orders", id="m-1"))
        first, second = one(bus), one(bus, OTHER)
        assert not bus.handled("agent", first.message)
        first.ack(inbox="agent", state={"n": 1})
        assert bus.handled("agent", second.message)
        with pytest.raises(
            AlreadyHandled, match=r"message m-1 was handled by 'agent' before.*Ack it without effects"
        ):
            second.ack(inbox="agent", state={"n": 1}, send=[message()])
        assert bus.state(OTHER).get("n") is None
        assert counts(bus)["ready"] == 0
        second.ack()

    def test_a_redriven_message_is_recognised(self, bus):
        bus.send(message(id="m-1"))
        delivery = one(bus)
        delivery.reject("no", send=[])
        bus.send(message(id="m-2"))
        one(bus).ack(inbox="agent")
        bus.redrive(1, actor="ana", reason="again")
        one(bus).ack(inbox="agent")
        assert bus.handled("agent", delivery.message)

    def test_every_consumer_has_receipts_of_its_own(self, bus):
        bus.send(message(id="m-1"))
        delivery = one(bus)
        delivery.ack(inbox="agent")
        assert bus.handled("agent", delivery.message)
        assert not bus.handled("another", delivery.message)

    def test_no_other_message_is_taken_for_it(self, bus):
        names = [("a", "b c"), ("a b", "c"), ("a b c", "d"), ("1 a", "b")]
        sent = [Message(source=source, recipient=BOX, id=identity) for source, identity in names]
        bus.send_many(sent)
        one(bus).ack(inbox="agent")
        assert [bus.handled("agent", each) for each in sent] == [True, False, False, False]

    def test_copies_that_are_handled_together_are_noted_once(self, bus):
        for mailbox in (BOX, OTHER):
            bus.subscribe(mailbox, "orders.#")
        bus.publish(Message(source="shop", topic="orders", id="m-1"))
        copies = one(bus), one(bus, OTHER)
        bus.ack(*copies, inbox="agent")
        assert bus.handled("agent", copies[0].message)
        assert (counts(bus)["done"], counts(bus, OTHER)["done"]) == (1, 1)

    def test_receipts_are_forgotten_with_the_dedup_window_and_values_are_not(self, bus, clock):
        bus.send(message(id="m-1"))
        delivery = one(bus)
        delivery.ack(inbox="agent", state={"total": 1})
        clock.advance(bus.options.dedup_window - timedelta(seconds=1))
        bus.purge()
        assert bus.handled("agent", delivery.message)
        clock.advance(2)
        assert bus.purge() == 1
        assert not bus.handled("agent", delivery.message)
        assert bus.state(BOX).get("total") == 1

    def test_no_mailbox_can_be_called_like_a_receipt(self):
        with pytest.raises(InvalidMessage, match="recipient"):
            message(recipient=f"{INBOX}agent")
