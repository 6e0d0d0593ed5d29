from __future__ import annotations

import asyncio
import threading
import time

import pytest
from guard_parts import BREAKER, KEY, Shaky, kept, made

from airflow_agentic.errors import BulkheadFull, CircuitOpen, DeadlineExceeded, LimitExceeded, ServiceError
from airflow_agentic.resilience import (
    Breaker,
    Budget,
    Bulkhead,
    Policy,
    RateLimit,
    Retry,
    deadline,
    remaining,
    spend,
)


async def answer(text="answer"):
    await asyncio.sleep(0)
    return text


async def dead():
    await asyncio.sleep(0)
    raise ServiceError("down")


def in_use(guards):
    return [len(doc["slots"]) for _, doc, _ in guards.shared.listed("bulkhead")]


def test_it_guards_coroutines_as_it_guards_functions(guards):
    guard = guards.guard(Policy(breaker=BREAKER, retry=Retry()), KEY)

    @guard
    async def ask(text):
        return await answer(text)

    async def run():
        assert asyncio.iscoroutinefunction(ask)
        assert await ask("yes") == "yes"
        for _ in range(20):
            with pytest.raises((ServiceError, CircuitOpen)):
                await guards.guard(Policy(breaker=BREAKER), "conn:other").acall(dead)
        assert guards.breaker("conn:other").view().tally.calls == 0
        assert guards.breaker("conn:other").state == "open"

    asyncio.run(run())


def test_of_what_is_well_nobody_is_asked(guards, store):
    guard = guards.guard(Policy(breaker=BREAKER), KEY)

    async def run():
        for _ in range(20):
            await guard.acall(answer)
        before, began = store.trips, time.monotonic()
        for _ in range(200):
            await guard.acall(answer)
        assert store.trips - before <= 2 * (2 + time.monotonic() - began)

    asyncio.run(run())


def test_a_slow_store_does_not_stop_the_loop():
    class Slow(Shaky):
        def read(self, keys):
            time.sleep(0.2)
            return super().read(keys)

    guard = made(Slow()).guard(Policy(bulkhead=Bulkhead(max_concurrent=9)), KEY)

    async def run():
        ticks = 0
        call = asyncio.create_task(guard.acall(answer))
        while not call.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks >= 5

    asyncio.run(run())


def test_a_call_that_takes_too_long_is_cancelled_and_knows_its_time(guards):
    seen = []

    async def slow():
        try:
            seen.append(remaining())
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    guard = guards.guard(Policy(timeout=0.1, breaker=BREAKER), KEY)
    with pytest.raises(DeadlineExceeded, match=r"took longer than 0.1 s"):
        asyncio.run(guard.acall(slow))
    assert 0 < seen[0] <= 0.1
    assert seen[1:] == ["cancelled"]
    assert guards.breaker(KEY).view().tally.failed == 1


def test_a_timeout_of_the_work_itself_stays_what_it_is(guards):
    async def late():
        raise TimeoutError("the work's own")

    with pytest.raises(TimeoutError, match="the work's own"):
        asyncio.run(guards.guard(Policy(timeout=5), KEY).acall(late))


def test_a_call_that_is_cancelled_gives_its_slot_back_and_is_no_failure(guards):
    policy = Policy(bulkhead=Bulkhead(max_concurrent=1), breaker=BREAKER, budget=Budget(calls=9, per="all"))
    guard = guards.guard(policy, KEY)

    async def run():
        inside = asyncio.Event()

        async def work():
            inside.set()
            await asyncio.sleep(60)

        call = asyncio.create_task(guard.acall(work))
        await inside.wait()
        assert in_use(guards) == [1]
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert in_use(guards) == [0]
        assert await guard.acall(answer) == "answer"

    asyncio.run(run())
    assert guards.breaker(KEY).view().tally.failed == 0
    assert not kept()


@pytest.mark.parametrize("moment", [0.05, 0.15, 0.2, 0.25])
def test_a_call_that_is_cancelled_while_it_is_admitted_leaves_nothing_behind(moment):
    class Slow(Shaky):
        def change(self, changes):
            time.sleep(0.1)
            done = super().change(changes)
            time.sleep(0.1)
            return done

    guards = made(Slow())
    policy = Policy(bulkhead=Bulkhead(max_concurrent=1), budget=Budget(calls=9, per="all"))
    guard = guards.guard(policy, KEY)

    async def run():
        call = asyncio.create_task(guard.acall(asyncio.sleep, 60))
        await asyncio.sleep(moment)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(run())
    assert in_use(guards) == [0]
    assert [len(doc["held"]) for _, doc, _ in guards.shared.listed("budget")] == [0]


def _be_busy_until(true):
    """Hold up the loop: the answer is there meanwhile, and nobody has heard of it."""
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.05)


def test_a_call_that_is_cancelled_just_when_it_was_admitted_leaves_nothing_behind(guards):
    guard = guards.guard(Policy(bulkhead=Bulkhead(max_concurrent=1)), KEY)

    async def run():
        call = asyncio.create_task(guard.acall(asyncio.sleep, 60))
        await asyncio.sleep(0)
        _be_busy_until(lambda: in_use(guards) == [1])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(run())
    assert in_use(guards) == [0]


def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_gives_back_what_it_held(guards):
    policy = Policy(
        limits=RateLimit(rate=1, per_seconds=5),
        bulkhead=Bulkhead(max_concurrent=5),
        max_wait=30,
        breaker=BREAKER,
    )
    guard = guards.guard(policy, KEY)

    async def run():
        await guard.acall(answer)
        call = asyncio.create_task(guard.acall(answer))
        await asyncio.sleep(0.2)
        assert in_use(guards) == [1]
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert in_use(guards) == [0]

    asyncio.run(run())
    assert not kept()


def test_many_calls_of_one_loop_keep_to_what_may_be_out(guards):
    guard = guards.guard(Policy(bulkhead=Bulkhead(max_concurrent=3), max_wait=20), KEY)
    inside, most = 0, 0

    async def work():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.02)
        inside -= 1

    async def run():
        await asyncio.gather(*(guard.acall(work) for _ in range(12)))

    asyncio.run(run())
    assert most <= 3


def test_each_of_many_calls_spends_for_itself(guards):
    guard = guards.guard(Policy(budget=Budget(tokens=10_000, per="all")), KEY)

    async def work(tokens):
        await asyncio.sleep(0.01)
        spend(tokens=tokens)

    async def run():
        await asyncio.gather(*(guard.acall(work, tokens) for tokens in (1, 20, 300)))

    asyncio.run(run())
    assert [doc["spent"]["tokens"] for _, doc, _ in guards.shared.listed("budget")] == [321]


def test_a_deadline_around_it_is_seen_and_ends_waiting(guards):
    guard = guards.guard(Policy(limits=RateLimit(rate=1, per_seconds=9), max_wait=60), KEY)

    async def run():
        await guard.acall(answer)
        began = time.monotonic()
        with deadline(0.3), pytest.raises((LimitExceeded, DeadlineExceeded)):
            await guard.acall(answer)
        assert time.monotonic() - began < 2

    asyncio.run(run())


def test_a_deadline_ends_the_wait_for_the_first_results_of_others(guards):
    guard = guards.guard(Policy(breaker=Breaker(minimum_calls=1), deadline=0.5), KEY)

    async def run():
        first = asyncio.create_task(
            guards.guard(Policy(breaker=Breaker(minimum_calls=1)), KEY).acall(asyncio.sleep, 3)
        )
        await asyncio.sleep(0.2)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await guard.acall(answer)
        assert time.monotonic() - began < 2
        first.cancel()

    asyncio.run(run())
    # Cancelled at the very end of the loop, and told of all the same.
    assert guards.breaker(KEY).view().out == 0
    assert not kept()


def test_threads_and_loops_share_one_guard(guards):
    guard = guards.guard(Policy(bulkhead=Bulkhead(max_concurrent=1)), KEY)
    inside, go_on = threading.Event(), threading.Event()

    def work():
        inside.set()
        go_on.wait(20)

    thread = threading.Thread(target=guard.call, args=(work,))
    thread.start()
    inside.wait(20)
    with pytest.raises(BulkheadFull):
        asyncio.run(guard.acall(answer))
    go_on.set()
    thread.join()
    assert asyncio.run(guard.acall(answer)) == "answer"
