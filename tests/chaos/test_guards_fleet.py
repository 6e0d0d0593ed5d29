"""Promise P5: guards decide for the whole fleet. Many processes on one store, of every kind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from bisect import bisect_right
from collections import Counter
from pathlib import Path

import fleet
import pytest
import storms

from airflow_agentic.errors import NotAdmitted
from airflow_agentic.resilience import Attempt, BreakerState, Policy, Subject
from airflow_agentic.resilience.ports import GuardKey
from airflow_agentic.stores import open_store

SECONDS = 60 if storms.IS_LONG else 3
PROCESSES = 8
_FLEET = [sys.executable, "-W", "error", str(Path(fleet.__file__))]


def run(server, what, **told):
    """Let processes do something; return what each saw."""
    told = {"processes": PROCESSES, **told}
    done = subprocess.run(
        [*_FLEET, server.url, what, json.dumps(told)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not [each["error"] for each in found if "error" in each]
    return found


def test_of_200_tasks_on_a_dead_primary_only_the_first_reach_it(server):
    breaker = {"minimum_calls": 10, "open_seconds": 60, "half_open_calls": 3}
    found = run(server, "dead", key="conn:dead", calls=25, policy={"breaker": breaker})
    assert 0 < sum(each["reached"] for each in found) <= 10
    with open_store(server.url) as store:
        assert store.breaker("conn:dead").state is BreakerState.OPEN


def test_of_200_tasks_that_outlast_the_open_time_only_the_probes_reach_it_too(server):
    breaker = {"minimum_calls": 10, "open_seconds": 0.3, "half_open_calls": 3, "open_growth": 1}
    found = run(server, "probes", key="conn:race", seconds=SECONDS, policy={"breaker": breaker})
    eras = Counter(era for each in found for era in each["eras"])
    assert eras.pop(0) <= 10
    assert len(eras) >= SECONDS, "there were few rounds"
    assert max(eras.values()) <= 3
    assert sum(eras.values()) >= 2.5 * len(eras), "hardly anybody came through"


def most_in(times, seconds):
    times = sorted(times)
    return max(bisect_right(times, at + seconds) - i for i, at in enumerate(times))


@pytest.mark.parametrize(("algorithm", "wait"), [("token_bucket", 0.5), ("sliding_window", 0.0)])
def test_many_processes_together_keep_to_one_rate_and_use_it(server, algorithm, wait):
    rate, burst = 40, 5 if algorithm == "token_bucket" else None
    limit = {"rate": rate, "algorithm": algorithm, "burst": burst}
    policy = {"limits": limit, "max_wait": wait}
    key = f"conn:rate-{algorithm}"
    found = run(server, "rates", key=key, seconds=SECONDS, policy=policy)
    turns = [at for each in found for at in each["turns"]]
    went = [at for each in found for at in each["went"]]
    if algorithm == "token_bucket":
        for seconds in (0.1, 0.5, 1, 2, SECONDS):
            assert most_in(turns, seconds) <= burst + rate * seconds + 1e-3
    else:
        assert most_in(turns, 0.999) <= rate
    # Nobody went before the turn was there, so this holds for the calls themselves.
    assert len(went) <= rate * (SECONDS + wait) + (burst or rate)
    assert len(went) >= 0.95 * rate * SECONDS


def test_a_budget_is_never_oversold(server):
    # Each call sets aside as much as any of them takes.
    budget = {"calls": 300, "tokens": 1_000, "reserve_tokens": 8, "per": "all"}
    found = run(server, "buy", key="conn:budget", tokens=8, policy={"budget": budget})
    calls, tokens = (sum(each[what] for each in found) for what in ("calls", "tokens"))
    assert 1_000 - 8 * PROCESSES < tokens <= 1_000
    with open_store(server.url) as store:
        ((_, entry),) = store.guards.entries("budget", "conn:budget/all/")
        doc = json.loads(entry.value)
    assert doc["spent"] == {"calls": calls, "tokens": tokens, "cost_usd": 0}
    assert doc["held"] == {}
    found = run(server, "buy", key="conn:calls", tokens=8, policy={"budget": {"calls": 100, "per": "all"}})
    assert sum(each["calls"] for each in found) == 100


def held_and_killed(server, policy, key):
    """Let a process hold something, and kill it after it has renewed its lease."""
    told = json.dumps({"policy": policy, "key": key})
    with subprocess.Popen([*_FLEET, server.url, "hold", told], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            time.sleep(1)
        finally:
            holder.kill()


def free_again(store, policy, key):
    """Return when somebody else is let in, by the store's clock."""
    guard, end = store.guard(Policy.model_validate(policy), key, Subject()), time.monotonic() + 20
    while time.monotonic() < end:
        try:
            entry = guard.admit()
        except NotAdmitted:
            time.sleep(0.05)
        else:
            guard.end(Attempt(entry, time.monotonic()))
            return entry.go_at
    raise AssertionError("it never came free")


def doc_of(store, kind, key):
    at = GuardKey(kind, key)
    return json.loads(store.guards.read([at]).entries[at].value)


def test_a_slot_of_a_killed_process_comes_free_when_its_lease_ends_and_not_before(server):
    policy = {"bulkhead": {"max_concurrent": 1, "lease_seconds": 1.5}}
    held_and_killed(server, policy, "conn:slot")
    with open_store(server.url) as store:
        (until,) = doc_of(store, "bulkhead", "conn:slot")["slots"].values()
        assert until <= free_again(store, policy, "conn:slot") <= until + 2


def test_a_probe_of_a_killed_process_makes_room_for_another_when_its_lease_ends_and_not_before(server):
    breaker = {
        "minimum_calls": 1, "window_size": 1, "open_seconds": 0.1, "half_open_calls": 1, "probe_lease_seconds": 1.5,
    }  # fmt: skip
    policy = {"breaker": breaker}
    with open_store(server.url) as store:
        guard = store.guard(Policy.model_validate(policy), "conn:probe")
        with pytest.raises(ConnectionError), guard.attempt():
            raise ConnectionError
        time.sleep(0.2)
        held_and_killed(server, policy, "conn:probe")
        (until,) = doc_of(store, "breaker", "conn:probe")["out"].values()
        assert store.breaker("conn:probe").state is BreakerState.HALF_OPEN
        assert until <= free_again(store, policy, "conn:probe") <= until + 2
        assert store.breaker("conn:probe").state is BreakerState.CLOSED
