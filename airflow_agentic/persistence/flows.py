"""Where in a run its code is: which step ended last in this flow of calls, and whether others go on beside it.

Code that goes on side by side, in threads or tasks, comes in another order each time. What it did is found again by what came
before it in its own flow, and not by what happened to come before it in the whole run.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from contextvars import ContextVar
from typing import Any

_MOST = 8

_numbers = itertools.count()
# Of the runs that were at work in this flow last, which step ended last. Few: runs are seldom within each other.
_LAST: ContextVar[tuple[tuple[int, str], ...]] = ContextVar("agentic_last_steps", default=())


class Flows:
    """The flows of one open run. The first one is that which opened it, or its first task."""

    def __init__(self) -> None:
        self._number = next(_numbers)
        self._thread = threading.get_ident()
        self._task: weakref.ref[Any] | None = None

    @property
    def last(self) -> str:
        """Name of the step that ended last in this flow; empty before the first."""
        return next((name for number, name in _LAST.get() if number == self._number), "")

    def passed(self, name: str) -> None:
        """Take note that a step ended in this flow."""
        before = _LAST.get()
        # Runs are seldom within each other: nearly always there is none but this.
        if before and (len(before) > 1 or before[0][0] != self._number):
            others = [each for each in before if each[0] != self._number]
            _LAST.set(((self._number, name), *others[: _MOST - 1]))
        else:
            _LAST.set(((self._number, name),))

    def is_beside(self) -> bool:
        """Whether this flow is not the first one of the run."""
        if threading.get_ident() != self._thread:
            return True
        task = _current_task()
        if task is None:
            return False
        if self._task is None:
            self._task = weakref.ref(task)
        return self._task() is not task


def _current_task() -> asyncio.Task[Any] | None:
    # Nearly always no loop runs here, and to find that out by an error takes five times as long.
    loop = asyncio._get_running_loop()  # noqa: SLF001  # one of the names that asyncio exports
    return None if loop is None else asyncio.current_task(loop)
