from __future__ import annotations

import itertools
from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_agentic.resilience import RateLimit, limits

START = 1_700_000_000.0

# Some come at once, some after a long time, most about as fast as they may.
gaps = st.lists(
    st.one_of(st.just(0.0), st.floats(0, 0.5), st.floats(0, 5), st.floats(0, 200)), min_size=1, max_size=120
)
aheads = st.sampled_from([0.0, 0.0, 1.0, 30.0])


def run(policy, gaps, ahead=0.0):
    """Ask again and again; return when calls went."""
    doc, now, went = None, START, []
    for gap in gaps:
        now += gap
        turn, after = limits.take(doc, policy, now, ahead)
        assert turn.taken == (after is not None)
        assert turn.at >= now
        if after is not None:
            doc = after
            went.append(turn.at)
    return went


def most_in(times, seconds):
    """The most calls in any half-open span of so many seconds."""
    times = sorted(times)
    return max((bisect_right(times, at + seconds - 1e-4) - i for i, at in enumerate(times)), default=0)


@given(gaps=gaps, rate=st.integers(1, 20), burst=st.none() | st.integers(1, 30), ahead=aheads)
@settings(max_examples=300, deadline=None)
def test_a_bucket_lets_no_more_through_in_any_time_than_flows_in_and_the_burst(gaps, rate, burst, ahead):
    policy = RateLimit(rate=rate, per_seconds=2, burst=burst)
    went = run(policy, gaps, ahead)
    for seconds in (0.1, 1, 2, 7, 60):
        assert most_in(went, seconds) <= (burst or rate) + rate / 2 * seconds + 1e-3


@given(gaps=gaps, rate=st.integers(1, 20), ahead=aheads)
@settings(max_examples=300, deadline=None)
def test_a_sliding_window_never_holds_more_than_the_rate_wherever_it_begins(gaps, rate, ahead):
    policy = RateLimit(rate=rate, per_seconds=10, algorithm="sliding_window")
    assert most_in(run(policy, gaps, ahead), 10) <= rate


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
def test_whoever_always_asks_uses_nearly_all_of_it(algorithm):
    policy = RateLimit(rate=50, per_seconds=1, algorithm=algorithm)
    went = run(policy, [0.002] * 10_000)
    assert 0.95 * 50 * 20 <= len(went) <= 50 * 20 + 50


@given(gaps=gaps, algorithm=st.sampled_from(["token_bucket", "sliding_window"]))
@settings(max_examples=200, deadline=None)
def test_a_refusal_says_when_the_next_call_may_go(gaps, algorithm):
    policy = RateLimit(rate=3, per_seconds=10, algorithm=algorithm)
    doc, now = None, START
    for gap in gaps:
        now += gap
        turn, after = limits.take(doc, policy, now)
        if after is not None:
            doc = after
            continue
        assert limits.free_at(doc, policy, now) == turn.at
        early, _ = limits.take(doc, policy, (now + turn.at) / 2)
        assert not early.taken or turn.at - now < 1e-4
        later, _ = limits.take(doc, policy, turn.at + 1e-4)
        assert later.taken


@pytest.mark.parametrize("algorithm", ["token_bucket", "sliding_window"])
def test_those_who_wait_come_one_after_the_other(algorithm):
    policy = RateLimit(rate=2, per_seconds=1, burst=None, algorithm=algorithm)
    went = run(policy, [0.0] * 40, ahead=5.0)
    assert went == sorted(went)
    assert most_in(went, 1.0) <= 4 if algorithm == "token_bucket" else most_in(went, 1.0) <= 2
    assert 10 <= len(went) <= 12
    assert went[-1] - START <= 5.001


def test_whoever_would_wait_longer_takes_nothing():
    policy = RateLimit(rate=1, per_seconds=10)
    _, doc = limits.take(None, policy, START)
    turn, after = limits.take(doc, policy, START, ahead=9.9)
    assert (turn.taken, after) == (False, None)
    assert turn.at == pytest.approx(START + 10)


def test_a_bucket_of_one_lets_nobody_come_early():
    went = run(RateLimit(rate=10, per_seconds=1, burst=1), [0.0001] * 20_000)
    assert min(b - a for a, b in itertools.pairwise(went)) >= 0.1 - 1e-6
    assert len(went) == 20


def test_a_window_with_another_length_begins_anew():
    long = RateLimit(rate=1, per_seconds=60, algorithm="sliding_window")
    _, doc = limits.take(None, long, START)
    short = RateLimit(rate=1, per_seconds=6, algorithm="sliding_window")
    assert limits.take(doc, short, START)[0].taken


def test_a_window_keeps_no_more_than_it_needs():
    policy = RateLimit(rate=1000, per_seconds=1, algorithm="sliding_window")
    doc = None
    for number in range(1_000):
        _, after = limits.take(doc, policy, START + number / 10)
        doc = after or doc
    assert len(doc["parts"]) <= 61
