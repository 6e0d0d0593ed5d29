"""What a policy does to a call, in words: one guard after the other, the outermost first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_agentic.cli.output import count, span
from airflow_agentic.config.policies import (
    Breaker,
    Budget,
    Bulkhead,
    Fallback,
    Policy,
    RateLimit,
    Retry,
    longest_wait,
)
from airflow_agentic.resilience.figures import failures_to_open, longest_seconds, open_times, probes_within

_HOUR = 3_600.0
ORDER = ("fallback", "deadline", "retry", "breaker", "limits", "bulkhead", "budget", "timeout")
"""The guards, the outermost first; breaker, limits, bulkhead and budget decide together."""


@dataclass(frozen=True)
class Step:
    """What one guard does.

    Attributes:
        guard: Its name.
        says: Sentences.
        figures: The same in numbers, where there are any.
    """

    guard: str
    says: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)


def steps(policy: Policy, budgets: Mapping[str, Budget]) -> list[Step]:
    """Return what happens to a call, in the order in which it happens.

    Args:
        policy: The policy.
        budgets: Those that are declared.
    """
    found = []
    if policy.fallback is not None:
        found.append(Step("fallback", tuple(_fallback(policy.fallback, policy.when_refused))))
    if policy.deadline is not None:
        text = f"All tries and waits together take at most {_time(policy.deadline)}; then it is too late (DeadlineExceeded)."
        found.append(Step("deadline", (text,), {"seconds": policy.deadline}))
    if policy.retry is not None:
        found.append(_retry(policy.retry))
    if policy.breaker is not None:
        found.append(_breaker(policy.breaker))
    if policy.limits:
        found.append(Step("limits", tuple(map(_limit, policy.limits))))
    if policy.bulkhead is not None:
        found.append(Step("bulkhead", tuple(_bulkhead(policy.bulkhead))))
    if policy.budget is not None:
        found.append(Step("budget", tuple(_budget(policy.budget, budgets))))
    if policy.timeout is not None:
        text = f"One try takes at most {_time(policy.timeout)}; then it has failed (DeadlineExceeded)."
        found.append(Step("timeout", (text,), {"seconds": policy.timeout}))
    return found


def refusals(policy: Policy) -> Iterator[str]:
    """Yield what becomes of a call that a guard refuses; nothing if no guard can."""
    if not (policy.breaker or policy.limits or policy.bulkhead or policy.budget):
        return
    yield {
        "wait": "A task waits until it may go, with no slot held and no retry spent.",
        "fallback": "A task falls back at once.",
        "fail": "A task fails at once.",
    }[policy.when_refused]
    waits = (
        f"waits in its place for at most {_time(policy.max_wait)}, then gets" if policy.max_wait else "gets"
    )
    yield f"A call in code {waits} the error (NotAdmitted), which says when to come again."
    yield {
        "closed": "While the store cannot be reached, each process guards alone.",
        "open": "While the store cannot be reached, all calls are refused.",
    }[policy.without_store]


def bounds(policy: Policy) -> dict[str, Any]:
    """Return what a policy comes to: the longest time of a call, and how many calls reach what is down for an hour."""
    tries = policy.retry.attempts if policy.retry else 1
    reach = None
    if policy.breaker is not None:
        reach = policy.breaker.minimum_calls + probes_within(policy.breaker, _HOUR)
    return {
        "longest_seconds": longest_seconds(policy),
        "tries": tries,
        "calls_to_what_is_down_for_an_hour": reach,
    }


def bounds_in_words(policy: Policy) -> Iterator[str]:
    """Yield the same as sentences."""
    found = bounds(policy)
    longest, reach = found["longest_seconds"], found["calls_to_what_is_down_for_an_hour"]
    if longest is None:
        yield "There is no bound to how long a call can take: deadline or timeout would be one."
    else:
        more = (
            "" if policy.deadline or not policy.retry else ", and what the other side asks for by Retry-After"
        )
        yield f"A call takes at most {_time(longest)}{more}."
    if reach is None:
        yield f"All calls reach a service that is down, each up to {_times(found['tries'])}: there is no breaker."
    else:
        yield (
            f"What is down from the start gets at most {count(reach, 'call')} in an hour, from all workers together."
        )
        yield "What fails after good times gets those as well that are out when the breaker opens."


def guards_in_short(policy: Policy) -> list[str]:
    """Return the guards of a policy in a few words each, in their order."""
    found = {
        "fallback": "fallback" if policy.fallback else "",
        "deadline": f"deadline {_time(policy.deadline)}" if policy.deadline else "",
        "retry": f"retry {policy.retry.max_attempts or ''}".strip() if policy.retry else "",
        "breaker": "breaker" if policy.breaker else "",
        "limits": ", ".join(f"{each.rate:,} in {_time(each.per_seconds)}" for each in policy.limits),
        "bulkhead": f"{policy.bulkhead.max_concurrent:,} at once" if policy.bulkhead else "",
        "budget": f"budget {policy.budget if isinstance(policy.budget, str) else ''}".strip()
        if policy.budget
        else "",
        "timeout": f"timeout {_time(policy.timeout)}" if policy.timeout else "",
    }
    return [found[guard] for guard in ORDER if found[guard]]


def _fallback(said: Fallback, when_refused: str) -> Iterator[str]:
    ways = []
    if said.agents:
        ways.append(f"ask {_then(said.agents)}")
    if said.cached_seconds:
        ways.append(
            f"take the last good answer to the same task, if it is no older than {_time(said.cached_seconds)}"
        )
    if said.person:
        ways.append(f"ask a person ({said.person!r}), for at most {_time(said.person_seconds)}")
    if said.has_default:
        ways.append(f"take {json.dumps(said.default, ensure_ascii=False)}")
    yield f"What fails in the end ({', '.join(said.categories)}) does not fail yet: {'; else '.join(ways)}."
    if when_refused == "fallback":
        yield "So does what a guard refuses."
    yield "A result that came so is degraded, and says so."


def _retry(said: Retry) -> Step:
    waits = [said.bound(failed) for failed in range(1, said.attempts)]
    longest = longest_wait(said)
    says = [f"A call is tried {_times(said.attempts)}, if it fails by {_or(said.categories)}."]
    if waits:
        says.append(
            f"Before each further try a random wait, of at most {_then([_time(wait) for wait in waits[:6]])}"
            f"{' and so on' if len(waits) > 6 else ''}: at most {_time(longest)} of waiting in all."
        )
        says.append(
            f"If the other side says when to come again (Retry-After), not before; and not here, if that is in more than "
            f"{_time(said.longest)}."
        )
    if said.budget is not None:
        says.append(
            f"At most {said.budget:.0%} of all calls of the last minute may be retries, in the whole fleet."
        )
    says.append("A message comes back to its mailbox instead, after such a wait, and holds no worker.")
    return Step("retry", tuple(says), {"attempts": said.attempts, "longest_wait_seconds": longest})


def _breaker(said: Breaker) -> Step:
    times, probes = open_times(said), probes_within(said, _HOUR)
    failures = failures_to_open(said)
    window = f"the last {count(said.window_size, 'call')}"
    if said.window == "time":
        window = f"the calls of the last {_time(said.window_size)}"
    slow = ""
    if said.slow_call_seconds is not None:
        slow = f", or {said.slow_call_rate:.0%} took longer than {_time(said.slow_call_seconds)}"
    says = [
        f"It opens when {said.failure_rate:.0%} of {window} failed{slow}; {_key(said.key)}.",
        f"It judges from {count(said.minimum_calls, 'result')} on. Until then at most {said.minimum_calls:,} calls are out.",
    ]
    if failures is not None:
        says.append(f"After good times {count(failures, 'failure')} in a row open it.")
    longer = f"{_then([_time(each) for each in times])}" + (
        ""
        if len(times) == 1 or times[-1] == said.max_open_seconds
        else f" and so on, at most {_time(said.max_open_seconds)}"
    )
    says.append(
        f"Open, it lets no call through for {longer}; then {count(said.half_open_calls, 'probe')} decide."
    )
    says.append(f"That is {probes:,} probes in the first hour, from all workers together.")
    return Step(
        "breaker",
        tuple(says),
        {
            "minimum_calls": said.minimum_calls,
            "failures_to_open": failures,
            "open_seconds": list(times),
            "probes_in_the_first_hour": probes,
        },
    )


def _limit(said: RateLimit) -> str:
    how = "never more in any such time"
    if said.algorithm == "token_bucket":
        how = f"evenly, {said.burst or said.rate:,} at once after a quiet time"
    return f"At most {count(said.rate, 'call')} in {_time(said.per_seconds)}, in the whole fleet: {how}; {_key(said.key)}."


def _bulkhead(said: Bulkhead) -> Iterator[str]:
    yield f"At most {count(said.max_concurrent, 'call')} out at once, in the whole fleet; {_key(said.key)}."
    if said.adaptive:
        yield "A third fewer when calls are throttled or too late, one more after good ones."
    yield f"The slot of a worker that died is free after {_time(said.lease_seconds)}."


def _budget(said: Budget | str, budgets: Mapping[str, Budget]) -> Iterator[str]:
    named = f" (budget {said!r})" if isinstance(said, str) else ""
    found = budgets.get(said) if isinstance(said, str) else said
    if found is None:
        yield f"Budget {said!r}, which is not declared."
        return
    whose = "All together" if found.per == "all" else f"Each {'DAG' if found.per == 'dag' else found.per}"
    limits = {
        f"{found.calls or 0:,} calls": found.calls,
        f"{found.tokens or 0:,} tokens": found.tokens,
        f"${found.cost_usd or 0:,.2f}": found.cost_usd,
    }
    most = [text for text, limit in limits.items() if limit is not None]
    when = "a DAG run" if found.period == "run" else f"a {found.period} (UTC)"
    yield f"{whose} may spend {_and(most) or 'what they like, and it is counted,'} in {when}{named}."
    asides = {
        f"{found.reserve_tokens:,} tokens": found.reserve_tokens,
        f"${found.reserve_cost_usd:,.4g}": found.reserve_cost_usd,
    }
    if set_aside := [text for text, amount in asides.items() if amount]:
        yield f"Before each call {_and(set_aside)} are set aside, and settled after it."
    if most and found.alert_at:
        yield f"Somebody is told at {_and([f'{share:.0%}' for share in found.alert_at])}."


def _key(key: str | None) -> str:
    return f"all who say {key!r} share it" if key else "all calls of one key share it"


def _time(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else span(seconds)


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def _then(texts: Sequence[str]) -> str:
    return ", then ".join(texts)


def _and(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def _or(texts: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
