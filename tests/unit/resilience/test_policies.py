from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest
from pydantic import ValidationError

from airflow_agentic.resilience import (
    Breaker,
    Budget,
    Bulkhead,
    FailureRule,
    Fallback,
    Policy,
    RateLimit,
    Retry,
    breaker,
    budget,
    bulkhead,
)
from airflow_agentic.stores.documents import VALUE_BYTES

WRONG = {
    r"minimum_calls \(6\) .* window_size \(5\)": (Breaker, {"window_size": 5, "minimum_calls": 6}),
    "1000 calls": (Breaker, {"window_size": 2_000}),
    r"max_open_seconds \(30\) .* open_seconds \(60\)": (
        Breaker,
        {"open_seconds": 60, "max_open_seconds": 30},
    ),
    "less than or equal to 1": (Breaker, {"failure_rate": 50}),
    "burst .* sliding_window": (RateLimit, {"rate": 1, "algorithm": "sliding_window", "burst": 2}),
    "reserve_tokens": (Budget, {"tokens": 10, "reserve_tokens": 11}),
    "fall back to": (Fallback, {}),
    "twice": (Fallback, {"agents": ("a", "a")}),
    "every failure": (FailureRule, {"category": "transient"}),
    "Input should be 'transient'": (FailureRule, {"error": "X", "category": "temporary"}),
    r"timeout \(5 s\) .* deadline \(4 s\)": (Policy, {"timeout": 5, "deadline": 4}),
    "deadline": (Policy, {"retry": Retry(max_attempts=9), "deadline": 5}),
    "at most 200 characters": (Breaker, {"key": "x" * 201}),
    "Extra inputs are not permitted": (Policy, {"retries": 3}),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_policy_that_cannot_work_is_refused_and_says_why(text):
    kind, values = WRONG[text]
    with pytest.raises(ValidationError, match=text):
        kind(**values)


def test_spans_may_be_timedeltas_and_one_limit_stands_for_itself():
    policy = Policy(limits=RateLimit(rate=1, per_seconds=timedelta(minutes=1)), timeout=timedelta(seconds=2))
    assert policy.limits == (RateLimit(rate=1, per_seconds=60),)
    assert policy.timeout == 2
    assert Policy.model_validate(policy.model_dump(mode="json")) == policy
    assert hash(Breaker()) == hash(Breaker())


def test_what_a_store_keeps_is_enough_for_the_fullest_of_guards():
    now, tokens = 1_800_000_000.123456, [uuid.uuid4().hex for _ in range(2_000)]
    calls = Breaker(window="time", window_size=3_600, minimum_calls=1_000, half_open_calls=1_000)
    slots, purse = Bulkhead(max_concurrent=2_000), Budget(tokens=10**9, reserve_tokens=1_000)
    full = dict.fromkeys(("breaker", "bulkhead", "budget"))
    seconds = [[int(now) - number, 10_000, 10_000, 10_000] for number in range(3_600)]
    for token in tokens:
        _, full["bulkhead"] = bulkhead.take(full["bulkhead"], slots, now, token)
        _, full["budget"], _ = budget.reserve(full["budget"], purse, "key", now, token)
    for token in tokens[:1_000]:
        _, full["breaker"], _ = breaker.admit(full["breaker"], calls, "key", now, token)
    assert len(full["breaker"]["out"]) == 1_000
    full["breaker"]["seconds"] = seconds
    assert {kind: len(json.dumps(doc)) <= VALUE_BYTES for kind, doc in full.items()} == dict.fromkeys(
        full, True
    )
