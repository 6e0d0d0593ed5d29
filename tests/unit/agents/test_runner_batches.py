"""The worker of plain functions: batches, the inbox, and the loop that acks and claims in one commit."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from runner_steps import BOX, NOW, RUN, runner, send

from airflow_agentic.agents import AgentContext
from airflow_agentic.agents.handling import FunctionHandler
from airflow_agentic.agents.worker import MailboxWorker
from airflow_agentic.errors import ConfigurationError, RejectMessage, StoreUnavailable
from airflow_agentic.messaging import DeliveryState, Kind, Message
from airflow_agentic.messaging.ports import DeliveryQuery


def worker(bus, function, *, batch=1, lease=None, inbox=None, **arguments):
    handler = FunctionHandler(
        function,
        lambda messages: AgentContext("shop", run=RUN, messages=messages),
        batch=batch > 1,
        arguments=arguments,
    )
    return MailboxWorker(bus, handler, lease, batch=batch, inbox=inbox)


def names(messages):
    return [message.data["name"] for message in messages]


class TestFunctions:
    def test_it_gets_the_message_the_context_and_what_it_is_given(self, bus):
        [sent] = send(bus, "a", subject="s")
        seen = []

        def handle(message, ctx, country, *, rate=1):
            seen.append((message.id, message.subject, ctx.message.id, country, rate))

        worker(bus, handle, country="de", rate=2).drain(BOX)
        assert seen == [(sent.id, "s", sent.id, "de", 2)]

    def test_messages_that_it_returns_leave_with_the_ack_and_belong_to_the_conversation(self, bus):
        [sent] = send(bus, "a", correlation_id="talk-1")

        def handle(message):
            return [
                Message(source="shop", recipient="legal", data=1),
                Message(source="shop", recipient="boss", data=2, correlation_id="other", causation_id="x"),
            ]

        report = worker(bus, handle).drain(BOX)
        assert (report.handled, report.sent) == (1, 2)
        [legal], [boss] = bus.receive("legal"), bus.receive("boss")
        assert (legal.message.correlation_id, legal.message.causation_id) == ("talk-1", sent.id)
        assert (boss.message.correlation_id, boss.message.causation_id) == ("other", "x")
        assert legal.message.run == boss.message.run == RUN.name

    def test_one_message_and_what_ctx_sends_leave_too(self, bus):
        send(bus, "a")

        def handle(message, ctx):
            ctx.publish("orders.done", message.data)
            return Message(source="shop", recipient="legal")

        bus.subscribe("watcher", "orders.*")
        assert worker(bus, handle).drain(BOX).sent == 2
        assert (bus.stats("legal").ready, bus.stats("watcher").ready) == (1, 1)

    @pytest.mark.parametrize("result", [{"ok": 1}, [1, 2], "done", []])
    def test_any_other_result_answers_whoever_asked_and_nobody_else(self, bus, result):
        send(bus, "a", kind=Kind.REQUEST, reply_to="asker")
        send(bus, "b")
        assert worker(bus, lambda message: result).drain(BOX).sent == 1
        [reply] = bus.receive("asker")
        assert (reply.message.data, reply.message.kind) == (result, Kind.RESPONSE)

    def test_nothing_answers_nobody(self, bus):
        send(bus, "a", kind=Kind.REQUEST, reply_to="asker")
        assert worker(bus, lambda message: None).drain(BOX).sent == 0

    def test_a_poison_message_is_given_back_and_the_others_are_handled(self, bus):
        send(bus, "a", "bad", "hopeless", "b")
        seen = []

        def handle(message):
            name = message.data["name"]
            seen.append(name)
            if name == "bad":
                raise OSError("no disk")
            if name == "hopeless":
                raise RejectMessage("never")

        report = worker(bus, handle).drain(BOX)
        assert (report.handled, report.failed, report.rejected, report.open) == (2, 3, 1, 0)
        reasons = {record.message.data["name"]: record.reason for record in bus.dead_letters(BOX)}
        assert reasons == {"hopeless": "never", "bad": "attempts spent: [transient] OSError: no disk"}

    @pytest.mark.parametrize(
        "function", [lambda: 1, lambda *messages: 1, lambda message, **others: 1, lambda *, message: 1]
    )
    def test_a_function_that_takes_no_message_is_refused(self, bus, function):
        with pytest.raises(ConfigurationError, match="it must take the message first"):
            worker(bus, function)

    def test_an_async_function_is_refused(self, bus):
        async def handle(message):
            """Wait."""

        with pytest.raises(ConfigurationError, match="async"):
            worker(bus, handle)


class TestLoop:
    def test_the_next_message_is_claimed_with_the_ack_of_the_last_one(self, bus):
        send(bus, "a", "b", "c")
        seen = []

        def handle(message):
            leased = bus.find(DeliveryQuery(mailbox=BOX, states=(DeliveryState.LEASED,)))
            seen.append((message.data["name"], names(record.message for record in leased)))

        made = worker(bus, handle)
        claims = []
        receive, bus.receive = bus.receive, lambda *a, **k: claims.append(1) or receive(*a, **k)
        assert made.drain(BOX, linger=NOW).handled == 3
        assert seen == [("a", ["a"]), ("b", ["b"]), ("c", ["c"])]
        assert len(claims) == 2, "the first message, and the look whether that is all"

    def test_no_message_is_claimed_beyond_the_last_that_is_wanted(self, bus):
        send(bus, "a", "b", "c")
        report = worker(bus, lambda message: None).drain(BOX, max_messages=2)
        assert (report.handled, report.open) == (2, 1)
        attempts = [record.attempts for record in bus.find(DeliveryQuery(mailbox=BOX))]
        assert attempts == [1, 1, 0]

    def test_what_was_claimed_when_it_is_stopped_is_given_back_uncounted(self, bus):
        send(bus, "a", "b")
        made = worker(bus, lambda message: None)
        following, bus.ack_and_receive = (
            bus.ack_and_receive,
            lambda *a, **k: (
                made.stop(),
                following(*a, **k),
            )[1],
        )
        assert made.drain(BOX).handled == 1
        [_, second] = bus.find(DeliveryQuery(mailbox=BOX))
        assert (second.state, second.attempts) == (DeliveryState.READY, 0)

    def test_where_the_store_is_away_what_happened_is_what_is_told(self, bus):
        send(bus, "a")

        def handle(message):
            bus.release = away
            raise KeyboardInterrupt

        def away(*deliveries):
            raise StoreUnavailable("gone")

        with pytest.raises(KeyboardInterrupt):
            worker(bus, handle).drain(BOX)

    def test_a_store_that_goes_away_with_the_ack_ends_the_work(self, bus):
        send(bus, "a", "b")

        def away(*deliveries, **values):
            raise StoreUnavailable("gone")

        bus.ack_and_receive = bus.nack = away
        with pytest.raises(StoreUnavailable):
            worker(bus, lambda message: None).drain(BOX)
        assert bus.stats(BOX).leased == 1

    def test_it_remembers_the_first_hundred_that_it_handled(self, bus):
        sent = send(bus, *(str(number) for number in range(105)))
        made = worker(bus, lambda messages: None, batch=25)
        assert made.drain(BOX).handled == 105
        assert [each["id"] for each in made.references] == [message.id for message in sent[:100]]


class TestBatches:
    def test_messages_are_handed_over_together_and_acked_together(self, bus):
        send(bus, "a", "b", "c", "d", "e")
        seen = []

        def handle(messages):
            seen.append(names(messages))
            return [Message(source="shop", recipient="legal", data=len(messages))]

        report = worker(bus, handle, batch=2).drain(BOX)
        assert seen == [["a", "b"], ["c", "d"], ["e"]]
        assert (report.handled, report.sent, report.open) == (5, 3, 0)
        assert [d.message.data for d in bus.receive("legal", max_messages=9)] == [2, 2, 1]

    def test_a_batch_that_fails_is_tried_one_by_one_so_that_the_bad_one_costs_the_others_no_attempt(
        self, bus
    ):
        send(bus, "a", "bad", "b")
        seen = []

        def handle(messages):
            seen.append(names(messages))
            if "bad" in names(messages):
                raise OSError("no disk")

        report = worker(bus, handle, batch=3).drain(BOX)
        assert seen[:4] == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
        assert (report.handled, report.failed, report.open) == (2, 3, 0)
        by_name = {r.message.data["name"]: r for r in bus.find(DeliveryQuery(mailbox=BOX))}
        assert {name: record.attempts for name, record in by_name.items()} == {"a": 1, "bad": 3, "b": 1}
        assert [record.history for name, record in by_name.items() if name != "bad"] == [(), ()]

    def test_a_message_that_is_rejected_in_a_batch_is_rejected_alone(self, bus):
        send(bus, "a", "hopeless", "b")

        def handle(messages):
            if "hopeless" in names(messages):
                raise RejectMessage("never")

        report = worker(bus, handle, batch=3).drain(BOX)
        assert (report.handled, report.rejected) == (2, 1)
        assert names(record.message for record in bus.dead_letters(BOX)) == ["hopeless"]

    def test_what_a_failed_batch_would_have_sent_is_not_sent(self, bus):
        send(bus, "a", "bad")

        def handle(messages, ctx):
            ctx.send("legal", names(messages))
            if names(messages) != ["a"]:
                raise RejectMessage("no")

        assert worker(bus, handle, batch=2).drain(BOX).sent == 1
        assert [d.message.data for d in bus.receive("legal", max_messages=9)] == [["a"]]

    def test_leases_of_those_that_wait_for_their_turn_are_kept(self, bus):
        send(bus, "a", "b", "c")

        def handle(messages):
            if len(messages) > 1:
                raise OSError("not together")
            time.sleep(0.25)
            assert bus.receive(BOX) == []

        report = worker(bus, handle, batch=3, lease=timedelta(milliseconds=150)).drain(BOX)
        assert (report.handled, report.lost, report.failed) == (3, 0, 0)

    def test_of_a_batch_that_lost_a_lease_the_others_are_handled_again(self, bus):
        send(bus, "a", "b", "c")
        seen = []

        def handle(messages):
            seen.append(names(messages))
            if len(messages) > 1:
                made._held[1].token = "somebody else's"

        made = worker(bus, handle, batch=3)
        report = made.drain(BOX, max_messages=3, linger=NOW)
        assert seen == [["a", "b", "c"], ["a"], ["c"]]
        assert (report.handled, report.lost) == (2, 1)

    def test_a_batch_is_no_larger_than_what_is_wanted(self, bus):
        send(bus, "a", "b", "c")
        report = worker(bus, lambda messages: None, batch=10).drain(BOX, max_messages=2)
        assert (report.handled, report.open) == (2, 1)

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt_gives_the_whole_batch_back_uncounted(self, bus, interrupt):
        send(bus, "a", "b")

        def handle(messages):
            raise interrupt

        with pytest.raises(interrupt):
            worker(bus, handle, batch=2).drain(BOX)
        records = bus.find(DeliveryQuery(mailbox=BOX))
        assert [(record.state, record.attempts) for record in records] == [(DeliveryState.READY, 0)] * 2

    def test_stopped_in_the_middle_of_a_failed_batch_the_rest_is_given_back(self, bus):
        send(bus, "a", "b", "c")

        def handle(messages):
            if len(messages) > 1:
                raise OSError("not together")
            made.stop()

        made = worker(bus, handle, batch=3)
        assert made.drain(BOX).handled == 1
        records = bus.find(DeliveryQuery(mailbox=BOX))
        assert [record.state for record in records] == [DeliveryState.DONE, *[DeliveryState.READY] * 2]
        assert [record.attempts for record in records] == [1, 0, 0]


class TestInbox:
    @pytest.fixture(autouse=True)
    def twice(self, bus):
        """One message, and two deliveries of it."""
        bus.subscribe(BOX, "orders.#")
        bus.subscribe("again", "orders.#")
        bus.send(Message(source="shop", topic="orders.made", data={"name": "a"}))

    def test_a_message_that_comes_by_another_delivery_is_acked_without_effects(self, bus):
        seen = []

        def handle(message):
            seen.append(message.id)
            return Message(source="shop", recipient="legal")

        assert worker(bus, handle, inbox="shop").drain(BOX).sent == 1
        report = worker(bus, handle, inbox="shop").drain("again")
        assert (report.handled, report.sent) == (1, 0)
        assert len(seen) == bus.stats("legal").total == 1

    def test_another_consumer_handles_it_all_the_same(self, bus):
        seen = []
        for inbox, box in (("shop", BOX), ("other", "again")):
            worker(bus, lambda message: seen.append(message.id), inbox=inbox).drain(box)
        assert len(seen) == 2

    def test_whoever_is_slower_with_the_same_message_has_no_effect(self, bus):
        def slow(message):
            worker(bus, lambda message: None, inbox="shop").drain("again")
            return Message(source="shop", recipient="legal")

        report = worker(bus, slow, inbox="shop").drain(BOX)
        assert (report.handled, report.sent) == (1, 0)
        assert bus.stats("legal").total == 0

    def test_of_a_batch_the_new_ones_are_handled(self, bus):
        worker(bus, lambda message: None, inbox="shop").drain(BOX)
        send(bus, "b", "c", box="again")
        seen = []
        report = worker(bus, lambda messages: seen.append(names(messages)), batch=5, inbox="shop").drain(
            "again"
        )
        assert seen == [["b", "c"]]
        assert report.handled == 3

    def test_an_agent_notes_what_it_handled_if_it_is_told_to(self, bus):
        def audit(record):
            """Audit."""

        for box, processed in ((BOX, 1), ("again", 0)):
            made = runner(bus, audit, inbox=True)
            assert made.drain(box).handled == 1
            assert made.agent.performance_metrics.processed == processed
