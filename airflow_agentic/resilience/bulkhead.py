"""Bulkheads as a state machine over a document: slots are leases. Pure.

The document: ``{"slots": {"token": 1700000060.0}, "limit": 8.0, "cut": 0.0}``. An adaptive one looks for the right number by
additive increase and multiplicative decrease (AIMD; as ``AIMDLimit`` of Netflix's concurrency-limits does).
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_agentic.config.policies import Bulkhead
from airflow_agentic.errors import Category
from airflow_agentic.resilience.shared import Doc

_CUT = 2 / 3
_SHORTEST_ROUND_SECONDS = 1.0
_SHORTEST_WAIT = 0.05
_TOO_MUCH = frozenset({Category.RESOURCE_EXHAUSTION, Category.DEADLINE_EXCEEDED})


@dataclass(frozen=True)
class Slot:
    """Whether there is one.

    Attributes:
        taken: Whether it was taken.
        retry_at: When to ask again, in seconds since 1970.
        in_use: How many are taken.
        allowed: How many there are.
    """

    taken: bool
    retry_at: float
    in_use: int
    allowed: int


def take(before: Doc | None, settings: Bulkhead, now: float, token: str) -> tuple[Slot, Doc]:
    """Take a slot, if there is one."""
    doc = _awake(before, settings, now)
    slots, allowed = doc["slots"], allowed_of(doc, settings)
    if len(slots) >= allowed:
        return Slot(taken=False, retry_at=now + _SHORTEST_WAIT, in_use=len(slots), allowed=allowed), doc
    doc = {**doc, "slots": {**slots, token: now + settings.lease_seconds}}
    return Slot(taken=True, retry_at=now, in_use=len(slots) + 1, allowed=allowed), doc


def renew(before: Doc | None, settings: Bulkhead, now: float, token: str) -> Doc | None:
    """Hold a slot longer; ``None`` if it is not held any more."""
    if before is None or token not in before["slots"]:
        return None
    return {**before, "slots": {**before["slots"], token: now + settings.lease_seconds}}


def leave(before: Doc | None, settings: Bulkhead, now: float, token: str, category: Category | None) -> Doc:
    """Give a slot back.

    Args:
        before: The document.
        settings: Of the bulkhead.
        now: The time.
        token: Whose.
        category: Why the call failed; ``None`` if it went well.
    """
    doc = _awake(before, settings, now)
    busy = len(doc["slots"]) >= allowed_of(doc, settings)
    doc = {**doc, "slots": {each: until for each, until in doc["slots"].items() if each != token}}
    if not settings.adaptive:
        return doc
    limit, cut = doc["limit"], doc["cut"]
    if category in _TOO_MUCH:
        # One round of calls that went out together is one sign.
        if now - cut >= _SHORTEST_ROUND_SECONDS:
            limit, cut = max(1.0, limit * _CUT), now
    elif category is None and busy:
        limit = min(float(settings.max_concurrent), limit + 1 / limit)
    return {**doc, "limit": limit, "cut": cut}


def allowed_of(doc: Doc, settings: Bulkhead) -> int:
    """Return how many slots there are now."""
    return max(1, int(doc["limit"])) if settings.adaptive else settings.max_concurrent


def _awake(before: Doc | None, settings: Bulkhead, now: float) -> Doc:
    doc = before or {"slots": {}, "limit": float(settings.max_concurrent), "cut": 0.0}
    slots = {token: until for token, until in doc["slots"].items() if until > now}
    most = float(settings.max_concurrent)
    limit = min(doc["limit"], most) if settings.adaptive else most
    if len(slots) == len(doc["slots"]) and limit == doc["limit"]:
        return doc
    return {**doc, "slots": slots, "limit": limit}
