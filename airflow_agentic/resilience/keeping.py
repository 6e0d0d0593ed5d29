"""Keeps what calls hold - probes, slots, budgets - while they go on; what a killed process held comes free by itself."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger(__name__)


@dataclass
class _Due:
    at: float
    every: float
    work: Callable[[], bool]


class Keeper:
    """Does small things again and again in one thread of the process, which is started with the first of them.

    A process that was forked starts its own, and has nothing to keep of what its parent holds.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[str, _Due] = {}
        self._thread: threading.Thread | None = None
        self._knows_of_forks = False

    def keep(self, token: str, every_seconds: float, renew: Callable[[], bool]) -> None:
        """Renew until :meth:`drop`, or until ``renew`` says that there is nothing left to renew.

        Args:
            token: Names the call.
            every_seconds: How often.
            renew: Does it; should not raise.
        """
        with self._changed:
            self._due[token] = _Due(time.monotonic() + every_seconds, every_seconds, renew)
            if self._thread is None:
                self._start()
            self._changed.notify()

    def drop(self, token: str) -> None:
        """Renew no longer."""
        with self._changed:
            self._due.pop(token, None)

    def _start(self) -> None:
        if not self._knows_of_forks:
            # The thread may hold the lock at the moment of a fork, and is not there afterwards.
            os.register_at_fork(after_in_child=self._forget)
            self._knows_of_forks = True
        self._thread = threading.Thread(target=self._run, name="agentic-guard-keeper", daemon=True)
        self._thread.start()

    def _forget(self) -> None:
        self._changed, self._due, self._thread = threading.Condition(), {}, None

    def _run(self) -> None:
        while True:
            with self._changed:
                soonest = min(self._due.items(), key=lambda item: item[1].at, default=None)
                left = None if soonest is None else soonest[1].at - time.monotonic()
                if soonest is None or left is None or left > 0:
                    self._changed.wait(left)
                    continue
                token, due = soonest
                due.at = time.monotonic() + due.every
            try:
                goes_on = due.work()
            except Exception:  # noqa: BLE001  # the thread is for all calls; the next round tries again
                _log.exception("the leases of a guarded call were not renewed")
                goes_on = True
            with self._changed:
                # Somebody may have put another one in its place meanwhile.
                if not goes_on and self._due.get(token) is due:
                    del self._due[token]


KEEPER = Keeper()
"""That of this process."""
