"""The guards of one policy together: they admit a call, or refuse it, in one change of what all workers share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from airflow_agentic.config.policies import Breaker, Budget, Bulkhead, Policy, RateLimit
from airflow_agentic.errors import (
    BudgetExceeded,
    BulkheadFull,
    Category,
    CircuitOpen,
    LimitExceeded,
    NotAdmitted,
)
from airflow_agentic.resilience import breaker, budget, bulkhead, limits
from airflow_agentic.resilience.breaker import Outcome
from airflow_agentic.resilience.budget import Spending
from airflow_agentic.resilience.failures import Failure
from airflow_agentic.resilience.ports import GuardEvent, GuardKey, Kind
from airflow_agentic.resilience.shared import Decision, Doc, Docs

T = TypeVar("T")

_LONGEST_NAME = 400  # as stores keep them


@dataclass(frozen=True)
class Subject:
    """For whom work is done; what budgets are counted by.

    Attributes:
        agent: The agent.
        dag: The DAG.
        team: The team that the DAG belongs to.
        run: The DAG run, or another name of the whole piece of work.
    """

    agent: str = ""
    dag: str = ""
    team: str = ""
    run: str = ""


NOBODY = Subject()
"""Nobody in particular."""


@dataclass(frozen=True)
class Entry:
    """An admission.

    Attributes:
        token: Names the call.
        go_at: When it may begin, by the store's clock in seconds since 1970.
        counted: Whether the breaker counts on its result.
        budget_key: Where its spending is settled.
        era: How often the breaker had changed its state by then.
    """

    token: str
    go_at: float
    counted: bool = False
    budget_key: GuardKey | None = None
    era: int | None = None

    @property
    def is_leased(self) -> bool:
        """Whether something is held for it that must be given back."""
        return self.counted or self.budget_key is not None


@dataclass(frozen=True)
class Refusal:
    """No admission.

    Attributes:
        error: Why, as it is raised.
        retry_at: When to ask again, in seconds since 1970; ``None`` if nobody knows.
        warming: The breaker waits for the first results.
    """

    error: NotAdmitted
    retry_at: float | None
    warming: bool = False


class Admission:
    """What a policy asks of the store.

    Args:
        policy: The policy.
        key: What is guarded.
        subject: For whom.
        spending: The budget, if there is one; a policy may only name it.
        budget_name: Its name; default the key.
    """

    def __init__(
        self,
        policy: Policy,
        key: str,
        subject: Subject,
        spending: Budget | None = None,
        budget_name: str | None = None,
    ) -> None:
        self.key = key
        self._is_final = policy.when_refused == "fail"
        self._subject = subject
        self.breaker: Breaker | None = policy.breaker
        self.bulkhead: Bulkhead | None = policy.bulkhead
        self.budget: Budget | None = spending
        self._budget_name = budget_name or key
        self.breaker_key = _named("breaker", (policy.breaker.key if policy.breaker else None) or key)
        self._bulkhead_key = _named("bulkhead", (policy.bulkhead.key if policy.bulkhead else None) or key)
        self._limits: dict[GuardKey, RateLimit] = {
            _named("limit", each.key or key, f"{each.rate}:{each.per_seconds:g}:{each.algorithm}"): each
            for each in policy.limits
        }

    @property
    def asks_nothing_but_breaker(self) -> bool:
        """Whether a call of what is well need ask nobody."""
        return self.breaker is not None and not self._limits and self.bulkhead is None and self.budget is None

    @property
    def asks_nothing(self) -> bool:
        """Whether there is no shared guard at all."""
        return self.breaker is None and not self._limits and self.bulkhead is None and self.budget is None

    def shortest_lease(self) -> float:
        """Return the shortest lease that a call may hold, in seconds."""
        leases = [self.breaker.probe_lease_seconds] if self.breaker else []
        leases += [each.lease_seconds for each in (self.bulkhead, self.budget) if each is not None]
        return min(leases)

    def keys(self, now: float, *, limited: bool = True) -> list[GuardKey]:
        """Return the documents that admission looks at."""
        found = [self.breaker_key] if self.breaker else []
        found += list(self._limits) if limited else []
        found += [self._bulkhead_key] if self.bulkhead else []
        return found + ([self._budget_key(now)] if self.budget else [])

    def admit(
        self, docs: Docs, now: float, token: str, *, ahead: float, limited: bool = True, budget_at: float
    ) -> Decision[Entry | Refusal]:
        """Decide whether a call may go: all guards let it, or nothing is taken.

        Args:
            docs: What there is.
            now: The time.
            token: Names the call.
            ahead: How long it would wait for its turn.
            limited: Whether rates count; not if its turn was set aside before.
            budget_at: The time by which the budget's key was made.
        """
        after: dict[GuardKey, Doc] = {}
        events: tuple[GuardEvent, ...] = ()
        counted, era, go_at, budget_key = False, None, now, None
        if self.breaker is not None:
            verdict, doc, events = breaker.admit(
                docs.get(self.breaker_key), self.breaker, self.breaker_key.name, now, token
            )
            if not verdict.admitted:
                # That it is half open now is told even if this call is none of the probes.
                return Decision(self._open(verdict, now), {self.breaker_key: doc} if events else {}, events)
            counted, era = verdict.counted, verdict.era
            if counted or events:
                after[self.breaker_key] = doc
        for key, limit in self._limits.items() if limited else ():
            turn, left = limits.take(docs.get(key), limit, now, ahead)
            if left is None:
                return Decision(self._limited(key, limit, turn.at))
            after[key], go_at = left, max(go_at, turn.at)
        if self.bulkhead is not None:
            slot, left = bulkhead.take(docs.get(self._bulkhead_key), self.bulkhead, now, token)
            if not slot.taken:
                return Decision(self._full(slot))
            after[self._bulkhead_key] = left
        if self.budget is not None:
            budget_key = self._budget_key(budget_at)
            grant, left, told = budget.reserve(docs.get(budget_key), self.budget, budget_key.name, now, token)
            if not grant.granted:
                changed = {budget_key: left} if told else {}
                return Decision(self._overspent(budget_key.name, grant.reason, now), changed, told)
            after[budget_key], events = left, events + told
        held = counted or self.bulkhead is not None
        return Decision(Entry(token, go_at, held, budget_key, era), after, events)

    def limit_keys(self) -> list[GuardKey]:
        """Return the documents of rates."""
        return list(self._limits)

    def reserve(self, docs: Docs, now: float, ahead: float) -> Decision[float | Refusal]:
        """Set the next turn aside, however far ahead within ``ahead`` seconds; rates alone count."""
        after: dict[GuardKey, Doc] = {}
        go_at = now
        for key, limit in self._limits.items():
            turn, left = limits.take(docs.get(key), limit, now, ahead)
            if left is None:
                return Decision(self._limited(key, limit, turn.at))
            after[key], go_at = left, max(go_at, turn.at)
        return Decision(go_at, after)

    def finish_keys(self, entry: Entry, *, judged: bool) -> list[GuardKey]:
        """Return the documents that :meth:`finish` changes."""
        found = [self.breaker_key] if self.breaker and judged else []
        found += [self._bulkhead_key] if self.bulkhead else []
        return found + ([entry.budget_key] if entry.budget_key else [])

    def finish(
        self,
        docs: Docs,
        now: float,
        entry: Entry,
        outcomes: Sequence[Outcome],
        failure: Failure | None,
        took: Spending,
    ) -> Decision[None]:
        """Take note of how calls ended, and give back what was held for this one.

        Args:
            docs: What there is.
            now: The time.
            entry: Of the call.
            outcomes: Of this call, and of others that this process kept to itself until now.
            failure: Why this one failed, if it did.
            took: What it spent.
        """
        after: dict[GuardKey, Doc] = {}
        events: tuple[GuardEvent, ...] = ()
        if self.breaker is not None and outcomes:
            after[self.breaker_key], events = breaker.record(
                docs.get(self.breaker_key), self.breaker, self.breaker_key.name, now, outcomes
            )
        if self.bulkhead is not None:
            after[self._bulkhead_key] = bulkhead.leave(
                docs.get(self._bulkhead_key), self.bulkhead, now, entry.token, _told_by(failure)
            )
        if self.budget is not None and entry.budget_key is not None:
            after[entry.budget_key], told = budget.settle(
                docs.get(entry.budget_key), self.budget, entry.budget_key.name, now, entry.token, took
            )
            events += told
        return Decision(None, after, events)

    def renew(self, docs: Docs, now: float, entry: Entry) -> Decision[bool]:
        """Make the leases of a call last longer; the answer says whether any was still there."""
        renewed: dict[GuardKey, Doc | None] = {}
        if self.breaker is not None:
            renewed[self.breaker_key] = breaker.renew(
                docs.get(self.breaker_key), self.breaker, now, entry.token
            )
        if self.bulkhead is not None:
            renewed[self._bulkhead_key] = bulkhead.renew(
                docs.get(self._bulkhead_key), self.bulkhead, now, entry.token
            )
        if self.budget is not None and entry.budget_key is not None:
            renewed[entry.budget_key] = budget.renew(
                docs.get(entry.budget_key), self.budget, now, entry.token
            )
        held = {key: doc for key, doc in renewed.items() if doc is not None}
        return Decision(bool(held), held)

    # -- refusals --------------------------------------------------------------------------------------

    def _refusal(self, error: NotAdmitted, retry_at: float | None, warming: bool = False) -> Refusal:
        error.final = self._is_final
        return Refusal(error, retry_at, warming)

    def _open(self, verdict: breaker.Verdict, now: float) -> Refusal:
        name = self.breaker_key.name
        retry_at = verdict.retry_at or now
        waits = "waits for its first results" if verdict.warming else "is open"
        text = f"the breaker of {name!r} {waits}: {verdict.reason}; next try at {_time(retry_at)}"
        return self._refusal(CircuitOpen(text, name, _moment(retry_at)), retry_at, verdict.warming)

    def _limited(self, key: GuardKey, limit: RateLimit, at: float) -> Refusal:
        name = limit.key or self.key
        text = (
            f"{name!r} may be called {limit.rate} times in {limit.per_seconds:g} s: next turn at {_time(at)}"
        )
        return self._refusal(LimitExceeded(text, key.name, _moment(at)), at)

    def _full(self, slot: bulkhead.Slot) -> Refusal:
        name = self._bulkhead_key.name
        text = f"{slot.in_use} calls of {name!r} are out, and {slot.allowed} may be at once"
        return self._refusal(BulkheadFull(text, name, _moment(slot.retry_at)), slot.retry_at)

    def _overspent(self, name: str, reason: str, now: float) -> Refusal:
        assert self.budget is not None
        ends = budget.period_ends(self.budget, now)
        until = f"; the next period begins at {ends:%Y-%m-%d %H:%M} UTC" if ends else ""
        error = BudgetExceeded(f"the budget {name!r} is used up: {reason}{until}", name, ends)
        return self._refusal(error, ends.timestamp() if ends else None)

    def _budget_key(self, now: float) -> GuardKey:
        assert self.budget is not None
        per = self.budget.per
        who = "all" if per == "all" else f"{per}={getattr(self._subject, per) or '-'}"
        period = budget.period_of(self.budget, now, self._subject.run)
        return _named("budget", self._budget_name, who, period)


def _told_by(failure: Failure | None) -> Category | None:
    if failure is None:
        return None
    # What was not begun says nothing of how much the other side can bear.
    return failure.category if failure.begun else Category.CANCELLED


def _named(kind: Kind, name: str, *parts: str) -> GuardKey:
    """Return the key of a document; what is too long for a store is told apart by its digest."""
    text = "/".join((name, *parts))
    if len(text) > _LONGEST_NAME:
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        text = f"{text[: _LONGEST_NAME - len(digest) - 1]}~{digest}"
    return GuardKey(kind, text)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _time(seconds: float) -> str:
    return f"{_moment(seconds):%H:%M:%S} UTC"
