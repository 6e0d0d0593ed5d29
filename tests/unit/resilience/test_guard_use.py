from __future__ import annotations

import contextvars
import multiprocessing
import os
import threading
import time
from datetime import UTC, datetime

import pytest
from guard_parts import BREAKER, DOWN, KEY, fail, kept, made, warm

from airflow_agentic.errors import (
    BulkheadFull,
    CircuitOpen,
    DeadlineExceeded,
    GuardsUnavailable,
    ServiceError,
    ServiceThrottled,
)
from airflow_agentic.observability.metrics import NoMetrics
from airflow_agentic.resilience import (
    Attempt,
    Breaker,
    Bulkhead,
    Policy,
    RateLimit,
    Retry,
    breaker,
    check,
    deadline,
)
from airflow_agentic.resilience.ports import GuardKey

# -- ways to use it ------------------------------------------------------------------------------------


def test_it_is_a_decorator(guards, service):
    @guards.guard(Policy(breaker=BREAKER), KEY)
    def ask(answer, *, loud=False):
        """Ask it."""
        return service(answer.upper() if loud else answer)

    assert ask("yes", loud=True) == "YES"
    assert (ask.__name__, ask.__doc__) == ("ask", "Ask it.")
    assert guards.breaker(KEY).view().tally.calls == 1


def test_as_a_context_manager_it_is_one_try(guards, service):
    guard = guards.guard(Policy(breaker=BREAKER, retry=Retry()), KEY)
    with pytest.raises(ServiceError), guard.attempt():
        raise DOWN
    view = guards.breaker(KEY).view()
    assert (view.tally.calls, view.tally.failed, view.out) == (1, 1, 0)


def test_nested_guards_guard_each_their_own(guards, service):
    outer = guards.guard(Policy(breaker=BREAKER), "agent:a")
    inner = guards.guard(Policy(breaker=BREAKER), "conn:b")
    service.error = DOWN
    for _ in range(4):
        with pytest.raises(ServiceError):
            inner.call(service)
    with pytest.raises(CircuitOpen):
        outer.call(inner.call, service)
    # That somebody else is down says nothing of the one that asked.
    assert guards.breaker("agent:a").view().tally.calls == 0


def test_who_asks_by_itself_ends_it_by_itself(guards, service):
    guard = guards.guard(Policy(bulkhead=Bulkhead(max_concurrent=1)), KEY)
    entry = guard.admit()
    with pytest.raises(BulkheadFull):
        guard.admit()
    attempt = Attempt(entry, time.monotonic())
    guard.end(attempt)
    guard.end(attempt)
    guard.end(Attempt(guard.admit(), time.monotonic()))


def test_a_call_that_takes_too_long_is_left_behind_and_told_to_stop(guards):
    stopped = threading.Event()
    variable = contextvars.ContextVar("variable")
    variable.set("of the caller")

    def slow():
        assert variable.get() == "of the caller"
        try:
            while True:
                time.sleep(0.01)
                check()
        finally:
            stopped.set()

    guard = guards.guard(Policy(timeout=0.1, breaker=BREAKER), KEY)
    with pytest.raises(DeadlineExceeded, match=r"'conn:primary' took longer than 0.1 s"):
        guard.call(slow)
    assert stopped.wait(5)
    assert guards.breaker(KEY).view().tally.failed == 1


def test_what_is_raised_within_a_timeout_comes_out(guards, service):
    service.error = ServiceThrottled("busy", 429, 1.0)
    with pytest.raises(ServiceThrottled):
        guards.guard(Policy(timeout=5), KEY).call(service)
    assert guards.guard(Policy(timeout=5), KEY).call(lambda: 7) == 7


def test_a_deadline_that_has_passed_lets_nothing_begin(guards, service):
    with deadline(0.001):
        time.sleep(0.01)
        with pytest.raises(DeadlineExceeded):
            guards.guard(Policy(breaker=BREAKER), KEY).call(service)
    assert service.calls == 0


# -- when others fail ----------------------------------------------------------------------------------


class Broken(NoMetrics):
    def timing(self, *args, **kwargs):
        raise RuntimeError("no room")


class Deaf:
    def tell(self, event):
        raise RuntimeError("not now")


def test_neither_metrics_nor_events_that_fail_break_the_work(store, service):
    guards = made(store, Deaf(), metrics=Broken())
    guard = guards.guard(Policy(breaker=BREAKER, bulkhead=Bulkhead(max_concurrent=1)), KEY)
    assert guard.call(service) == "answer"
    assert fail(guard, service) <= 5


def test_without_the_store_work_goes_on_and_is_guarded_by_each_alone(store, service, notes):
    guards = made(store, notes)
    guard = guards.guard(Policy(breaker=BREAKER, limits=RateLimit(rate=1000)), KEY)
    store.is_away = True
    assert guard.call(service) == "answer"
    assert fail(guard, service, 50) <= 10
    assert notes.types("guards") == ["guards.unavailable"]
    assert store.trips == 1


def test_without_the_store_work_is_refused_if_the_policy_says_so(store, service):
    guard = made(store).guard(Policy(breaker=BREAKER, without_store="open"), KEY)
    store.is_away = True
    with pytest.raises(GuardsUnavailable) as raised:
        guard.call(service)
    assert raised.value.retry_at > datetime.now(UTC)
    assert service.calls == 0


def test_a_store_that_goes_away_during_a_call_does_not_break_it(store, service):
    guard = made(store).guard(
        Policy(breaker=BREAKER, bulkhead=Bulkhead(max_concurrent=1), without_store="open"), KEY
    )

    def work():
        store.is_away = True
        return service()

    assert guard.call(work) == "answer"


# -- forks ---------------------------------------------------------------------------------------------


def _in_a_fork(guards, policy, answers):
    guard = guards.guard(policy, KEY)
    with guard.attempt() as attempt:
        time.sleep(0.6)
        doc = guards.shared.read([GuardKey("bulkhead", KEY)])[0]
        answers.put((attempt.entry.token in next(iter(doc.values()))["slots"], kept()))


def test_a_process_that_was_forked_keeps_its_own_and_nothing_of_its_parent(guards):
    policy = Policy(bulkhead=Bulkhead(max_concurrent=2, lease_seconds=0.3))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with guards.guard(policy, KEY).attempt() as mine:
        child = context.Process(target=_in_a_fork, args=(guards, policy, answers))
        child.start()
        is_kept, due = answers.get(timeout=20)
        child.join(20)
        assert is_kept
        assert len(due) == 1
        assert mine.entry.token not in due
        time.sleep(0.4)
        doc = guards.shared.read([GuardKey("bulkhead", KEY)])[0]
        assert mine.entry.token in next(iter(doc.values()))["slots"]
    assert child.exitcode == 0


@pytest.mark.parametrize("of_its_own", [0, 3])
def test_a_process_that_was_forked_tells_nothing_that_its_parent_tells(store, service, of_its_own):
    guards = made(store, staleness_seconds=60)
    settings = Breaker(window="time", window_size=60, minimum_calls=4)
    guard = guards.guard(Policy(breaker=settings), KEY)
    warm(guard, service, 10)
    if (child := os.fork()) == 0:
        warm(guard, service, of_its_own)
        guards.close()
        calls = breaker.tally(
            guards.shared.read([GuardKey("breaker", KEY)])[0].popitem()[1], settings, time.time()
        )
        os._exit(calls.calls)
    _, status = os.waitpid(child, 0)
    # The store is in its memory: there are the first four, and its own.
    assert os.waitstatus_to_exitcode(status) == 4 + of_its_own
