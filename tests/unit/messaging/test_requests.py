"""Requests and their answers, on every store."""

from __future__ import annotations

import contextlib
import threading
from datetime import UTC, datetime, timedelta

import pytest
from mailbox_steps import BOX, OTHER, SECOND, counts, message, one

from airflow_agentic.errors import InvalidMessage, ReplyTimeout, ServiceRefused, Unroutable
from airflow_agentic.messaging import DeliveryState, Kind, Message
from airflow_agentic.messaging.kinds import answer, refusal
from airflow_agentic.messaging.requests import prepared, reply_mailbox

SOON = 0.05
PATIENCE = 30


@contextlib.contextmanager
def answering(bus, make, mailbox=BOX):
    """Answer the next request of a mailbox from another thread."""

    def work():
        [delivery] = bus.receive(mailbox, wait=PATIENCE * SECOND)
        delivery.ack(send=make(delivery.message))

    worker = threading.Thread(target=work)
    worker.start()
    yield
    worker.join()


def replied(data):
    return lambda asked: [answer(asked, "auditor", data)]


class TestAnswered:
    def test_the_answer_comes_back(self, bus):
        with answering(bus, replied({"ok": True})):
            said = bus.request(message("?"), timeout=PATIENCE)
        assert (said.kind, said.data, said.source) == (Kind.RESPONSE, {"ok": True}, "auditor")

    def test_an_error_comes_back_as_a_message(self, bus):
        with answering(bus, lambda asked: [refusal(asked, "auditor", ServiceRefused("no licence"))]):
            said = bus.request(message("?"), timeout=PATIENCE * SECOND)
        assert (said.kind, said.data["message"], said.data["category"]) == (
            Kind.ERROR,
            "no licence",
            "permanent",
        )

    def test_the_request_arrives_with_a_deadline_and_a_mailbox_for_its_answer(self, bus):
        seen = []

        def look(asked):
            seen.append(asked)
            return replied(1)(asked)

        with answering(bus, look):
            bus.request(message("?", id="m-1"), timeout=PATIENCE)
        [asked] = seen
        assert asked.kind is Kind.REQUEST
        assert asked.reply_to == reply_mailbox(message(id="m-1"))
        assert timedelta(0) < asked.expires_at - datetime.now(UTC) <= PATIENCE * SECOND

    def test_the_same_request_again_finds_the_same_answer(self, bus):
        with answering(bus, replied("once")):
            first = bus.request(message("?", id="m-1"), timeout=PATIENCE)
        again = bus.request(message("?", id="m-1"), timeout=PATIENCE)
        assert again == first
        assert counts(bus)["done"] == 1

    def test_after_a_crash_the_answer_that_came_meanwhile_is_found(self, bus):
        asked = prepared(message("?", id="m-1"), PATIENCE * SECOND)
        bus.ask(asked)
        delivery = one(bus)
        delivery.ack(send=replied("meanwhile")(delivery.message))
        assert bus.request(message("?", id="m-1"), timeout=PATIENCE).data == "meanwhile"

    def test_what_is_no_answer_to_it_is_put_aside_with_the_reason(self, bus):
        asked = prepared(message("?", id="m-1"), PATIENCE * SECOND)
        bus.send(message("spam", recipient=asked.reply_to, causation_id="another"))
        with answering(bus, replied("right")):
            assert bus.request(message("?", id="m-1"), timeout=PATIENCE).data == "right"
        [dead] = bus.dead_letters(asked.reply_to)
        assert dead.reason == "it answers another, and request m-1 waits here"

    def test_a_request_to_a_topic_takes_the_first_answer(self, bus):
        bus.subscribe(BOX, "questions.#")
        bus.subscribe(OTHER, "questions.#")
        with answering(bus, replied("first")):
            said = bus.request(Message(source="scanner", topic="questions.any", id="m-1"), timeout=PATIENCE)
        assert said.data == "first"

    def test_it_can_be_asked_for_without_waiting(self, bus):
        asked = prepared(message("?"), PATIENCE * SECOND)
        bus.ask(asked)
        assert bus.reply(asked) is None
        delivery = one(bus)
        delivery.ack(send=replied("later")(delivery.message))
        assert bus.reply(asked).data == "later"
        assert bus.reply(asked).data == "later"


class TestNotAnswered:
    def test_in_time_it_says_where_the_request_is(self, bus):
        with pytest.raises(
            ReplyTimeout, match=rf"request m-1 to {BOX} was not answered by .* is ready in '{BOX}'"
        ):
            bus.request(message("?", id="m-1"), timeout=SOON)

    def test_because_it_was_refused_it_says_why(self, bus):
        asked = prepared(message("?", id="m-1"), SOON * SECOND)
        bus.ask(asked)
        one(bus).reject("not a record")
        with pytest.raises(ReplyTimeout, match=rf"the request is dead in '{BOX}' \(not a record\)"):
            bus.request(message("?", id="m-1"), timeout=SOON)

    def test_because_nobody_subscribed_nothing_is_sent(self, bus):
        with pytest.raises(Unroutable, match=r"nobody subscribed to topic questions.any"):
            bus.request(Message(source="scanner", topic="questions.any"), timeout=SOON)
        assert bus.mailboxes() == []

    def test_a_late_answer_is_a_dead_letter(self, bus):
        asked = prepared(message("?", id="m-1"), SOON * SECOND)
        bus.ask(asked)
        delivery = one(bus)
        threading.Event().wait(2 * SOON)
        delivery.ack(send=replied("late")(delivery.message))
        assert counts(bus)["done"] == 1
        [dead] = bus.dead_letters(asked.reply_to)
        assert (dead.message.data, dead.reason) == ("late", "expired: nobody took it in time")
        assert bus.reply(asked) is None

    def test_nobody_works_on_it_after_its_deadline(self, bus, clock):
        with pytest.raises(ReplyTimeout):
            bus.request(message("?"), timeout=SOON)
        clock.advance(1)
        assert bus.receive(BOX) == []
        assert [found.state for found in bus.dead_letters(BOX)] == [DeliveryState.DEAD]


class TestBadInput:
    @pytest.mark.parametrize("timeout", [0, -1, timedelta(0), -SECOND])
    def test_a_timeout_that_is_not_positive_is_refused(self, bus, timeout):
        with pytest.raises(InvalidMessage, match="a timeout must be positive"):
            bus.request(message("?"), timeout=timeout)
        assert bus.mailboxes() == []

    def test_a_mailbox_of_ones_own_is_not_waited_for(self, bus):
        with pytest.raises(InvalidMessage, match="leave reply_to out"):
            bus.request(message("?", reply_to="scanner"), timeout=SOON)

    @pytest.mark.parametrize("kind", [Kind.RESPONSE, Kind.ERROR, Kind.HEARTBEAT])
    def test_what_is_something_else_is_no_request(self, bus, kind):
        with pytest.raises(InvalidMessage, match=f"a message of kind {kind} is no request"):
            bus.request(message("?", kind=kind), timeout=SOON)

    def test_a_deadline_that_is_over_is_refused(self, bus):
        late = message("?", expires_at=datetime.now(UTC) - SECOND)
        with pytest.raises(InvalidMessage, match=r"expired at .*, before it was sent"):
            bus.request(late)
        assert bus.mailboxes() == []

    def test_of_a_timeout_and_a_deadline_the_earlier_one_counts(self, bus):
        ends = datetime.now(UTC) + timedelta(hours=1)
        with pytest.raises(ReplyTimeout):
            bus.request(message("?", expires_at=ends), timeout=SOON)
        with pytest.raises(ReplyTimeout):
            bus.request(message("?", expires_at=datetime.now(UTC) + SOON * SECOND), timeout=PATIENCE)


class TestMailboxesForAnswers:
    def test_each_request_has_its_own_and_the_same_one_the_same(self):
        named = [
            reply_mailbox(Message(source=source, recipient=BOX, id=identity))
            for source, identity in (("a", "b c"), ("a b", "c"), ("a", "b"), ("b", "a"))
        ]
        assert len(set(named)) == 4
        assert reply_mailbox(Message(source="a", recipient=OTHER, id="b")) == named[2]
        assert all(name.startswith("reply.") for name in named)
