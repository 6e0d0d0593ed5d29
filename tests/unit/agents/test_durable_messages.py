"""Messages whose handling has durable steps: redelivered, finished, waiting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from durable_steps import Killed, World, killed, received, runner, send

from airflow_agentic.agents import AgentContext
from airflow_agentic.agents.context import Facilities
from airflow_agentic.agents.durable import Durability
from airflow_agentic.agents.handling import FunctionHandler
from airflow_agentic.agents.worker import MailboxWorker, until_again
from airflow_agentic.errors import AmbiguousStep, RejectMessage, RunTaken, ServiceError
from airflow_agentic.messaging import Kind
from airflow_agentic.messaging.delivery import Delivery
from airflow_agentic.persistence import AwaitingMessage, Interrupted, Sleeping

BOX = "charger"
NO_WAIT = timedelta(0)


@pytest.fixture
def world():
    return World()


def charging(world):
    def charger(task: str, ctx: AgentContext) -> str:
        ctx.step("pay", world.do, "pay")
        ctx.send("ledger", {"paid": task})
        return ctx.step("book", world.do, "book")

    return charger


class TestRedelivery:
    def test_it_goes_on_after_the_last_finished_step(self, store, world, monkeypatch):
        killed(monkeypatch)
        [message] = send(store.bus, "5 EUR")
        world.dies_before = "book"
        with pytest.raises(Killed):
            runner(store, charging(world)).drain(BOX)
        report = runner(store, charging(world)).drain(BOX, linger=NO_WAIT)
        assert (report.handled, report.sent, report.open) == (1, 1, 0)
        assert world.done == ["pay", "book"]
        assert len(received(store.bus, "ledger")) == 1
        head = store.runs.find(f"charger/message/shop/{message.id}")
        assert (head.status, head.correlation) == ("finished", message.correlation_id)

    def test_one_whose_work_was_finished_before_its_ack_is_acked_without_running(
        self, store, world, monkeypatch
    ):
        calls = []

        def charger(task: str, ctx: AgentContext) -> str:
            calls.append(task)
            return charging(world)(task, ctx)

        killed(monkeypatch)
        send(store.bus, "5 EUR")
        with monkeypatch.context() as patched:
            patched.setattr(MailboxWorker, "_ack", lambda *_: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                runner(store, charger).drain(BOX)
        [delivery] = store.bus.receive(BOX)
        # As if the lease of the dead one had ended.
        delivery.nack(NO_WAIT)
        report = runner(store, charger).drain(BOX, linger=NO_WAIT)
        assert (report.handled, report.open) == (1, 0)
        assert (calls, world.done) == (["5 EUR"], ["pay", "book"])
        assert len(received(store.bus, "ledger")) == 1

    def test_also_by_a_delivery_of_its_own(self, store, world):
        [message] = send(store.bus, "5 EUR")
        runner(store, charging(world)).drain(BOX, linger=NO_WAIT)
        store.bus.send(message.model_copy(update={"recipient": "other"}))
        store.bus.subscribe("other", "orders")
        runner(store, charging(world)).drain("other", linger=NO_WAIT)
        assert world.done == ["pay", "book"]

    def test_a_failed_one_that_is_redriven_goes_on(self, store, world):
        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("pay", world.do, "pay")
            if len(world.done) < 2:
                world.done.append("refused")
                raise RejectMessage("not today")
            return ctx.step("book", world.do, "book")

        send(store.bus, "5 EUR")
        assert runner(store, charger).drain(BOX, linger=NO_WAIT).rejected == 1
        [letter] = store.bus.dead_letters(BOX)
        store.bus.redrive([letter.delivery_id], actor="ann", reason="now it may")
        assert runner(store, charger).drain(BOX, linger=NO_WAIT).handled == 1
        assert world.done == ["pay", "refused", "book"]

    def test_the_answer_leaves_once_with_the_end(self, store, world, monkeypatch):
        killed(monkeypatch)

        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("tell", lambda: ctx.reply({"early": True}) and None)
            return ctx.step("pay", world.do, "pay")

        send(
            store.bus, "5 EUR", kind=Kind.REQUEST, reply_to="answers",
            expires_at=datetime.now(UTC) + timedelta(seconds=60),
        )  # fmt: skip
        world.dies_before = "pay"
        with pytest.raises(Killed):
            runner(store, charger).drain(BOX)
        assert runner(store, charger).drain(BOX, linger=NO_WAIT).handled == 1
        assert [each.data for each in received(store.bus, "answers")] == [{"early": True}]

    def test_in_other_hands_it_is_given_back_uncounted(self, store, world):
        [message] = send(store.bus, "5 EUR")
        key = f"charger/message/shop/{message.id}"
        run = store.run("charger", key)
        from dataclasses import replace

        run._session._journal.head = replace(run._session._journal.head, owner="somebody@elsewhere:1")
        run.emit({"begun": True})
        work = runner(store, charging(world))
        report = work.drain(BOX, linger=NO_WAIT)
        assert (report.handled, report.failed, report.open, work.waiting) == (0, 0, 1, 1)
        [record] = store.bus.trace(message.id)
        assert (str(record.state), record.attempts, record.history) == ("ready", 0, ())


class TestWaiting:
    def test_one_whose_run_waits_is_given_back_uncounted_and_the_others_are_handled(self, store):
        def charger(task: str, ctx: AgentContext) -> str:
            return ctx.interrupt("May I?") if task == "hard" else "easy"

        [hard, _] = send(store.bus, "hard", "easy")
        work = runner(store, charger)
        report = work.drain(BOX, linger=NO_WAIT)
        assert (report.handled, report.failed, report.rejected, report.open) == (1, 0, 0, 1)
        assert work.waiting == 1
        [record] = store.bus.trace(hard.id)
        assert (str(record.state), record.attempts, record.history) == ("ready", 0, ())
        left = record.visible_at - datetime.now(UTC)
        assert timedelta(seconds=20) < left <= timedelta(seconds=31)
        assert store.runs.find(f"charger/message/shop/{hard.id}").status == "waiting"

    def test_it_goes_on_when_its_time_has_come(self, store):
        def charger(task: str, ctx: AgentContext) -> str:
            ctx.sleep_until(datetime.now(UTC) + timedelta(seconds=0.3))
            ctx.send("ledger", task)
            return "awake"

        send(store.bus, "5 EUR")
        assert runner(store, charger).drain(BOX, linger=NO_WAIT).handled == 0
        [delivery] = store.bus.receive(BOX, wait=timedelta(seconds=5))
        delivery.release()
        assert runner(store, charger).drain(BOX, linger=NO_WAIT).handled == 1
        assert len(received(store.bus, "ledger")) == 1

    def test_the_agent_is_ready_and_its_numbers_do_not_count_it(self, store):
        def charger(task: str, ctx: AgentContext) -> str:
            return ctx.interrupt("May I?")

        send(store.bus, "hard")
        work = runner(store, charger)
        work.drain(BOX, linger=NO_WAIT)
        work._agent.heartbeat()
        assert str(work._agent.state) == "ready"
        assert work._agent.performance_metrics.processed == 0

    def test_gathered_messages_are_given_back_together(self, store):
        def charger(task: list[str], ctx: AgentContext) -> str:
            return ctx.interrupt(f"{len(task)} at once?")

        send(store.bus, "a", "b")
        with pytest.raises(Interrupted) as held:
            runner(store, charger).gather(BOX)
        assert store.bus.stats(BOX).claimable == 2
        store.runs.by_hand.answer(held.value.key, held.value.name, "fine", actor="ann")
        report, result = runner(store, charger).gather(BOX)
        assert (report.handled, result) == (2, "fine")

    @pytest.mark.parametrize(
        ("waiting", "least", "most"),
        [
            (lambda hour: Sleeping("k", "s", datetime.now(UTC) + hour), 3500, 3600),
            (lambda hour: Sleeping("k", "s", datetime.now(UTC) - hour), 0, 0),
            (lambda _: AwaitingMessage("k", "m", "box", None), 1, 10),
            (lambda _: Interrupted("k", "q", "?", None, None), 10, 60),
            (lambda _: AmbiguousStep("?", "k", "s"), 10, 60),
            (lambda hour: RunTaken("t", "k", "o", datetime.now(UTC) + hour), 10, 60),
            (lambda hour: RunTaken("t", "k", "o", datetime.now(UTC) - hour), 1, 1),
        ],
    )
    def test_how_long_depends_on_what_it_waits_for(self, waiting, least, most):
        assert least <= until_again(waiting(timedelta(hours=1))).total_seconds() <= most


class TestFunctions:
    def worker(self, store, function, **options):
        kept = Facilities(runs=Durability(store.runs_with, store.bus))
        handler = FunctionHandler(
            function,
            lambda messages: AgentContext("dag.task", messages=messages, facilities=kept),
            batch=options.get("batch", 1) > 1,
        )
        return MailboxWorker(store.bus, handler, timedelta(seconds=20), **options)

    def test_a_function_has_durable_steps_as_well(self, store, world):
        def handle(message, ctx):
            ctx.step("pay", world.do, "pay")
            if len(world.done) < 2:
                world.done.append("failed")
                raise ServiceError("down")
            return ctx.step("book", world.do, "book")

        send(store.bus, "5 EUR")
        report = self.worker(store, handle).drain(BOX, linger=timedelta(seconds=2))
        assert (report.failed, report.handled) == (1, 1)
        assert world.done == ["pay", "failed", "book"]

    def test_what_it_returns_need_not_be_recordable_if_nobody_asked(self, store, world):
        def handle(message, ctx):
            ctx.step("pay", world.do, "pay")
            return object()

        send(store.bus, "5 EUR")
        assert self.worker(store, handle).drain(BOX, linger=NO_WAIT).handled == 1

    def test_a_batch_of_which_one_waits_is_tried_one_by_one(self, store):
        def handle(messages, ctx):
            if any(each.data == "hard" for each in messages):
                ctx.interrupt("May I?")

        send(store.bus, "easy", "hard", "easy")
        worker = self.worker(store, handle, batch=3)
        report = worker.drain(BOX, linger=NO_WAIT)
        assert (report.handled, worker.waiting, report.open) == (2, 1, 1)

    def test_a_finished_one_is_acked_again_without_calling_it(self, store, world, monkeypatch):
        def handle(message, ctx):
            ctx.step("pay", world.do, "pay")

        killed(monkeypatch)
        send(store.bus, "5 EUR")
        with monkeypatch.context() as patched:
            patched.setattr(MailboxWorker, "_ack", lambda *_: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                self.worker(store, handle).drain(BOX)
        [delivery] = store.bus.receive(BOX)
        delivery.nack(NO_WAIT)
        assert self.worker(store, handle).drain(BOX, linger=NO_WAIT).handled == 1
        assert world.done == ["pay"]


def test_a_message_can_be_given_back_for_later(store):
    send(store.bus, "x")
    [delivery] = store.bus.receive(BOX)
    store.bus.release(delivery, delay=timedelta(seconds=0.2))
    assert store.bus.receive(BOX) == []
    [again] = store.bus.receive(BOX, wait=timedelta(seconds=5))
    assert isinstance(again, Delivery)
    assert again.attempt == 1
