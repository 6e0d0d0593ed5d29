"""Hints that a message came, for those who wait. Polling is the truth: a hint that is missed costs time and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection


class FileWatch:
    """Waits for a change of a SQLite file.

    Args:
        version: Returns a number that changes when another connection has changed the file; quick.
    """

    _LOOK_SECONDS = 0.01

    def __init__(self, version: Callable[[], int]) -> None:
        self._version = version
        self._changed = threading.Condition()
        self._sent = 0
        self._seen: dict[str, tuple[int, int]] = {}

    def wake(self) -> None:
        """Tell the threads of this process, which share one connection: its version does not change for them."""
        with self._changed:
            self._sent += 1
            self._changed.notify_all()

    def wait(self, mailbox: str, seconds: float) -> None:
        """Return when the file has changed since the last wait for this mailbox, at the latest after ``seconds``."""
        deadline = time.monotonic() + seconds
        while (now := self._now()) == self._seen.get(mailbox, now) and (
            left := deadline - time.monotonic()
        ) > 0:
            self._seen[mailbox] = now
            with self._changed:
                self._changed.wait(min(self._LOOK_SECONDS, left))
        self._seen[mailbox] = now

    def _now(self) -> tuple[int, int]:
        return self._version(), self._sent


class Throttle:
    """Lets a hint for a mailbox pass now and then.

    Args:
        seconds: Least time between two hints for one mailbox.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: dict[str, float] = {}

    def due(self, mailboxes: Collection[str]) -> list[str]:
        """Return those whose last hint is long enough ago; they are hinted at now."""
        now = time.monotonic()
        due = [name for name in mailboxes if now - self._last.get(name, float("-inf")) >= self._seconds]
        self._last.update(dict.fromkeys(due, now))
        return due
