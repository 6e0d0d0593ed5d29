"""Rate limits as state machines over documents. Pure: time and settings come in, documents go out.

A token bucket is one number, the theoretical arrival time of the generic cell rate algorithm (GCRA, ITU-T I.371). A sliding
window counts in 60 parts of it, and takes one part more than the window has: it never lets more through in any window,
and up to a sixtieth fewer. Both can set a later moment aside for who waits (a reservation), so that those who wait come one
after the other, and not all at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from airflow_agentic.config.policies import RateLimit
from airflow_agentic.resilience.shared import Doc

_PARTS = 60
_TOLERANCE = 1e-6  # of a float that counts seconds since 1970


@dataclass(frozen=True)
class Turn:
    """When a call may go.

    Attributes:
        at: When, in seconds since 1970. If it was taken, it is set aside for this call.
        taken: Whether it was.
    """

    at: float
    taken: bool


def take(before: Doc | None, settings: RateLimit, now: float, ahead: float = 0.0) -> tuple[Turn, Doc | None]:
    """Take the next moment at which a call may go.

    Args:
        before: The document.
        settings: Of the limit.
        now: The time.
        ahead: How long the call would wait for it, in seconds.

    Returns:
        The moment, and the document afterwards; ``None`` if nothing was taken.
    """
    if settings.algorithm == "token_bucket":
        return _bucket(before, settings, now, ahead)
    return _window(before, settings, now, ahead)


def free_at(before: Doc | None, settings: RateLimit, now: float) -> float:
    """Return when the next call may go."""
    turn, _ = take(before, settings, now, math.inf)
    return turn.at


def _bucket(before: Doc | None, settings: RateLimit, now: float, ahead: float) -> tuple[Turn, Doc | None]:
    interval = settings.per_seconds / settings.rate
    tolerance = (settings.burst or settings.rate) * interval
    arrival = max((before or {}).get("tat", now), now) + interval
    at = max(now, arrival - tolerance)
    if at - now > ahead + _TOLERANCE:
        return Turn(at, taken=False), None
    # Its settings are not there for those who look; see views.
    return Turn(at, taken=True), {"tat": arrival, **({"burst": settings.burst} if settings.burst else {})}


def _window(before: Doc | None, settings: RateLimit, now: float, ahead: float) -> tuple[Turn, Doc | None]:
    part = settings.per_seconds / _PARTS
    first = math.floor(now / part)
    kept: dict[str, Any] = {
        index: count
        for index, count in (before or {}).get("parts", {}).items()
        if int(index) > first - _PARTS - 1 and (before or {}).get("part") == part
    }
    counts = {int(index): count for index, count in kept.items()}
    index = first
    while not _has_room(counts, index, settings.rate):
        index += 1
    at = now if index == first else index * part
    if at - now > ahead + _TOLERANCE:
        return Turn(at, taken=False), None
    kept[str(index)] = counts.get(index, 0) + 1
    return Turn(at, taken=True), {"part": part, "parts": kept}


def _has_room(counts: dict[int, int], index: int, rate: int) -> bool:
    """Whether no window that holds this part would hold too many."""
    width = _PARTS + 1
    span = [counts.get(each, 0) for each in range(index - width + 1, index + width)]
    total = sum(span[:width])
    for start in range(width):
        if start:
            total += span[start + width - 1] - span[start - 1]
        if total + 1 > rate:
            return False
    return True
