"""10,000 random sequences of calls go through our breaker and through that of ``interlock-cb``: the same states throughout.

Where the two differ by design, the sequences are such that it makes no difference:

* While fewer than ``minimum_calls`` results are known, ours lets no more than so many calls out at once; interlock lets all
  go. A call that ours holds back so is not made at all.
* Ours are leased, as workers die; interlock is of one process. No lease ends here.
* interlock can let fewer probes out at once than decide; ours has one number for both, as resilience4j has.
* interlock always judges slow calls; ours only if it is said when a call is slow. It is said here.
* interlock's growth of open times is off by default, ours is on. Both are given the same here.

What ours calls ``failed=None`` is interlock's ``release_probe``; its *disabled* is our *forced closed*. Both drop results of
calls that were admitted before the state changed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from interlock._state_machine import StateMachine
from interlock.config import Config
from interlock.outcome import Outcome as Theirs
from interlock.window import WindowType

from airflow_agentic.resilience import Breaker, BreakerState, breaker
from airflow_agentic.resilience.breaker import Outcome

BLOCKS, SEQUENCES, STEPS = 20, 500, 40
SLOW = 2.0

STATES = {
    "closed": BreakerState.CLOSED,
    "open": BreakerState.OPEN,
    "half_open": BreakerState.HALF_OPEN,
    "forced_open": BreakerState.FORCED_OPEN,
    "disabled": BreakerState.FORCED_CLOSED,
}
THEIRS = {
    (False, False): Theirs.SUCCESS,
    (False, True): Theirs.SLOW_SUCCESS,
    (True, False): Theirs.FAILURE,
    (True, True): Theirs.SLOW_FAILURE,
}


@dataclass
class Clock:
    now: float = 1_000.0

    def monotonic(self):
        return self.now


@dataclass
class Call:
    token: str
    counted: bool
    era: int | None
    generation: int


class Both:
    """One sequence on both sides."""

    def __init__(self, dice):
        self.dice = dice
        window = dice.choice(["count", "time"])
        size = dice.randint(2, 12)
        probes = dice.randint(1, 4)
        self.settings = Breaker(
            window=window,
            window_size=size,
            minimum_calls=dice.randint(1, size),
            failure_rate=dice.choice([0.25, 0.5, 0.75, 1.0]),
            slow_call_seconds=1.0,
            slow_call_rate=dice.choice([0.5, 1.0]),
            open_seconds=dice.choice([1.0, 4.0]),
            open_growth=dice.choice([1.0, 2.0]),
            max_open_seconds=dice.choice([4.0, 16.0]),
            half_open_calls=probes,
            probe_lease_seconds=1e9,
        )
        self.clock = Clock()
        self.doc = None
        self.theirs = StateMachine(config=self._config(), clock=self.clock)
        self.out = []
        self.count = 0
        self.trace = [repr(self.settings)]

    def _config(self):
        ours = self.settings
        kind = WindowType.COUNT_BASED if ours.window == "count" else WindowType.TIME_BASED
        return Config(
            failure_rate_threshold=ours.failure_rate,
            minimum_number_of_calls=ours.minimum_calls,
            slow_call_duration_threshold=ours.slow_call_seconds,
            slow_call_rate_threshold=ours.slow_call_rate,
            permitted_calls_in_half_open=ours.half_open_calls,
            max_concurrent_probes=ours.half_open_calls,
            wait_duration_in_open=ours.open_seconds,
            wait_duration_backoff_multiplier=ours.open_growth,
            wait_duration_in_open_max=ours.max_open_seconds,
            window_type=kind,
            window_size=ours.window_size,
        )

    def step(self):
        self.clock.now += self.dice.choice([0, 0, 0.25, 0.5, 1, 3])
        kind = self.dice.choices(["call", "end", "force"], [50, 47, 1])[0]
        getattr(self, f"_{kind}")()
        ours, theirs = breaker.state_at(self.doc, self.clock.now), STATES[self.theirs.state.value]
        if ours is BreakerState.HALF_OPEN and theirs is BreakerState.OPEN:
            # Theirs changes when the next call comes, ours is told as that call would find it.
            assert not self.theirs.retry_after(), self.said()
        else:
            assert ours is theirs, self.said()

    def _call(self):
        self.count += 1
        token = str(self.count)
        verdict, doc, _ = breaker.admit(self.doc, self.settings, "key", self.clock.now, token)
        self.trace.append(f"{self.clock.now}: call {token}: {verdict}")
        if verdict.warming:
            return
        self.doc = doc
        assert verdict.admitted == self.theirs.acquire(), self.said()
        if verdict.admitted:
            self.out.append(Call(token, verdict.counted, verdict.era, self.theirs.generation))

    def _end(self):
        if not self.out:
            return
        call = self.out.pop(self.dice.randrange(len(self.out)))
        failed = self.dice.choice([True, True, False, False, None])
        slow = self.dice.random() < 0.3
        self.trace.append(f"{self.clock.now}: end {call.token}: failed={failed} slow={slow}")
        outcome = Outcome(failed, SLOW if slow else 0.0, call.token if call.counted else "", call.era)
        self.doc, _ = breaker.record(self.doc, self.settings, "key", self.clock.now, [outcome])
        if failed is None:
            self.theirs.release_probe(generation=call.generation)
        else:
            # Theirs opens for probes when a call comes, ours when anything does.
            self.theirs.attempt_auto_transition()
            self.theirs.record(THEIRS[failed, slow], generation=call.generation)

    def _force(self):
        to = self.dice.choice([BreakerState.FORCED_OPEN, BreakerState.FORCED_CLOSED, BreakerState.CLOSED])
        self.trace.append(f"{self.clock.now}: {to}")
        self.doc, _ = breaker.force(self.doc, "key", self.clock.now, to, actor="me", reason="to see")
        {
            BreakerState.FORCED_OPEN: self.theirs.force_open,
            BreakerState.FORCED_CLOSED: self.theirs.disable,
            BreakerState.CLOSED: self.theirs.reset,
        }[to]()

    def said(self):
        return "\n".join([*self.trace, f"ours: {self.doc}", f"theirs: {self.theirs.state}"])


@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_same_outcomes_bring_the_same_states_as_in_interlock(block):
    seen = set()
    for number in range(SEQUENCES):
        both = Both(random.Random(f"{block}/{number}"))
        for _ in range(STEPS):
            both.step()
        seen |= {entry["to"] for entry in (both.doc or {"history": []})["history"]}
    assert seen == set(BreakerState), "the sequences did not come everywhere"
