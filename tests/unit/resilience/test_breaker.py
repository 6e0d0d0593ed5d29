from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_agentic.resilience import Breaker, BreakerState, breaker
from airflow_agentic.resilience.breaker import Outcome

KEY = "conn:primary"
FAST = Breaker(window_size=4, minimum_calls=2, open_seconds=10, half_open_calls=2, max_open_seconds=35)


class Side:
    """A breaker with a clock; what it was told of is kept."""

    def __init__(self, policy=FAST):
        self.policy, self.now, self.doc, self.events, self.count = policy, 1_000.0, None, [], 0

    def ask(self):
        self.count += 1
        verdict, doc, events = breaker.admit(self.doc, self.policy, KEY, self.now, str(self.count))
        if verdict.counted or events:
            self.doc = doc
        self.events += events
        return verdict

    def call(self, failed=False, seconds=0.0):
        """A whole call, if it may go."""
        verdict = self.ask()
        if verdict.admitted:
            self.tell(failed, str(self.count) if verdict.counted else "", seconds, verdict.era)
        return verdict.admitted

    def tell(self, failed, token="", seconds=0.0, era=None, times=1):
        outcome = Outcome(failed, seconds, token, era, times)
        self.doc, events = breaker.record(self.doc, self.policy, KEY, self.now, [outcome])
        self.events += events

    def fail(self, times=2):
        for _ in range(times):
            self.call(failed=True)

    @property
    def state(self):
        return breaker.state_at(self.doc, self.now)

    def opened(self):
        self.fail()
        assert self.state is BreakerState.OPEN
        return self

    def probing(self):
        self.opened()
        self.now += 10
        assert self.state is BreakerState.HALF_OPEN
        return self


def test_it_opens_when_the_rate_is_reached_and_not_before_enough_is_known():
    side = Side(Breaker(window_size=10, minimum_calls=5, failure_rate=0.6))
    for failed in (True, True, False, True):
        side.call(failed)
    assert side.state is BreakerState.CLOSED
    side.call(failed=False)
    assert side.state is BreakerState.OPEN
    assert [event.type for event in side.events] == ["breaker.opened"]
    assert side.events[0].data["reason"] == "3 of 5 calls failed"


def test_only_the_last_calls_count():
    side = Side(Breaker(window_size=4, minimum_calls=4, failure_rate=0.75))
    for failed in (True, True, False, False, False, True, False, True):
        side.call(failed)
    assert side.state is BreakerState.CLOSED
    assert breaker.tally(side.doc, side.policy, side.now).failed == 2


def test_a_window_of_time_forgets_whole_seconds():
    side = Side(Breaker(window="time", window_size=5, minimum_calls=3))
    side.call(failed=True)
    side.now += 4
    side.call(failed=True)
    side.now += 1
    assert breaker.tally(side.doc, side.policy, side.now).calls == 1
    side.call(failed=True)
    assert side.state is BreakerState.CLOSED
    side.call(failed=True)
    assert side.state is BreakerState.OPEN


def test_slow_calls_open_it_as_failures_do():
    side = Side(Breaker(window_size=4, minimum_calls=4, slow_call_seconds=1, slow_call_rate=0.5))
    for seconds in (0.2, 1.0, 1.1):
        side.call(seconds=seconds)
    assert side.state is BreakerState.CLOSED
    side.call(seconds=5)
    assert side.state is BreakerState.OPEN
    assert "2 of 4 calls took longer than 1 s" in side.events[0].data["reason"]


def test_while_nothing_is_known_no_more_calls_are_out_than_are_needed_to_know():
    side = Side()
    assert [side.ask().admitted for _ in range(4)] == [True, True, False, False]
    assert side.ask().warming
    side.tell(False, "1")
    # One is known and one is out.
    assert not side.ask().admitted
    side.tell(False, "2")
    assert all(side.ask().admitted for _ in range(20))


def test_a_first_call_of_which_nothing_is_heard_is_forgotten():
    side = Side()
    assert [side.ask().admitted for _ in range(3)] == [True, True, False]
    side.now += FAST.probe_lease_seconds
    assert side.ask().admitted


def test_a_call_that_says_nothing_of_health_gives_its_place_back():
    side = Side()
    side.ask()
    side.ask()
    side.tell(None, "1")
    assert side.ask().admitted
    assert breaker.tally(side.doc, FAST, side.now).calls == 0


def test_when_the_time_is_over_as_many_probes_go_as_decide():
    side = Side().probing()
    assert [side.ask().admitted for _ in range(4)] == [True, True, False, False]
    assert [event.type for event in side.events] == ["breaker.opened", "breaker.half_opened"]


def test_good_probes_close_it_and_nothing_of_before_counts():
    side = Side().probing()
    assert side.call()
    assert side.state is BreakerState.HALF_OPEN
    assert side.call()
    assert side.state is BreakerState.CLOSED
    side.call(failed=True)
    assert side.state is BreakerState.CLOSED


def test_the_probes_decide_together():
    side = Side().probing()
    assert side.call(failed=True)
    assert side.state is BreakerState.HALF_OPEN
    assert side.call()
    # Half of them failed, and that is the rate.
    assert side.state is BreakerState.OPEN


def test_it_stays_open_longer_each_time_and_not_longer_than_said():
    side = Side().opened()
    for seconds in (10, 20, 35, 35):
        assert side.doc["until"] == side.now + seconds
        side.now += seconds - 0.001
        assert not side.call()
        side.now += 0.001
        side.fail()
    side.now += 35
    side.call()
    side.call()
    side.opened()
    assert side.doc["until"] == side.now + 10


def test_a_probe_whose_worker_died_makes_room_for_another_when_its_lease_ends():
    side = Side().probing()
    assert side.ask().admitted
    assert side.ask().admitted
    side.now += 59.9
    assert not side.ask().admitted
    side.now += 0.1
    assert side.ask().admitted


def test_a_probe_that_goes_on_keeps_its_lease():
    side = Side().probing()
    side.ask()
    first = str(side.count)
    side.ask()
    side.now += 40
    side.doc = breaker.renew(side.doc, FAST, side.now, first)
    side.now += 40
    assert side.ask().admitted
    assert not side.ask().admitted
    assert breaker.renew(side.doc, FAST, side.now, "another") is None


@pytest.mark.parametrize("late", [True, False])
def test_a_result_from_before_the_change_decides_nothing(late):
    side = Side()
    side.ask()
    first = side.ask()
    side.tell(True, "1")
    side.tell(True, "x", era=first.era)
    assert side.state is BreakerState.OPEN
    side.now += 10
    side.ask()
    side.tell(late, "2", era=first.era)
    assert side.doc["probes"] == ""
    side.tell(False, str(side.count))
    side.call()
    assert side.state is BreakerState.CLOSED
    for _ in range(5):
        side.tell(late, "2", era=first.era)
    assert breaker.tally(side.doc, FAST, side.now).calls == 0


def test_fewer_probes_decide_at_once_when_the_settings_say_so():
    side = Side(FAST.model_copy(update={"half_open_calls": 3})).probing()
    side.call()
    side.call()
    side.policy = FAST
    assert side.ask().admitted
    assert side.state is BreakerState.CLOSED


def test_a_smaller_window_forgets_what_is_too_old_for_it():
    side = Side(Breaker(window_size=10, minimum_calls=5))
    for failed in (True, True, False, False, False):
        side.call(failed)
    side.policy = Breaker(window_size=3, minimum_calls=3)
    side.call()
    assert side.doc["ring"] == "000"


@pytest.mark.parametrize("to", [BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED])
def test_what_is_set_by_hand_stays_so_until_its_end(to):
    side = Side()
    side.doc, events = breaker.force(
        side.doc, KEY, side.now, to, actor="ann", reason="they move", until=side.now + 60
    )
    assert [event.type for event in events] == [f"breaker.{to.value}"]
    assert events[0].data["actor"] == "ann"
    for _ in range(20):
        side.call(failed=True)
    assert side.state is to
    verdict = side.ask()
    assert verdict.admitted == (to is BreakerState.FORCED_CLOSED)
    assert verdict.admitted or verdict.reason == "ann: they move"
    side.now += 60
    assert side.state is BreakerState.CLOSED
    assert side.call()


def test_what_is_set_without_an_end_stays_so():
    side = Side()
    side.doc, _ = breaker.force(None, KEY, side.now, BreakerState.FORCED_OPEN, actor="ann", reason="why")
    side.now += 1e7
    assert not side.ask().admitted


def test_resetting_it_forgets_all_results():
    side = Side().opened()
    side.doc, _ = breaker.force(side.doc, KEY, side.now, BreakerState.CLOSED, actor="ann", reason="mended")
    assert side.call(failed=True)
    assert side.state is BreakerState.CLOSED
    assert [entry["to"] for entry in side.doc["history"]] == ["open", "closed"]


def test_many_good_results_in_one_are_as_many_results():
    side = Side(Breaker(window="time", window_size=60, minimum_calls=10, failure_rate=0.5))
    side.tell(False, times=95)
    for _ in range(94):
        side.tell(True)
    assert side.state is BreakerState.CLOSED
    side.tell(True)
    assert side.state is BreakerState.OPEN


def test_its_history_does_not_grow_without_end():
    side = Side().opened()
    for _ in range(60):
        side.now += 35
        side.fail()
    assert len(side.doc["history"]) == 20


steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "end", "late", "wait"]),
        st.sampled_from([True, True, False, None]),
        st.floats(0, 70),
    ),
    max_size=60,
)


@given(
    steps=steps,
    window=st.sampled_from(["count", "time"]),
    minimum=st.integers(1, 4),
    probes=st.integers(1, 3),
)
@settings(max_examples=300, deadline=None)
def test_whatever_happens_no_more_probes_are_out_than_may_be(steps, window, minimum, probes):
    policy = Breaker(
        window=window, window_size=8, minimum_calls=minimum, half_open_calls=probes, open_seconds=5
    )
    side, out = Side(policy), {}
    for kind, failed, seconds in steps:
        if kind == "wait":
            side.now += seconds
        elif kind == "ask":
            verdict = side.ask()
            if verdict.admitted:
                out[str(side.count)] = (verdict, side.now + policy.probe_lease_seconds)
        elif out:
            token = next(iter(out))
            verdict, _ = out.pop(token)
            side.tell(failed, token if verdict.counted else "", era=verdict.era)
        held = [until for verdict, until in out.values() if verdict.counted and until > side.now]
        known = breaker.tally(side.doc, policy, side.now).calls if side.doc else 0
        if side.state is BreakerState.HALF_OPEN:
            leased = [until for until in side.doc["out"].values() if until > side.now]
            assert len(leased) + len(side.doc["probes"]) <= probes
        if side.state is BreakerState.CLOSED and known < minimum and side.doc:
            assert sum(until > side.now for until in side.doc["out"].values()) <= minimum
        assert len(held) <= max(minimum, probes) * 2
        assert side.doc is None or len(side.doc["ring"]) <= 8
