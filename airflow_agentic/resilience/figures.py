"""What a policy comes to, in numbers: how long a call can take, and how many reach what is down. Pure."""

from __future__ import annotations

import math

from airflow_agentic.config.policies import Breaker, Policy, longest_wait

_FIRST_TIMES = 6
_TOLERANCE = 1e-9  # of a share times a number of calls


def open_times(settings: Breaker) -> tuple[float, ...]:
    """Return how long a breaker stays open the first few times in a row, in seconds; the last one stays."""
    found = [settings.open_seconds]
    while len(found) < _FIRST_TIMES and found[-1] < settings.max_open_seconds and settings.open_growth > 1:
        found.append(min(found[-1] * settings.open_growth, settings.max_open_seconds))
    return tuple(found)


def probes_within(settings: Breaker, seconds: float) -> int:
    """Return how many probes reach, at most, what is down for so long, after the breaker has opened.

    Probes are taken to fail at once.
    """
    at, wait, rounds = 0.0, settings.open_seconds, 0
    while wait < settings.max_open_seconds and settings.open_growth > 1:
        if at + wait > seconds:
            return rounds * settings.half_open_calls
        at, rounds = at + wait, rounds + 1
        wait = min(wait * settings.open_growth, settings.max_open_seconds)
    return (rounds + int((seconds - at) // wait)) * settings.half_open_calls


def failures_to_open(settings: Breaker) -> int | None:
    """Return how many failures in a row open a breaker that has seen nothing but good calls.

    ``None`` for a window of seconds: that depends on how many calls there are.
    """
    if settings.window == "time":
        return None
    return max(1, math.ceil(settings.failure_rate * settings.window_size - _TOLERANCE))


def longest_seconds(policy: Policy) -> float | None:
    """Return the longest time that a call can take, waits included; ``None`` if there is no bound.

    What the other side asks for by ``Retry-After`` comes on top, unless there is a deadline.
    """
    if policy.deadline is not None:
        return policy.deadline
    if policy.timeout is None:
        return None
    tries = policy.retry.attempts if policy.retry else 1
    # While nobody knows yet how the other side is, a call waits for the first results of others.
    warming = policy.breaker.probe_lease_seconds if policy.breaker else 0.0
    waits = longest_wait(policy.retry) if policy.retry else 0.0
    return waits + tries * (policy.timeout + max(policy.max_wait, warming))
