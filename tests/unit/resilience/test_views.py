"""Limits, bulkheads and budgets as people see them, at a time that the test says."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_agentic.resilience import Budget, Bulkhead, RateLimit, budget, bulkhead, limits
from airflow_agentic.resilience.ports import GuardKey, Kind
from airflow_agentic.resilience.shared import Decision, SharedState
from airflow_agentic.resilience.views import BudgetView, budget_views, bulkhead_views, limit_views
from airflow_agentic.stores.memory import MemoryGuards
from airflow_agentic.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2030, 1, 31, 12, tzinfo=UTC))


@pytest.fixture
def shared(clock: FakeClock) -> SharedState:
    return SharedState(MemoryGuards(clock))


def put(shared: SharedState, kind: Kind, name: str, doc: Any) -> None:
    shared.insist([GuardKey(kind, name)], lambda _docs, _now: Decision(None, {GuardKey(kind, name): doc}))


def taken(settings: RateLimit, times: int, now: float) -> Any:
    """The document of a rate of which so many turns were taken at once."""
    doc = None
    for _ in range(times):
        _, doc = limits.take(doc, settings, now, math.inf)
    return doc


def spending(view: BudgetView) -> tuple[int, int]:
    return view.spent.calls, view.held.calls


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
def test_a_rate_tells_what_counts_and_the_next_turn(
    shared: SharedState, clock: FakeClock, algorithm: Any
) -> None:
    settings = RateLimit(rate=10, per_seconds=60, algorithm=algorithm)
    for key, times in (("some", 4), ("full", 10), ("ahead", 12)):
        put(shared, "limit", f"{key}/10:60:{algorithm}", taken(settings, times, clock.now.timestamp()))

    ahead, full, some = limit_views(shared)

    assert (some.key, some.in_use, some.allowed, some.is_free) == ("some", 4, 10, True)
    assert (full.in_use, full.is_free) == (10, False)
    # Turns that are set aside count, and who comes now comes after them.
    assert ahead.in_use == 12
    assert full.free_at <= ahead.free_at
    assert full.free_at - full.now <= timedelta(seconds=62)

    clock.advance(130)
    assert [(view.in_use, view.is_free) for view in limit_views(shared)] == [(0, True)] * 3


def test_a_burst_counts_as_allowed_and_a_quiet_limit_is_at_rest_again(
    shared: SharedState, clock: FakeClock
) -> None:
    settings = RateLimit(rate=10, per_seconds=60, burst=3)
    put(shared, "limit", "k/10:60:token_bucket", taken(settings, 3, clock.now.timestamp()))

    [view] = limit_views(shared)
    assert (view.in_use, view.allowed, view.is_free) == (3, 3, False)
    clock.advance(6)
    assert limit_views(shared)[0].is_free


def test_a_key_may_have_slashes_and_what_cannot_be_read_is_left_out(shared: SharedState) -> None:
    put(shared, "limit", "http://a/b/5:0.5:token_bucket", {"tat": 0.0})
    put(shared, "limit", "cut~0123", {"tat": 0.0})
    put(shared, "limit", "of/5:1:another_algorithm", {"tat": 0.0})

    [view] = limit_views(shared)

    assert (view.key, view.rate, view.per_seconds) == ("http://a/b", 5, 0.5)


def test_slots_whose_lease_has_ended_are_free(shared: SharedState, clock: FakeClock) -> None:
    settings = Bulkhead(max_concurrent=2, lease_seconds=60)
    _, doc = bulkhead.take(None, settings, clock.now.timestamp(), "one")
    _, doc = bulkhead.take(doc, settings, clock.now.timestamp() + 30, "two")
    put(shared, "bulkhead", "conn:database", doc)

    [full] = bulkhead_views(shared)
    assert (full.in_use, full.is_free) == (2, False)
    assert full.leases == (clock.now + timedelta(seconds=60), clock.now + timedelta(seconds=90))

    clock.advance(61)
    [one_left] = bulkhead_views(shared)
    assert (one_left.in_use, one_left.is_free) == (1, True)


def test_a_budget_is_current_until_its_period_ends(shared: SharedState, clock: FakeClock) -> None:
    settings = Budget(calls=4)
    _, doc, _ = budget.reserve(None, settings, "b", clock.now.timestamp(), "one")
    for name in ("daily/all/2030-01-31", "monthly/dag=billing/2030-01", "once/team=data/manual__2030"):
        put(shared, "budget", name, doc)

    daily, monthly, once = budget_views(shared)

    assert (daily.budget, daily.subject, daily.period) == ("daily", "all", "2030-01-31")
    assert (monthly.subject, monthly.ends) == ("dag=billing", datetime(2030, 2, 1, tzinfo=UTC))
    assert (daily.ends, once.ends) == (datetime(2030, 2, 1, tzinfo=UTC), None)
    assert spending(once) == (0, 1)

    clock.advance(timedelta(hours=13))
    assert [view.budget for view in budget_views(shared)] == ["once"]
    clock.advance(timedelta(hours=12))
    assert budget_views(shared) == []
    assert len(budget_views(shared, past=True)) == 3


def test_what_was_set_aside_and_never_settled_is_spent_when_its_lease_is_over(
    shared: SharedState, clock: FakeClock
) -> None:
    settings = Budget(period="month", calls=4, lease_seconds=60)
    _, doc, _ = budget.reserve(None, settings, "b", clock.now.timestamp(), "one")
    put(shared, "budget", "b/all/2030-01", doc)

    assert spending(budget_views(shared)[0]) == (0, 1)
    clock.advance(61)
    assert spending(budget_views(shared)[0]) == (1, 0)


@pytest.mark.parametrize(
    ("allowed", "calls", "share", "exceeded"),
    [(4, 1, 0.25, ()), (4, 4, 1.0, ("calls",)), (0, 0, 1.0, ("calls",)), (None, 9, None, ())],
)
def test_the_share_is_of_what_is_limited(
    shared: SharedState, allowed: int | None, calls: int, share: float | None, exceeded: tuple[str, ...]
) -> None:
    doc = {
        "spent": {"calls": calls, "tokens": 0, "cost_usd": 0},
        "held": {},
        "alerted": {},
        "limits": {"calls": allowed, "tokens": None, "cost_usd": None},
    }
    put(shared, "budget", "b/all/2030-01", doc)

    [view] = budget_views(shared)

    assert (view.largest_share, view.exceeded) == (share, exceeded)
