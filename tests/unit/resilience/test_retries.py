from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_agentic.errors import (
    CircuitOpen,
    DeadlineExceeded,
    RejectMessage,
    ServiceError,
    ServiceThrottled,
)
from airflow_agentic.resilience import Classifier, Guards, Policy, Retry, deadline, retries
from airflow_agentic.resilience.shared import LocalGuards

QUICK = Retry(max_attempts=4, base_seconds=0.001, max_seconds=0.005)


class Flaky:
    """Fails so often, and then answers."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    async def later(self):
        return self()


@pytest.fixture
def guards():
    return Guards(LocalGuards())


def run(guards, flaky, retry=QUICK, is_async=False, **policy):
    guard = guards.guard(Policy(retry=retry, **policy), "service:x")
    return asyncio.run(guard.acall(flaky.later)) if is_async else guard.call(flaky)


@pytest.mark.parametrize("is_async", [False, True])
def test_what_may_work_the_next_time_is_tried_again(guards, is_async):
    flaky = Flaky(ServiceError("down"), ServiceThrottled("slow"))
    assert run(guards, flaky, is_async=is_async) == "answer"
    assert flaky.calls == 3


@pytest.mark.parametrize("is_async", [False, True])
def test_the_last_failure_is_raised_as_it_is(guards, is_async):
    errors = [ServiceError(str(number)) for number in range(9)]
    flaky = Flaky(*errors)
    with pytest.raises(ServiceError, match="3") as raised:
        run(guards, flaky, is_async=is_async)
    assert flaky.calls == 4
    assert raised.value is errors[3]


@pytest.mark.parametrize(
    "error",
    [RejectMessage("no"), CircuitOpen("open"), KeyboardInterrupt(), SystemExit(1), DeadlineExceeded()],
)
def test_what_trying_again_does_not_help_is_not_tried_again(guards, error):
    flaky = Flaky(error)
    with pytest.raises(type(error)):
        run(guards, flaky)
    assert flaky.calls == 1


def test_categories_say_what_is_tried_again_but_never_what_ends_the_process(guards):
    every = Retry(max_attempts=4, base_seconds=0, categories=("permanent", "cancelled", "deadline_exceeded"))
    flaky = Flaky(RejectMessage("no"), DeadlineExceeded("late"))
    assert run(guards, flaky, every) == "answer"
    for before in ([], [RejectMessage("no")]):
        flaky = Flaky(*before, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run(guards, flaky, every)
        assert flaky.calls == len(before) + 1


def test_nobody_comes_before_the_other_side_wants_it(guards):
    flaky = Flaky(ServiceThrottled("busy", 429, 0.2))
    began = time.monotonic()
    run(guards, flaky, Retry(base_seconds=0.001, max_seconds=1))
    assert time.monotonic() - began >= 0.2


def test_who_is_to_come_much_later_is_not_kept_waiting_in_its_place(guards):
    flaky = Flaky(ServiceThrottled("busy", 429, 3_600))
    began = time.monotonic()
    with pytest.raises(ServiceThrottled):
        run(guards, flaky)
    assert time.monotonic() - began < 1
    assert flaky.calls == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_no_try_begins_after_the_deadline(guards, is_async):
    flaky = Flaky(*[ServiceError("down")] * 99)
    began = time.monotonic()
    with deadline(0.3), pytest.raises(ServiceError):
        run(guards, flaky, Retry(max_attempts=99, base_seconds=0.1, max_seconds=0.1), is_async)
    assert time.monotonic() - began < 0.8
    assert 2 < flaky.calls < 99


def test_delays_are_random_and_their_bounds_double():
    retry = Retry(max_attempts=9, base_seconds=1, max_seconds=10)
    assert [retry.bound(failed) for failed in (1, 2, 3, 4, 5, 500)] == [1, 2, 4, 8, 10, 10]


def test_of_all_calls_only_a_share_may_be_retries(guards):
    retry = Retry(max_attempts=2, base_seconds=0, budget=0.2)
    for _ in range(100):
        run(guards, Flaky(), retry)
    calls = 0
    for _ in range(100):
        flaky = Flaky(*[ServiceError("down")] * 9)
        with pytest.raises(ServiceError):
            run(guards, flaky, retry)
        calls += flaky.calls
    # 200 calls, a fifth of which may be tried again.
    assert 100 + 30 <= calls <= 100 + 40


def test_the_share_is_that_of_all_who_use_the_store():
    store = LocalGuards()
    fleet = [Guards(store) for _ in range(4)]
    retry, calls = Retry(max_attempts=2, base_seconds=0, budget=0.1), 0
    for number in range(200):
        flaky = Flaky(ServiceError("down"), ServiceError("down"))
        with pytest.raises(ServiceError):
            run(fleet[number % 4], flaky, retry)
        calls += flaky.calls
    assert 200 + 3 <= calls <= 200 + 20


def test_a_few_retries_are_always_allowed(guards):
    flaky = Flaky(*[ServiceError("down")] * 3)
    retry = Retry(max_attempts=9, base_seconds=0, budget=0.01)
    assert run(guards, flaky, retry) == "answer"


def test_calls_of_long_ago_do_not_count():
    calls = retries.Calls()
    for second in range(120):
        calls.add(1_000.0 + second)
    assert calls.take(1_119.0) == 60
    assert calls.take(1_119.0) == 0
    doc = retries.counted(None, 1_000.0, 1_000, 0)
    retry = Retry(budget=0.5)
    assert retries.allowed(retries.counted(doc, 1_030.0, 0, 10), retry, 1_030.0)
    assert not retries.allowed(retries.counted(doc, 1_070.0, 0, 10), retry, 1_070.0)


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=200), st.sampled_from([0.1, 0.5, 1.0]))
def test_the_share_holds_in_every_minute(steps, share):
    doc, now, retry, history = None, 1_000_000.0, Retry(budget=share), []
    for gap, is_call in steps:
        now += gap
        if is_call:
            doc = retries.counted(doc, now, 1, 0)
        elif may := retries.allowed(doc, retry, now):
            doc = retries.counted(doc, now, 0, int(may))
        else:
            continue
        history.append((int(now) // 10, is_call))
        last = [call for part, call in history if part > int(now) // 10 - 6]
        if not is_call:
            assert last.count(False) <= max(3, share * last.count(True))
        assert len(doc["parts"]) <= 6


def test_a_classifier_of_ones_own_decides():
    from airflow_agentic.resilience import FailureRule

    rules = Classifier([FailureRule(error="ServiceError", contains="never", category="permanent")])
    assert not retries.worth_it(ServiceError("never again"), QUICK, rules)
    assert retries.worth_it(ServiceError("once more"), QUICK, rules)
