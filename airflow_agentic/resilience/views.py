"""Limits, bulkheads and budgets as people see them: how they stand, read from their documents."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from airflow_agentic.config.policies import RateLimit
from airflow_agentic.resilience import limits
from airflow_agentic.resilience.budget import UNITS, Spending
from airflow_agentic.resilience.shared import Doc, SharedState

MOST = 10_000
"""So many documents of a kind are looked at, at most."""

_ALGORITHMS: Mapping[str, Literal["token_bucket", "sliding_window"]] = {
    "token_bucket": "token_bucket",
    "sliding_window": "sliding_window",
}
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MONTH = re.compile(r"\d{4}-\d{2}")
# A DAG run does not say when it is over: what was not spent from for so long counts as such.
_RUN_LASTS = timedelta(days=1)
_ROUNDING = 9  # digits of money


@dataclass(frozen=True)
class LimitView:
    """How a rate limit stands.

    Attributes:
        key: What is limited.
        rate: So many calls …
        per_seconds: … in so many seconds.
        algorithm: ``token_bucket`` or ``sliding_window``.
        in_use: Calls that count now, those included whose turn is set aside for later.
        allowed: How many may count.
        free_at: When the next call may go.
        now: The store's time.
    """

    key: str
    rate: int
    per_seconds: float
    algorithm: str
    in_use: int
    allowed: int
    free_at: datetime
    now: datetime

    @property
    def is_free(self) -> bool:
        """Whether a call may go now."""
        return self.free_at <= self.now


@dataclass(frozen=True)
class BulkheadView:
    """How a bulkhead stands.

    Attributes:
        key: What it protects.
        in_use: Slots that are held.
        allowed: How many there are; of an adaptive one, now.
        leases: When the leases end, the first one first; those of calls that go on are renewed.
        now: The store's time.
    """

    key: str
    in_use: int
    allowed: int
    leases: tuple[datetime, ...]
    now: datetime

    @property
    def is_free(self) -> bool:
        """Whether a call may go now."""
        return self.in_use < self.allowed


@dataclass(frozen=True)
class BudgetView:
    """How much of a budget is spent, by one subject in one period.

    Attributes:
        key: Name of the document: budget, subject and period.
        budget: The budget.
        subject: Who spends: ``agent=triage``, ``dag=billing``, ``all``.
        period: ``2026-11-23``, ``2026-11``, or a DAG run.
        is_current: Whether the period goes on; of a DAG run, whether it spent something in the last day.
        ends: When the next period begins; ``None`` if nobody knows.
        spent: What is spent; what was set aside by a worker that died, too.
        held: What is set aside for calls that are out.
        limits: Unit to limit; ``None`` for none.
        alerts: Unit to the largest share at which somebody was told.
        refused: Units for lack of which calls were refused.
        updated_at: When it was changed last.
    """

    key: str
    budget: str
    subject: str
    period: str
    is_current: bool
    ends: datetime | None
    spent: Spending
    held: Spending
    limits: Mapping[str, float | None]
    alerts: Mapping[str, float]
    refused: tuple[str, ...]
    updated_at: datetime

    def share(self, unit: str) -> float | None:
        """Return how much of a limit is spent or set aside, 1 for all of it; ``None`` if there is no limit."""
        limit = self.limits.get(unit)
        used: float = getattr(self.spent, unit) + getattr(self.held, unit)
        if limit is None:
            return None
        return used / limit if limit else 1.0

    @property
    def largest_share(self) -> float | None:
        """The largest of the shares; ``None`` if nothing is limited."""
        return max((share for unit in UNITS if (share := self.share(unit)) is not None), default=None)

    @property
    def exceeded(self) -> tuple[str, ...]:
        """Units of which nothing is left."""
        return tuple(unit for unit in UNITS if (self.share(unit) or 0.0) >= 1.0)


def limit_views(shared: SharedState, prefix: str = "") -> list[LimitView]:
    """Return the rate limits that were ever used and whose keys begin so, by key.

    Raises:
        StoreError: The store cannot be reached.
    """
    now = shared.read([])[1]
    found = (_limit(name, doc, now) for name, doc, _ in shared.listed("limit", prefix, MOST))
    return [view for view in found if view is not None]


def bulkhead_views(shared: SharedState, prefix: str = "") -> list[BulkheadView]:
    """Return the bulkheads that were ever used and whose keys begin so, by key.

    Raises:
        StoreError: The store cannot be reached.
    """
    now = shared.read([])[1]
    return [_bulkhead(name, doc, now) for name, doc, _ in shared.listed("bulkhead", prefix, MOST)]


def budget_views(shared: SharedState, prefix: str = "", *, past: bool = False) -> list[BudgetView]:
    """Return what is spent of the budgets whose documents' names begin so, by name.

    Args:
        shared: Where it is.
        prefix: What the names begin with.
        past: Past periods, too.

    Raises:
        StoreError: The store cannot be reached.
    """
    now = shared.read([])[1]
    found = (
        _budget(name, doc, entry.updated_at, now)
        for name, doc, entry in shared.listed("budget", prefix, MOST)
    )
    return [view for view in found if past or view.is_current]


def _limit(name: str, doc: Doc, now: float) -> LimitView | None:
    """Read a rate limit; what it is stands in its document's name: ``conn:openai/60:60:token_bucket``."""
    key, _, said = name.rpartition("/")
    rate, _, rest = said.partition(":")
    per, _, algorithm = rest.partition(":")
    try:
        settings = RateLimit(
            rate=int(rate),
            per_seconds=float(per),
            # Of an older document nobody knows it: then it is the rate.
            burst=doc.get("burst"),
            algorithm=_ALGORITHMS[algorithm],
        )
    except (KeyError, ValueError):
        return None
    if settings.algorithm == "token_bucket":
        allowed = settings.burst or settings.rate
        ahead = max(0.0, doc.get("tat", now) - now)
        in_use = math.ceil(round(ahead * settings.rate / settings.per_seconds, 6))
    else:
        allowed = settings.rate
        oldest = now - settings.per_seconds
        part = doc.get("part") or settings.per_seconds
        in_use = sum(
            count for index, count in doc.get("parts", {}).items() if (int(index) + 1) * part > oldest
        )
    return LimitView(
        key=key,
        rate=settings.rate,
        per_seconds=settings.per_seconds,
        algorithm=settings.algorithm,
        in_use=in_use,
        allowed=allowed,
        free_at=_moment(limits.free_at(doc, settings, now)),
        now=_moment(now),
    )


def _bulkhead(name: str, doc: Doc, now: float) -> BulkheadView:
    leases = sorted(until for until in doc["slots"].values() if until > now)
    return BulkheadView(
        key=name,
        in_use=len(leases),
        allowed=max(1, int(doc["limit"])),
        leases=tuple(map(_moment, leases)),
        now=_moment(now),
    )


def _budget(name: str, doc: Doc, updated_at: datetime, now: float) -> BudgetView:
    # A name that was too long for a store is cut: then not all of it is known.
    budget, subject, period = [*name.rsplit("/", 2), "?", "?"][:3]
    spent = Spending(**doc["spent"])
    held = Spending(0)
    for row in doc["held"].values():
        if row[3] > now:
            held += Spending(*row[:3])
        else:
            spent += Spending(*row[:3])
    ends = _ends(period)
    at = _moment(now)
    return BudgetView(
        key=name,
        budget=budget,
        subject=subject,
        period=period,
        is_current=at < ends if ends else at - updated_at < _RUN_LASTS,
        ends=ends,
        spent=_rounded(spent),
        held=_rounded(held),
        limits=doc["limits"],
        alerts=doc["alerted"],
        refused=tuple(doc.get("refused", ())),
        updated_at=updated_at,
    )


def _ends(period: str) -> datetime | None:
    """Return when a period is over; ``None`` of a DAG run."""
    try:
        if _DAY.fullmatch(period):
            return datetime.fromisoformat(period).replace(tzinfo=UTC) + timedelta(days=1)
        if _MONTH.fullmatch(period):
            first = datetime.fromisoformat(f"{period}-01").replace(tzinfo=UTC)
            return (first + timedelta(days=31)).replace(day=1)
    except ValueError:
        pass
    return None


def _rounded(spending: Spending) -> Spending:
    return Spending(spending.calls, spending.tokens, round(spending.cost_usd, _ROUNDING))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
