"""Good results that a process keeps to itself for a moment, so that calls of what is well ask nobody and wait for nobody."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence

from airflow_agentic.config.policies import Breaker
from airflow_agentic.resilience import breaker
from airflow_agentic.resilience.breaker import Outcome
from airflow_agentic.resilience.keeping import Keeper

Tell = Callable[[Sequence[Outcome]], None]


class Results:
    """Those of one breaker in one process: all guards of its key share them.

    Args:
        settings: Of the breaker.
        tell: Tells the store.
        after_seconds: So late at most.
        keeper: Does it then, in its own thread.
    """

    def __init__(self, settings: Breaker, tell: Tell, after_seconds: float, keeper: Keeper) -> None:
        self._settings = settings
        self._tell = tell
        self._after_seconds = after_seconds
        self._keeper = keeper
        self._name = f"results {uuid.uuid4().hex}"
        self._lock, self._telling = threading.Lock(), threading.Lock()
        self._pid = os.getpid()
        # How many of an era were fast and slow, and how long the last one took.
        self._kept: dict[tuple[int | None, bool], tuple[int, float]] = {}

    def add(self, era: int | None, seconds: float) -> None:
        """Keep a good result; nobody is asked, and nobody waits."""
        which = era, breaker.is_slow(self._settings, seconds)
        if self._pid != os.getpid():
            # The parent tells of its own.
            self._lock, self._telling = threading.Lock(), threading.Lock()
            self._kept, self._pid = {}, os.getpid()
        with self._lock:
            is_first = not self._kept
            times, _ = self._kept.get(which, (0, 0.0))
            self._kept[which] = times + 1, seconds
        if is_first:
            self._keeper.keep(self._name, self._after_seconds, self._told)

    def take(self) -> list[Outcome]:
        """Return what was kept; whoever takes it tells of it."""
        if self._pid != os.getpid():
            return []
        with self._lock:
            kept, self._kept = self._kept, {}
        return [
            Outcome(failed=False, seconds=seconds, era=era, times=times)
            for (era, _), (times, seconds) in kept.items()
        ]

    def flush(self) -> None:
        """Tell of what was kept; when it returns, nobody is telling any more."""
        with self._telling:
            if outcomes := self.take():
                self._tell(outcomes)

    def close(self) -> None:
        """Tell of what was kept, as nobody can be told later."""
        if self._pid == os.getpid():
            self._keeper.drop(self._name)
            self.flush()

    def _told(self) -> bool:
        self.flush()
        return False
