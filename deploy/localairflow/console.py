"""What people read: lines with the elapsed time, on a terminal as in a file."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from localairflow.client import TaskState

__all__ = ["Progress", "step", "write"]

# Between two of these a task passes through "scheduled" and "queued" within a fraction of a second.
_FLEETING = frozenset({None, "scheduled", "queued"})


def write(text: str) -> None:
    """Print a piece of text at once, also when it ends in the middle of a line.

    Raises:
        OSError: nobody reads any more.
    """
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def step(progress: Callable[[str], None], title: str) -> Iterator[None]:
    """Tell what is done now, and then how long it took."""
    progress(f"{title} ... ")
    begin = time.monotonic()
    try:
        yield
    except BaseException:
        progress(f"stopped after {time.monotonic() - begin:.1f} s\n")
        raise
    progress(f"{time.monotonic() - begin:.1f} s\n")


class Progress:
    """Prints one line for each change of a task's state."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, task: TaskState) -> None:
        """Print the new state of a task."""
        if task.state in _FLEETING:
            return
        attempt = f"  (try {task.try_number})" if task.try_number > 1 else ""
        self.line(f"{task.label:<40} {task.state}{attempt}")

    def line(self, text: str) -> None:
        """Print a line with the seconds since the beginning."""
        write(f"  {time.monotonic() - self._begin:6.1f} s  {text}\n")
