"""How long work may take: a context variable, so that nested calls know it, and whoever waits can be told to stop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from airflow_agentic.errors import DeadlineExceeded, WorkCancelled


@dataclass(frozen=True)
class Deadline:
    """When work must be done.

    Attributes:
        at: By this process's monotonic clock, in seconds; infinite if there is no hurry.
        cancelled: Set when somebody tells the work to stop.
        reason: Why; one text.
    """

    at: float
    cancelled: threading.Event = field(default_factory=threading.Event)
    reason: list[str] = field(default_factory=list)

    def cancel(self, reason: str) -> None:
        """Tell the work to stop."""
        self.reason.append(reason)
        self.cancelled.set()


_CURRENT: ContextVar[Deadline | None] = ContextVar("deadline", default=None)
_NEVER = float("inf")


@contextlib.contextmanager
def deadline(seconds: float | None = None) -> Iterator[Deadline]:
    """Let what is done inside take at most so long; of nested ones the earliest counts.

    Args:
        seconds: How long from now; ``None`` to keep the one there is, and only be able to cancel.
    """
    outer = _CURRENT.get()
    at = _NEVER if seconds is None else time.monotonic() + seconds
    inner = Deadline(at) if outer is None else Deadline(min(at, outer.at), outer.cancelled, outer.reason)
    token = _CURRENT.set(inner)
    try:
        yield inner
    finally:
        _CURRENT.reset(token)


def current() -> Deadline | None:
    """Return the deadline of the work that is going on, if there is one."""
    return _CURRENT.get()


def remaining() -> float | None:
    """Return how many seconds are left, not below zero; ``None`` if there is no hurry."""
    present = _CURRENT.get()
    return None if present is None or present.at == _NEVER else max(0.0, present.at - time.monotonic())


def ends_at() -> datetime | None:
    """Return the deadline by the wall clock; ``None`` if there is none."""
    left = remaining()
    return None if left is None else datetime.now(UTC) + timedelta(seconds=left)


def check() -> None:
    """Return if the work may go on; long loops of agents call it.

    Raises:
        WorkCancelled: Somebody told it to stop.
        DeadlineExceeded: Its time is over.
    """
    present = _CURRENT.get()
    if present is None:
        return
    if present.cancelled.is_set():
        raise WorkCancelled(present.reason[0] if present.reason else "the work was told to stop")
    if time.monotonic() >= present.at:
        raise DeadlineExceeded("the deadline of the work has passed")


def pause(seconds: float) -> None:
    """Sleep, unless that is too long or the work is told to stop meanwhile.

    Raises:
        WorkCancelled: Somebody told it to stop.
        DeadlineExceeded: The time would be over before the sleep.
    """
    left = remaining()
    if left is not None and seconds >= left:
        raise DeadlineExceeded(f"the deadline comes in {left:.3g} s, before {seconds:.3g} s of waiting end")
    present = _CURRENT.get()
    if present is None:
        time.sleep(seconds)
    elif present.cancelled.wait(seconds):
        check()
