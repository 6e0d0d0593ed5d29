"""Budgets as a state machine over a document: set aside before, settled after. Pure.

The document of one period of one subject::

    {"spent": {"calls": 3, "tokens": 1200, "cost_usd": 0.02}, "held": {"token": [1, 500, 0.01, 1700003600.0]},
     "alerted": {"tokens": 0.8}, "limits": {"calls": null, "tokens": 100000, "cost_usd": 5.0}}

What was set aside and never settled counts as spent once its lease has ended: the worker died, and the money may be gone.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_agentic.config.policies import Budget
from airflow_agentic.resilience.ports import GuardEvent
from airflow_agentic.resilience.shared import Doc

UNITS = ("calls", "tokens", "cost_usd")
_ROUNDING = 9  # digits of money


@dataclass(frozen=True)
class Spending:
    """What a call takes.

    Attributes:
        calls: Calls.
        tokens: Tokens of models.
        cost_usd: US dollars.
    """

    calls: int = 1
    tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: Spending) -> Spending:
        """Return both together."""
        return Spending(self.calls + other.calls, self.tokens + other.tokens, self.cost_usd + other.cost_usd)

    @property
    def row(self) -> tuple[int, int, float]:
        """The amounts, in the order of :data:`UNITS`."""
        return self.calls, self.tokens, self.cost_usd


@dataclass(frozen=True)
class Grant:
    """Whether a call may spend.

    Attributes:
        granted: Whether it may.
        reason: Why it may not.
    """

    granted: bool
    reason: str = ""


def period_of(settings: Budget, now: float, run: str) -> str:
    """Return the name of the period: ``2026-11-23``, ``2026-11`` or that of a DAG run."""
    if settings.period == "run":
        return run or "no-run"
    at = datetime.fromtimestamp(now, UTC)
    return f"{at:%Y-%m-%d}" if settings.period == "day" else f"{at:%Y-%m}"


def period_ends(settings: Budget, now: float) -> datetime | None:
    """Return when the next period begins; ``None`` if nobody knows."""
    if settings.period == "run":
        return None
    at = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if settings.period == "day":
        return at + timedelta(days=1)
    return at.replace(day=1) + timedelta(days=calendar.monthrange(at.year, at.month)[1])


def reserve(
    before: Doc | None, settings: Budget, key: str, now: float, token: str
) -> tuple[Grant, dict[str, Any], tuple[GuardEvent, ...]]:
    """Set aside what a call is expected to take."""
    doc, events = _awake(before, settings, key, now)
    asked = Spending(1, settings.reserve_tokens, settings.reserve_cost_usd)
    for unit, amount in zip(UNITS, asked.row, strict=True):
        limit = getattr(settings, unit)
        if limit is None:
            continue
        used = _used(doc, unit)
        # What takes nothing of a unit that is used up would still take some of it.
        if used + amount > limit or (used >= limit and not amount):
            reason = f"{_said(unit, used)} of {_said(unit, limit)} are spent or set aside"
            if unit not in doc.get("refused", ()):
                doc["refused"] = [*doc.get("refused", ()), unit]
                events += (_event("budget.exceeded", key, now, unit, used, limit),)
            return Grant(granted=False, reason=reason), doc, events
    doc["held"] = {**doc["held"], token: [*asked.row, now + settings.lease_seconds]}
    return Grant(granted=True), doc, events


def settle(
    before: Doc | None, settings: Budget, key: str, now: float, token: str, took: Spending
) -> tuple[dict[str, Any], tuple[GuardEvent, ...]]:
    """Put what a call took in place of what was set aside for it."""
    doc, events = _awake(before, settings, key, now)
    if token in doc["held"]:
        doc["held"] = {each: row for each, row in doc["held"].items() if each != token}
    return _spent(doc, settings, key, now, took, events)


def renew(before: Doc | None, settings: Budget, now: float, token: str) -> Doc | None:
    """Keep set aside what a call that goes on may take; ``None`` if it is not any more."""
    if before is None or token not in before["held"]:
        return None
    row = before["held"][token]
    return {**before, "held": {**before["held"], token: [*row[:3], now + settings.lease_seconds]}}


def _awake(
    before: Doc | None, settings: Budget, key: str, now: float
) -> tuple[dict[str, Any], tuple[GuardEvent, ...]]:
    doc = dict(before or {"spent": dict.fromkeys(UNITS, 0), "held": {}, "alerted": {}})
    doc["limits"] = {unit: getattr(settings, unit) for unit in UNITS}
    ended = {token: row for token, row in doc["held"].items() if row[3] <= now}
    if not ended:
        return doc, ()
    doc["held"] = {token: row for token, row in doc["held"].items() if token not in ended}
    lost = Spending(0)
    for row in ended.values():
        lost += Spending(*row[:3])
    return _spent(doc, settings, key, now, lost, ())


def _spent(
    doc: dict[str, Any],
    settings: Budget,
    key: str,
    now: float,
    took: Spending,
    events: tuple[GuardEvent, ...],
) -> tuple[dict[str, Any], tuple[GuardEvent, ...]]:
    amounts = zip(UNITS, took.row, strict=True)
    doc["spent"] = {unit: round(doc["spent"][unit] + amount, _ROUNDING) for unit, amount in amounts}
    for unit in UNITS:
        limit, spent = getattr(settings, unit), doc["spent"][unit]
        if not limit:
            continue
        reached = max((share for share in settings.alert_at if spent >= share * limit), default=0.0)
        if reached > doc["alerted"].get(unit, 0.0):
            doc["alerted"] = {**doc["alerted"], unit: reached}
            events += (_event("budget.alert", key, now, unit, spent, limit, reached),)
    return doc, events


def _used(doc: Mapping[str, Any], unit: str) -> float:
    position = UNITS.index(unit)
    held = sum(row[position] for row in doc["held"].values())
    return round(float(doc["spent"][unit] + held), _ROUNDING)


def _said(unit: str, amount: float) -> str:
    return f"${amount:,.4g}" if unit == "cost_usd" else f"{amount:,.0f} {unit}"


def _event(
    type_: str, key: str, now: float, unit: str, spent: float, limit: float, share: float | None = None
) -> GuardEvent:
    data = {"unit": unit, "spent": spent, "limit": limit}
    return GuardEvent(
        type_, key, datetime.fromtimestamp(now, UTC), data if share is None else {**data, "share": share}
    )
