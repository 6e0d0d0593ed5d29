"""Agents whose steps are kept: what a crash, a retry and a clear leave of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from durable_steps import TASK, Killed, World, killed, received, runner

from airflow_agentic.agents import AgentContext, BaseAgent
from airflow_agentic.errors import (
    AmbiguousStep,
    ConfigurationError,
    ReplyTimeout,
    RunTaken,
    ServiceError,
    StepChanged,
)
from airflow_agentic.messaging import Message
from airflow_agentic.persistence import (
    AwaitingMessage,
    Interrupted,
    RunOptions,
    RunQuery,
    Sleeping,
    StateSchema,
)
from airflow_agentic.testing import FakeClock, assert_agent_contract, memory_store, run_agent

KEY = "charger/billing/run-1/charge"


@pytest.fixture
def world():
    return World()


def charging(world, *names, fails=None):
    def charger(task: str, ctx: AgentContext) -> list[str]:
        found = [ctx.step(name, world.do, name) for name in names or ("one", "two", "three")]
        if fails:
            raise fails
        return found

    return charger


class TestResuming:
    @pytest.mark.parametrize("at", ["one", "two", "three"])
    def test_a_killed_task_goes_on_after_its_last_finished_step(self, store, world, monkeypatch, at):
        killed(monkeypatch)
        world.dies_before = at
        with pytest.raises(Killed):
            runner(store, charging(world)).run_task("x")
        again = runner(store, charging(world), identity=replace(TASK, try_number=2))
        assert again.run_task("x") == ["ONE", "TWO", "THREE"]
        assert world.done == ["one", "two", "three"]

    def test_a_step_that_died_after_its_effect_is_repeated_and_reported(self, store, world, monkeypatch):
        killed(monkeypatch)
        world.dies_after = "two"
        with pytest.raises(Killed):
            runner(store, charging(world)).run_task("x")
        assert runner(store, charging(world)).run_task("x") == ["ONE", "TWO", "THREE"]
        assert world.done == ["one", "two", "two", "three"]
        told = [each for each in store.history(KEY) if each.type == "step.ambiguous"]
        assert [(each.name, each.data["decision"]) for each in told] == [("two", "retry")]

    def test_a_failure_is_recorded_and_the_next_try_goes_on(self, store, world):
        with pytest.raises(ServiceError):
            runner(store, charging(world, "one", fails=ServiceError("down"))).run_task("x")
        head = store.runs.find(KEY)
        assert (head.status, head.category, "down" in head.error) == ("failed", "transient", True)
        assert (head.correlation, head.task) == (TASK.correlation_id, TASK.name)
        assert runner(store, charging(world, "one", "two")).run_task("x") == ["ONE", "TWO"]
        assert world.done == ["one", "two"]
        assert store.runs.find(KEY).status == "finished"

    def test_a_cleared_failed_task_goes_on_too(self, store, world):
        with pytest.raises(ServiceError):
            runner(store, charging(world, fails=ServiceError("down"))).run_task("x")
        cleared = replace(TASK, generation=3, try_number=2)
        assert runner(store, charging(world), identity=cleared).run_task("x") == ["ONE", "TWO", "THREE"]
        assert world.done == ["one", "two", "three"]

    def test_a_retry_after_the_end_returns_the_result_without_running(self, store, world):
        first = runner(store, charging(world))
        assert first.run_task("x") == ["ONE", "TWO", "THREE"]
        again = runner(store, charging(World(), "other"), identity=replace(TASK, try_number=2))
        assert again.know()
        assert again.run_task("x") == ["ONE", "TWO", "THREE"]
        assert world.done == ["one", "two", "three"]

    def test_a_finished_task_that_is_cleared_begins_anew(self, store, world):
        runner(store, charging(world, "one")).run_task("x")
        cleared = runner(store, charging(world, "one"), identity=replace(TASK, generation=2, try_number=2))
        assert not cleared.know()
        assert cleared.run_task("x") == ["ONE"]
        assert world.done == ["one", "one"]
        assert {head.stream for head in store.runs.find_all()} == {KEY, f"{KEY}#2"}
        third = runner(store, charging(world, "one"), identity=replace(TASK, generation=2, try_number=3))
        assert (third.know(), third.run_task("x"), len(world.done)) == (True, ["ONE"], 2)

    def test_a_dag_run_that_was_deleted_and_made_anew_begins_anew(self, store, world):
        runner(store, charging(world, "one")).run_task("x")
        runner(store, charging(world, "one")).run_task("x")
        assert world.done == ["one", "one"]

    def test_the_result_says_that_it_was_degraded_when_it_comes_from_the_record(self, store):
        def charger(task: str, ctx: AgentContext) -> dict:
            ctx.emit({"n": 1})
            ctx.degrade("no prices today")
            return {}

        runner(store, charger).run_task("x")
        again = runner(store, charger, identity=replace(TASK, try_number=2))
        again.know()
        assert again.run_task("x")["degraded"] is True
        assert again.degradation.reason == "no prices today"

    def test_tasks_and_mapped_tasks_have_runs_of_their_own(self, store, world):
        for identity in (TASK, replace(TASK, map_index=0), replace(TASK, map_index=1)):
            runner(store, charging(world, "one"), identity=identity).run_task("x")
        assert {head.stream for head in store.runs.find_all()} == {KEY, f"{KEY}/0", f"{KEY}/1"}

    def test_very_long_names_make_keys_that_fit_and_differ(self, store, world):
        for task_id in ("t" * 240 + "a", "t" * 240 + "b"):
            identity = replace(TASK, run_id="r" * 240, task_id=task_id)
            runner(store, charging(world, "one"), identity=identity).run_task("x")
        keys = {head.stream for head in store.runs.find_all()}
        assert (len(keys), max(map(len, keys)) <= 500) == (2, True)

    def test_changed_arguments_of_a_finished_step_are_noticed(self, store, world):
        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("pay", world.do, task)
            raise ServiceError("down")

        with pytest.raises(ServiceError):
            runner(store, charger).run_task("5 EUR")
        with pytest.raises(StepChanged):
            runner(store, charger).run_task("6 EUR")

    def test_state_checkpoints_and_progress_are_kept(self, store):
        def charger(task: str, ctx: AgentContext) -> dict:
            ctx.expect(2)
            ctx.emit({"seen": 1})
            ctx.checkpoint("half")
            ctx.emit({"seen": ctx.state["seen"] + 1})
            return ctx.state

        assert runner(store, charger).run_task("x") == {"seen": 2}
        assert store.at(KEY, "half").state == {"seen": 1}
        assert store.runs.find(KEY).total == 2
        assert store.verify(KEY) == []

    def test_a_class_says_what_its_events_mean(self, store):
        class Counter(BaseAgent[int, int]):
            """Counts."""

            state_schema = StateSchema(initial=0, reduce=lambda state, event: state + event)

            def process(self, task, ctx):
                ctx.emit(task)
                ctx.emit(task)
                return ctx.state

        assert run_agent(Counter, 4, store=store).result == 8

    def test_coroutines_are_steps_as_well(self, store):
        async def fetch(number):
            await asyncio.sleep(0)
            return number * 2

        def charger(task: int, ctx: AgentContext) -> list[int]:
            async def both():
                return await asyncio.gather(ctx.astep("a", fetch, 1), ctx.astep("b", fetch, 2))

            return asyncio.run(both())

        assert runner(store, charger).run_task(1) == [2, 4]

    def test_secrets_do_not_get_into_the_record_of_a_failure(self, store):
        class Discreet(BaseAgent[str, str]):
            """Knows a secret."""

            def discreet(self, text):
                return text.replace("hunter2", "***")

            def process(self, task, ctx):
                return ctx.step("log in", self.log_in)

            def log_in(self):
                raise ServiceError("no entry with hunter2")

        with pytest.raises(ServiceError):
            run_agent(Discreet, "x", store=store, key="k")
        told = str([each.data for each in store.history("k")]) + store.runs.find("k").error
        assert ("hunter2" in told, told.count("no entry with ***")) == (False, 3)


class TestKeepingNothing:
    def test_an_agent_without_steps_writes_nothing_but_its_record(self, store, monkeypatch):
        writes = []
        for port, names in (
            (store.run_stores.journals, ("append", "prune")),
            (store.run_stores.runs, ("hold", "mark", "forget")),
        ):
            for name in names:
                monkeypatch.setattr(port, name, lambda *a, name=name, **k: writes.append(name))

        def charger(task: str, ctx: AgentContext) -> str:
            return task

        assert runner(store, charger).run_task("x") == "x"
        assert writes == []

    @pytest.mark.parametrize("use", ["step", "state", "emit", "wait"])
    def test_with_persistence_off_the_error_says_how_to_turn_it_on(self, store, use):
        def charger(task: str, ctx: AgentContext) -> str:
            uses = {
                "step": lambda: ctx.step("one", str),
                "state": lambda: ctx.state,
                "emit": lambda: ctx.emit({}),
                "wait": lambda: ctx.wait_for_message("m"),
            }
            uses[use]()
            return ""

        with pytest.raises(ConfigurationError, match=r"agents\.charger\.persistence: hybrid"):
            runner(store, charger, persistence="off").run_task("x")
        assert store.runs.find_all() == []

    def test_a_context_without_a_store_says_so(self):
        with pytest.raises(ConfigurationError, match="no store"):
            AgentContext("charger").step("one", str)

    def test_reading_the_state_leaves_no_run(self, store):
        def charger(task: str, ctx: AgentContext) -> dict:
            return ctx.state

        assert runner(store, charger).run_task("x") == {}
        assert store.runs.find_all() == []


class TestMessagesOfSteps:
    def talking(self, world):
        def charger(task: str, ctx: AgentContext) -> str:
            def tell(what):
                ctx.send("ledger", {"paid": what})
                ctx.send("ledger", {"paid": "the same"})
                return world.do(what)

            ctx.step("one", tell, "one")
            ctx.send("ledger", {"paid": "outside"})
            ctx.step("two", tell, "two")
            ctx.send("ledger", {"paid": "outside"})
            return "done"

        return charger

    def test_they_leave_with_the_step_and_the_others_with_the_end(self, store, world, monkeypatch):
        killed(monkeypatch)
        world.dies_before = "two"
        with pytest.raises(Killed):
            runner(store, self.talking(world)).run_task("x")
        first = received(store.bus, "ledger")
        assert [each.data["paid"] for each in first] == ["one", "the same"]
        runner(store, self.talking(world)).run_task("x")
        rest = received(store.bus, "ledger")
        assert [each.data["paid"] for each in rest] == ["two", "the same", "outside", "outside"]
        assert len({each.id for each in first + rest}) == 6

    def test_their_ids_are_those_of_an_undisturbed_run(self, world, monkeypatch):
        def ids(*deaths):
            with memory_store() as store:
                for death in deaths:
                    world.dies_before = death
                    with pytest.raises(Killed):
                        runner(store, self.talking(world)).run_task("x")
                runner(store, self.talking(world)).run_task("x")
                return {each.id for each in received(store.bus, "ledger")}

        killed(monkeypatch)
        assert ids() == ids("one") == ids("two", "two") == ids("one", "two")

    def test_a_heartbeat_in_a_step_goes_at_the_end(self, store):
        def charger(task: str, ctx: AgentContext) -> None:
            ctx.step("one", lambda: ctx.heartbeat({"ok": True}, expires_in=60) and None)

        runner(store, charger).run_task("x")
        assert [beat.source for beat in store.bus.heartbeats()] == ["charger"]

    def test_a_failed_step_sends_nothing(self, store):
        def charger(task: str, ctx: AgentContext) -> str:
            def tell():
                ctx.send("ledger", {})
                raise ServiceError("down")

            with pytest.raises(ServiceError):
                ctx.step("one", tell)
            return "went on"

        assert runner(store, charger).run_task("x") == "went on"
        assert received(store.bus, "ledger") == []

    def test_nothing_leaves_and_the_run_failed_if_a_message_cannot(self, store, world):
        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("one", world.do, "one")
            ctx.send("ledger", "x" * 10_000)
            return "done"

        with pytest.raises(Exception, match="bytes"):
            runner(store, charger).run_task("x")
        assert store.runs.find(KEY).status == "failed"
        assert received(store.bus, "ledger") == []


class TestWaiting:
    def test_sleep_is_kept_and_the_first_moment_counts(self):
        clock = FakeClock()
        seen = []

        def charger(task: str, ctx: AgentContext) -> str:
            seen.append(1)
            ctx.sleep_until(clock() + timedelta(hours=1))
            return "awake"

        with memory_store(clock=clock) as store:
            with pytest.raises(Sleeping):
                runner(store, charger).run_task("x")
            head = store.runs.find(KEY)
            assert (head.status, head.lease_until_ms) == ("waiting", 0)
            clock.advance(timedelta(minutes=61))
            assert runner(store, charger).run_task("x") == "awake"
        assert len(seen) == 2

    def test_a_question_waits_for_its_answer(self, store):
        def charger(task: str, ctx: AgentContext) -> list:
            return [ctx.interrupt("May I?"), ctx.interrupt("Really?")]

        for name, answer in (("question:question", "yes"), ("question:question#2", "sure")):
            with pytest.raises(Interrupted) as held:
                runner(store, charger).run_task("x")
            assert held.value.name == name
            store.runs.by_hand.answer(KEY, name, answer, actor="ann")
        assert runner(store, charger).run_task("x") == ["yes", "sure"]

    def test_a_question_stands_as_it_was_asked_first_however_it_is_asked_again(self, store):
        schemas = [{"type": "integer"}, {"type": "string"}]

        def charger(task: str, ctx: AgentContext) -> int:
            return ctx.interrupt(f"How many {len(schemas)}?", schemas.pop(0))

        for _ in range(2):
            with pytest.raises(Interrupted) as held:
                runner(store, charger).run_task("x")
            # What people see is what their answer is checked against.
            assert (held.value.question, held.value.schema) == ("How many 2?", {"type": "integer"})

    def test_a_question_nobody_answers_in_time_is_over_for_good(self):
        clock = FakeClock()

        def charger(task: str, ctx: AgentContext) -> str:
            try:
                return ctx.interrupt("May I?", deadline=clock() + timedelta(hours=1))
            except ReplyTimeout:
                ctx.step("decide", lambda: clock.advance(1) and None)
                return "alone"

        with memory_store(clock=clock) as store:
            for _ in range(2):
                with pytest.raises(Interrupted):
                    runner(store, charger).run_task("x")
                clock.advance(timedelta(minutes=31))
            # The deadline of the first time counts, however late it was asked again.
            assert runner(store, charger).run_task("x") == "alone"

    def test_a_message_is_taken_once_and_comes_from_the_journal_afterwards(self, store, world, monkeypatch):
        killed(monkeypatch)

        def charger(task: str, ctx: AgentContext) -> list:
            found = [ctx.wait_for_message("receipts").data, ctx.wait_for_message("receipts").data]
            world.do("end")
            return found

        with pytest.raises(AwaitingMessage):
            runner(store, charger).run_task("x")
        store.bus.send(Message(source="bank", recipient="receipts", data={"n": 1}))
        with pytest.raises(AwaitingMessage) as held:
            runner(store, charger).run_task("x")
        assert (held.value.mailbox, held.value.deadline) == ("receipts", None)
        store.bus.send(Message(source="bank", recipient="receipts", data={"n": 2}))
        world.dies_before = "end"
        with pytest.raises(Killed):
            runner(store, charger).run_task("x")
        assert runner(store, charger).run_task("x") == [{"n": 1}, {"n": 2}]
        assert store.bus.stats("receipts").done == 2

    def test_a_message_that_was_recorded_and_not_acked_is_known_when_it_comes_again(self, store, monkeypatch):
        from airflow_agentic.messaging.delivery import Delivery

        acks = []

        def dies(delivery, *args, **kwargs):
            acks.append(delivery.message.id)
            raise Killed

        def charger(task: str, ctx: AgentContext) -> list:
            first = ctx.wait_for_message("receipts")
            return [first.data, ctx.wait_for_message("receipts").data]

        killed(monkeypatch)
        store.bus.send(Message(source="bank", recipient="receipts", data=1))
        with monkeypatch.context() as patched:
            patched.setattr(Delivery, "ack", dies)
            with pytest.raises(Killed):
                runner(store, charger).run_task("x")
        assert (len(acks), store.bus.stats("receipts").leased) == (1, 1)
        with pytest.raises(AwaitingMessage):
            runner(store, charger).run_task("x")
        assert store.bus.stats("receipts").done == 1
        store.bus.send(Message(source="bank", recipient="receipts", data=2))
        assert runner(store, charger).run_task("x") == [1, 2]

    def test_also_after_its_lease_was_over(self, monkeypatch):
        from airflow_agentic.messaging.delivery import Delivery

        def dies(delivery, *args, **kwargs):
            raise Killed

        def charger(task: str, ctx: AgentContext) -> int:
            return ctx.wait_for_message("receipts").data

        killed(monkeypatch)
        clock = FakeClock()
        with memory_store(clock=clock) as store:
            store.bus.send(Message(source="bank", recipient="receipts", data=1))
            with monkeypatch.context() as patched:
                patched.setattr(Delivery, "ack", dies)
                with pytest.raises(Killed):
                    runner(store, charger).run_task("x")
            clock.advance(timedelta(days=1))
            store.bus.send(Message(source="bank", recipient="receipts", data=2))
            assert runner(store, charger).run_task("x") == 1
            stats = store.bus.stats("receipts")
            assert (stats.done, stats.claimable) == (1, 1)

    def test_also_when_it_comes_again_later_out_of_other_hands(self, monkeypatch):
        from airflow_agentic.messaging.delivery import Delivery

        def dies(delivery, *args, **kwargs):
            raise Killed

        others = []

        def charger(task: str, ctx: AgentContext) -> list:
            first = ctx.wait_for_message("receipts").data
            while others:
                others.pop().release()
            return [first, ctx.wait_for_message("receipts").data]

        killed(monkeypatch)
        clock = FakeClock()
        with memory_store(clock=clock) as store:
            store.bus.send(Message(source="bank", recipient="receipts", data=1))
            with monkeypatch.context() as patched:
                patched.setattr(Delivery, "ack", dies)
                with pytest.raises(Killed):
                    runner(store, charger).run_task("x")
            clock.advance(timedelta(days=1))
            others += store.bus.receive("receipts")
            store.bus.send(Message(source="bank", recipient="receipts", data=2))
            assert runner(store, charger).run_task("x") == [1, 2]
            assert store.bus.stats("receipts").done == 2

    def test_a_timeout_is_raised_in_the_agent_the_same_each_time(self):
        clock = FakeClock()

        def charger(task: str, ctx: AgentContext) -> str:
            try:
                ctx.wait_for_message("receipts", timeout=60)
            except ReplyTimeout:
                ctx.interrupt("What now?")
            return "came"

        with memory_store(clock=clock) as store:
            with pytest.raises(AwaitingMessage) as held:
                runner(store, charger).run_task("x")
            # Between two looks the run knows the store's time by its own clock.
            assert abs(held.value.deadline - clock() - timedelta(seconds=60)) < timedelta(seconds=5)
            assert held.value.mailbox == "receipts"
            clock.advance(66)
            with pytest.raises(Interrupted):
                runner(store, charger).run_task("x")
            # It came after all; what was said stands.
            store.bus.send(Message(source="bank", recipient="receipts", data=1))
            with pytest.raises(Interrupted):
                runner(store, charger).run_task("x")

    def test_a_step_cannot_wait(self, store):
        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("one", lambda: ctx.wait_for_message("receipts").id)
            return ""

        with pytest.raises(ConfigurationError, match="cannot wait"):
            runner(store, charger).run_task("x")

    def test_an_ambiguous_step_that_asks_waits_and_has_not_failed(self, store, world, monkeypatch):
        killed(monkeypatch)

        def charger(task: str, ctx: AgentContext) -> str:
            return ctx.step("pay", world.do, "pay", on_ambiguous="ask")

        world.dies_after = "pay"
        with pytest.raises(Killed):
            runner(store, charger).run_task("x")
        with pytest.raises(AmbiguousStep):
            runner(store, charger).run_task("x")
        assert store.runs.find(KEY).status == "waiting"
        store.runs.by_hand.skip_step(KEY, "pay", actor="ann", reason="it is paid", result="PAID")
        assert runner(store, charger).run_task("x") == "PAID"
        assert world.done == ["pay"]


class TestOwners:
    @staticmethod
    def begun_by(store, world, try_number):
        """Leave a run as another process of the same task would."""
        owner = f"{TASK.name} try {try_number}@elsewhere:1"
        run = store.runs_with(RunOptions(lease=timedelta(hours=1)), owner=owner).open("charger", KEY)
        run.step("one", world.do, "one")
        return run

    def test_an_earlier_try_of_the_task_is_known_to_be_gone(self, store, world):
        self.begun_by(store, world, 1)
        later = replace(TASK, try_number=2)
        assert runner(store, charging(world), identity=later).run_task("x") == ["ONE", "TWO", "THREE"]
        assert world.done == ["one", "two", "three"]

    def test_an_earlier_try_that_comes_late_takes_nothing_from_a_later_one(self, store, world):
        run = self.begun_by(store, world, 2)
        with pytest.raises(RunTaken, match="try 2@elsewhere:1"):
            runner(store, charging(world), identity=TASK).run_task("x")
        run.step("two", world.do, "two")
        assert world.done == ["one", "two"]

    def test_a_run_in_other_hands_is_left_alone(self, store, world):
        run = store.run("charger", KEY)
        run._session._journal.head = replace(run._session._journal.head, owner="somebody@elsewhere:1")
        run.step("one", world.do, "one")
        with pytest.raises(RunTaken):
            runner(store, charging(world)).run_task("x")
        assert store.runs.find(KEY).status == "running"


class TestTesting:
    def test_users_test_a_crash_and_a_resume_in_a_few_lines(self, world):
        with memory_store() as store:
            with pytest.raises(ServiceError):
                run_agent(charging(world, fails=ServiceError("down")), "x", store=store, key="order-7")
            run = run_agent(charging(world), "x", store=store, key="order-7")
            assert (run.result, world.done) == (["ONE", "TWO", "THREE"], ["one", "two", "three"])
            assert run_agent(charging(world), "x", store=store, key="order-7").result == run.result
            assert len(world.done) == 3

    def test_agents_with_steps_keep_the_contract(self, world):
        assert_agent_contract(charging(world), task="x")

    def test_what_is_sent_in_steps_is_in_the_store(self):
        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("tell", lambda: ctx.send("ledger", task).data)
            return "told"

        with memory_store() as store:
            run = run_agent(charger, "x", store=store)
            assert (run.outbox, [each.data for each in received(store.bus, "ledger")]) == ((), ["x"])


def test_the_listing_says_what_runs_belong_to(store, world):
    runner(store, charging(world)).run_task("x")
    found = store.runs.find_all(RunQuery(correlation="billing:run-1"))
    assert [(head.stream, head.done, head.status) for head in found] == [(KEY, 3, "finished")]
    assert datetime.fromtimestamp(found[0].updated_at_ms / 1000, UTC) <= datetime.now(UTC)
