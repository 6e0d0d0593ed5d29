from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_agentic.resilience import Budget, budget
from airflow_agentic.resilience.budget import UNITS, Spending

START = datetime(2030, 1, 31, 12, tzinfo=UTC).timestamp()
KEY = "llm/all/2030-01-31"


class Purse:
    """A budget with a clock."""

    def __init__(self, **settings):
        self.policy, self.now, self.doc, self.events, self.count = Budget(**settings), START, None, [], 0

    def reserve(self):
        self.count += 1
        grant, doc, events = budget.reserve(self.doc, self.policy, KEY, self.now, str(self.count))
        if grant.granted or events:
            self.doc = doc
        self.events += events
        return grant

    def settle(self, token=None, **took):
        self.doc, events = budget.settle(
            self.doc, self.policy, KEY, self.now, token or str(self.count), Spending(**took)
        )
        self.events += events

    def spent(self, unit):
        return self.doc["spent"][unit]

    def types(self):
        return [event.type for event in self.events]


steps = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "reserve", "settle", "wait"]), st.integers(0, 9), st.integers(0, 40)
    ),
    max_size=80,
)


@given(steps=steps, limit=st.integers(0, 200), reserve=st.integers(0, 30))
@settings(max_examples=300, deadline=None)
def test_it_is_overspent_by_no_more_than_what_calls_took_beyond_their_reserve(steps, limit, reserve):
    reserve = min(reserve, limit)
    purse = Purse(tokens=limit, reserve_tokens=reserve, lease_seconds=100)
    out, beyond, known = {}, 0, 0
    for kind, which, amount in steps:
        if kind == "wait":
            purse.now += amount
        elif kind == "reserve":
            if purse.reserve().granted:
                out[str(purse.count)] = purse.now + 100
        elif out:
            token = sorted(out)[which % len(out)]
            until = out.pop(token)
            # What came after its lease was taken for lost, and what it set aside for spent.
            beyond += amount if until <= purse.now else max(0, amount - reserve)
            purse.settle(token, tokens=amount)
            known += amount
        if purse.doc:
            held = sum(row[1] for row in purse.doc["held"].values())
            assert purse.spent("tokens") + held <= limit + beyond
            assert purse.spent("tokens") >= known


def test_calls_that_go_one_after_the_other_overspend_it_by_one_of_them_at_most():
    purse = Purse(tokens=100)
    while purse.reserve().granted:
        purse.settle(tokens=30)
    assert purse.spent("tokens") == 120
    assert purse.spent("calls") == 4


def test_what_is_set_aside_counts_until_it_is_settled():
    purse = Purse(cost_usd=1, reserve_cost_usd=0.4)
    assert [purse.reserve().granted for _ in range(3)] == [True, True, False]
    purse.settle("1", cost_usd=0.01)
    assert purse.reserve().granted
    assert not purse.reserve().granted
    assert "$0.81 of $1 are spent or set aside" in purse.reserve().reason


def test_what_was_never_settled_counts_as_spent_once_its_lease_has_ended():
    purse = Purse(tokens=100, reserve_tokens=60, lease_seconds=10)
    assert purse.reserve().granted
    purse.now += 10
    assert not purse.reserve().granted
    purse.settle("none", calls=0)
    assert (purse.spent("tokens"), purse.spent("calls")) == (60, 1)


def test_a_call_that_goes_on_keeps_what_it_set_aside():
    purse = Purse(tokens=100, reserve_tokens=60, lease_seconds=10)
    purse.reserve()
    purse.now += 8
    purse.doc = budget.renew(purse.doc, purse.policy, purse.now, "1")
    purse.now += 8
    purse.settle("1", tokens=5)
    assert purse.spent("tokens") == 5
    assert budget.renew(purse.doc, purse.policy, purse.now, "1") is None


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_is_nothing(unit):
    assert not Purse(**{unit: 0}).reserve().granted


def test_somebody_is_told_once_at_each_mark_and_once_when_it_is_used_up():
    purse = Purse(calls=10, alert_at=(0.5, 0.8))
    for _ in range(20):
        if purse.reserve().granted:
            purse.settle()
    assert purse.types() == ["budget.alert", "budget.alert", "budget.exceeded"]
    assert [event.data.get("share") for event in purse.events] == [0.5, 0.8, None]


def test_a_step_over_two_marks_is_told_as_the_higher():
    purse = Purse(tokens=100, alert_at=(0.5, 0.8))
    purse.reserve()
    purse.settle(tokens=95)
    assert [event.data["share"] for event in purse.events] == [0.8]


def test_money_does_not_crumble():
    purse = Purse(cost_usd=1000)
    for _ in range(1000):
        purse.reserve()
        purse.settle(cost_usd=0.1)
    assert purse.spent("cost_usd") == 100


@pytest.mark.parametrize(
    ("period", "name", "ends"),
    [
        ("day", "2030-01-31", datetime(2030, 2, 1, tzinfo=UTC)),
        ("month", "2030-01", datetime(2030, 2, 1, tzinfo=UTC)),
        ("run", "manual__1", None),
    ],
)
def test_a_period_has_a_name_and_an_end(period, name, ends):
    policy = Budget(calls=1, period=period)
    assert budget.period_of(policy, START, "manual__1") == name
    assert budget.period_ends(policy, START) == ends


def test_the_last_month_of_a_year_ends_with_the_year():
    now = datetime(2028, 12, 31, 23, 59, 59, 999, tzinfo=UTC).timestamp()
    assert budget.period_ends(Budget(period="month"), now) == datetime(2029, 1, 1, tzinfo=UTC)
    assert budget.period_ends(Budget(period="day"), now) == datetime(2029, 1, 1, tzinfo=UTC)
