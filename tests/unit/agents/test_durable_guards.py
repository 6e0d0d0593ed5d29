"""A run that waits passes through guards, retries, timeouts and fallbacks, and none of them takes it for a failure."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from durable_steps import World, runner

from airflow_agentic.agents import AgentContext
from airflow_agentic.agents.guarded import Protection
from airflow_agentic.errors import (
    AmbiguousStep,
    CircuitOpen,
    DeadlineExceeded,
    RunTaken,
    ServiceError,
    StepChanged,
)
from airflow_agentic.persistence import Interrupted, Sleeping
from airflow_agentic.resilience import (
    Breaker,
    BreakerState,
    Bulkhead,
    Classifier,
    Fallback,
    Policy,
    Retry,
)

KEY = "charger/billing/run-1/charge"
QUICK = Breaker(minimum_calls=1, window_size=4, open_seconds=60, half_open_calls=1)


@pytest.fixture
def world():
    return World()


def guarded(store, policy, function, **options):
    protection = Protection(
        store.guard(policy, "agent:charger"), policy.fallback, policy.when_refused == "fallback"
    )
    return runner(store, function, protection=protection, **options)


def asking(task: str, ctx: AgentContext) -> str:
    return ctx.interrupt("May I?")


ALL = Policy(
    retry=Retry(max_attempts=5, base_seconds=0.01, max_seconds=0.01),
    breaker=QUICK,
    bulkhead=Bulkhead(max_concurrent=1),
    timeout=30,
    deadline=60,
    fallback=Fallback(default="instead", categories=["transient", "permanent", "cancelled", "deadline_exceeded"]),
)  # fmt: skip


class TestWaiting:
    @pytest.mark.parametrize(
        "policy",
        [
            Policy(),
            Policy(timeout=30),
            Policy(retry=Retry(max_attempts=3, base_seconds=0.01)),
            Policy(breaker=QUICK),
            ALL,
        ],
        ids=["nothing", "timeout", "retry", "breaker", "all"],
    )
    def test_it_passes_once_and_counts_for_nothing(self, store, policy):
        calls = []

        def charger(task: str, ctx: AgentContext) -> str:
            calls.append(1)
            return asking(task, ctx)

        for _ in range(3):
            with pytest.raises(Interrupted):
                guarded(store, policy, charger).run_task("x")
        assert len(calls) == 3
        view = store.breaker("agent:charger").glance()
        assert (view.state, view.tally.calls, view.out) == (BreakerState.CLOSED, 0, 0)
        store.runs.by_hand.answer(KEY, "question:question", "yes", actor="ann")
        assert guarded(store, policy, charger).run_task("x") == "yes"

    def test_a_probe_that_waits_decides_nothing(self, store):
        policy = Policy(breaker=Breaker(minimum_calls=1, window_size=4, open_seconds=0.1, half_open_calls=1))

        def failing(task: str, ctx: AgentContext) -> str:
            raise ServiceError("down")

        with pytest.raises(ServiceError):
            guarded(store, policy, failing).run_task("x")
        time.sleep(0.15)
        for _ in range(2):
            # The place of the probe is free again each time.
            with pytest.raises(Interrupted):
                guarded(store, policy, asking).run_task("x")
        assert store.breaker("agent:charger").state is BreakerState.HALF_OPEN

    def test_a_guard_inside_the_agent_lets_it_pass_as_well(self, store):
        def charger(task: str, ctx: AgentContext) -> str:
            return store.guard(ALL, "tool:x").call(ctx.interrupt, "May I?")

        with pytest.raises(Interrupted):
            runner(store, charger).run_task("x")
        assert store.breaker("tool:x").glance().tally.calls == 0

    def test_a_coroutine_lets_it_pass_as_well(self, store):
        import asyncio

        def charger(task: str, ctx: AgentContext) -> str:
            async def ask():
                return ctx.interrupt("May I?")

            return asyncio.run(store.guard(ALL, "tool:x").acall(ask))

        with pytest.raises(Interrupted):
            runner(store, charger).run_task("x")
        assert store.breaker("tool:x").glance().tally.calls == 0

    def test_its_category_is_none_of_a_failure(self):
        failure = Classifier().failure(Sleeping("k", "n", datetime.now(UTC)))
        assert failure.is_unhealthy is None


class TestFailing:
    def test_a_retry_within_the_task_goes_on_after_the_last_finished_step(self, store, world):
        tries = []

        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("pay", world.do, "pay")
            tries.append(1)
            if len(tries) < 3:
                raise ServiceError("down")
            return ctx.step("book", world.do, "book")

        policy = Policy(retry=Retry(max_attempts=5, base_seconds=0.01, max_seconds=0.01))
        assert guarded(store, policy, charger).run_task("x") == "BOOK"
        assert (world.done, len(tries)) == (["pay", "book"], 3)

    def test_a_try_that_was_left_behind_writes_nothing_any_more(self, store, world):
        go_on, ended = threading.Event(), threading.Event()
        fates = []

        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("pay", world.do, "pay")
            if not fates:
                fates.append("left behind")
                go_on.wait(10)
                for act in (lambda: ctx.step("late", world.do, "late"), lambda: ctx.emit({"late": True})):
                    try:
                        act()
                    except RunTaken:
                        fates.append("refused")
                ended.set()
            return "done"

        with pytest.raises(DeadlineExceeded):
            guarded(store, Policy(timeout=0.5), charger).run_task("x")
        assert store.runs.find(KEY).category == "deadline_exceeded"
        assert guarded(store, Policy(), charger).run_task("x") == "done"
        before = len(store.history(KEY))
        go_on.set()
        assert ended.wait(10)
        assert fates == ["left behind", "refused", "refused"]
        assert (len(store.history(KEY)), world.done) == (before, ["pay"])

    def test_a_refusal_is_no_failure_of_the_run(self, store, world):
        store.breaker("tool:x").trip(reason="a pause", actor="ann")

        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("pay", world.do, "pay")
            return store.guard(Policy(breaker=QUICK), "tool:x").call(world.do, "ask")

        with pytest.raises(CircuitOpen):
            runner(store, charger).run_task("x")
        assert store.runs.find(KEY).status == "waiting"
        store.breaker("tool:x").reset(reason="go on", actor="ann")
        assert runner(store, charger).run_task("x") == "ASK"
        assert world.done == ["pay", "ask"]

    def test_a_fallback_is_not_taken_for_what_a_person_has_to_decide(self, store, world):
        run = store.run("charger", KEY)
        run._session.write("step.intended", "pay", run._session.encoded({"on_ambiguous": "ask"}, "x"))
        run.close()

        def charger(task: str, ctx: AgentContext) -> str:
            return ctx.step("pay", world.do, "pay", on_ambiguous="ask")

        with pytest.raises(AmbiguousStep):
            guarded(store, ALL, charger).run_task("x")
        assert world.done == []

    def test_nor_for_a_step_that_was_changed(self, store, world):
        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("pay", world.do, task)
            if task == "a":
                raise ServiceError("down")
            return ""

        with pytest.raises(ServiceError):
            runner(store, charger).run_task("a")
        with pytest.raises(StepChanged):
            guarded(store, ALL, charger).run_task("b")

    def test_what_fails_is_fallen_back_from_and_its_run_may_go_on(self, store, world):
        def charger(task: str, ctx: AgentContext) -> str:
            ctx.step("pay", world.do, "pay")
            raise ServiceError("down")

        assert guarded(store, ALL.model_copy(update={"retry": None}), charger).run_task("x") == "instead"
        assert store.runs.find(KEY).status == "failed"


def test_the_store_of_a_run_that_ends_may_be_away(store, world, monkeypatch, caplog):
    from airflow_agentic.errors import StoreUnavailable
    from airflow_agentic.persistence import Run

    def away(*_):
        raise StoreUnavailable("gone")

    def charger(task: str, ctx: AgentContext) -> str:
        ctx.step("pay", world.do, "pay")
        monkeypatch.setattr(Run, "fail", away)
        raise ServiceError("down")

    with pytest.raises(ServiceError):
        runner(store, charger).run_task("x")
    assert "cannot be recorded" in caplog.text
    assert timedelta(0) < timedelta(seconds=1)
