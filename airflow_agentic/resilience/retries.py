"""Trying again: tenacity does it, a policy says how, and a budget shared by the fleet how often. The budget is pure.

A document counts calls and retries of the last minute in parts of ten seconds: ``{"parts": [[170000000, 40, 3]]}``.
Source of the idea: "Handling Overload" in Google's book on site reliability engineering (https://sre.google/sre-book/).
"""

from __future__ import annotations

import functools
import os
import random
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from airflow_agentic.config.policies import Retry
from airflow_agentic.errors import NotAdmitted
from airflow_agentic.resilience import deadlines
from airflow_agentic.resilience.failures import Classifier
from airflow_agentic.resilience.shared import Doc

T = TypeVar("T")

_PART_SECONDS = 10
_PARTS = 6
_ALWAYS = 3


def counted(before: Doc | None, now: float, calls: int, retries: int) -> Doc:
    """Add calls and retries."""
    part = int(now) // _PART_SECONDS
    rows = [row for row in (before or {}).get("parts", ()) if row[0] > part - _PARTS]
    if not rows or rows[-1][0] != part:
        rows = [*rows, [part, 0, 0]]
    last = rows[-1]
    return {"parts": [*rows[:-1], [last[0], last[1] + calls, last[2] + retries]]}


def allowed(before: Doc | None, settings: Retry, now: float) -> bool:
    """Whether one more retry keeps to the budget."""
    if settings.budget is None:
        return True
    oldest = int(now) // _PART_SECONDS - _PARTS
    rows = [row for row in (before or {}).get("parts", ()) if row[0] > oldest]
    calls, retries = sum(row[1] for row in rows), sum(row[2] for row in rows)
    return bool(retries + 1 <= max(_ALWAYS, settings.budget * calls))


class Calls:
    """First tries of one key of which this process has not told the store yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._parts: dict[int, int] = {}

    def add(self, now: float) -> None:
        """Note one more."""
        part = int(now) // _PART_SECONDS
        if self._pid != os.getpid():
            # The parent tells of its own.
            self._lock, self._parts, self._pid = threading.Lock(), {}, os.getpid()
        with self._lock:
            self._parts[part] = self._parts.get(part, 0) + 1
            if len(self._parts) > _PARTS:
                self._parts = {each: count for each, count in self._parts.items() if each > part - _PARTS}

    def take(self, now: float) -> int:
        """Return how many of the last minute there were, and forget them."""
        if self._pid != os.getpid():
            return 0
        with self._lock:
            parts, self._parts = self._parts, {}
        return sum(count for part, count in parts.items() if part > int(now) // _PART_SECONDS - _PARTS)


def worth_it(error: BaseException, settings: Retry, classifier: Classifier) -> bool:
    """Whether a failure is one that is tried again.

    What a guard refused is not: it says itself when to come back. Nor is what ends the process or the task, nor a
    failure whose other side wants to be left alone for longer than any delay may be: whoever called can wait better.
    """
    if isinstance(error, NotAdmitted) or not isinstance(error, Exception):
        return False
    failure = classifier.failure(error)
    asked = failure.retry_after_seconds or 0.0
    return failure.category in settings.categories and asked <= settings.longest


def retrying(settings: Retry, classifier: Classifier, may: Callable[[], bool]) -> tenacity.Retrying:
    """Return what runs a call again as a policy says.

    Args:
        settings: Of the policy.
        classifier: Says what failures mean.
        may: Asked before each retry, whether the fleet may afford it.
    """

    def again(state: tenacity.RetryCallState) -> bool:
        return _is_to_come(state, settings, classifier) and may()

    wait = functools.partial(_wait, settings, classifier)
    return tenacity.Retrying(retry=again, wait=wait, stop=_is_too_late, sleep=deadlines.pause, reraise=True)


def aretrying(
    settings: Retry, classifier: Classifier, may: Callable[[], Awaitable[bool]]
) -> tenacity.AsyncRetrying:
    """Do what :func:`retrying` does, for coroutines."""

    async def again(state: tenacity.RetryCallState) -> bool:
        return _is_to_come(state, settings, classifier) and await may()

    wait = functools.partial(_wait, settings, classifier)
    return tenacity.AsyncRetrying(retry=again, wait=wait, stop=_is_too_late, reraise=True)


def after(error: Exception, again: Callable[[], T]) -> Callable[[], T]:
    """Return what fails at first as it did before: most calls go well, and need nobody who would try them again."""
    first = [error]

    def run() -> T:
        if first:
            raise first.pop()
        return again()

    return run


def aafter(error: Exception, again: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """Do what :func:`after` does, for coroutines."""
    first = [error]

    async def run() -> T:
        if first:
            raise first.pop()
        return await again()

    return run


def _is_to_come(state: tenacity.RetryCallState, settings: Retry, classifier: Classifier) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return (
        error is not None
        and worth_it(error, settings, classifier)
        and state.attempt_number < settings.attempts
    )


def _wait(settings: Retry, classifier: Classifier, state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = classifier.failure(error).retry_after_seconds if error else None
    # Nobody comes before the other side wants it, and not all at the same time.
    return (asked or 0.0) + random.uniform(0, settings.bound(state.attempt_number))  # noqa: S311


def _is_too_late(state: tenacity.RetryCallState) -> bool:
    """Whether the next try would come after the deadline."""
    left = deadlines.remaining()
    return left is not None and state.upcoming_sleep >= left
