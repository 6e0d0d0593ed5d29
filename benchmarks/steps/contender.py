"""What everybody is asked to do: steps of a run, one after the other, each on disk before the next one begins."""

from __future__ import annotations

import contextlib
import functools
import gc
import random
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bus.rounds import Trial, Unavailable
from benchmarks.bus.section import Section


@dataclass(frozen=True)
class Size:
    """How much a step returns.

    Attributes:
        name: For people.
        bytes: The same in bytes.
        count: How many steps a trial takes.
        warm: How many steps everybody does before the first trial, if logs are to be kept; 0 for logs that begin anew
            with each trial. A log that grows is twice as dear to sync as one that is written again from its start, as
            SQLite's is after a thousand pages; and who writes more would get there sooner.
    """

    name: str
    bytes: int
    count: int
    warm: int = 0


SMALL, LARGE = Size("1 KB", 1_024, 100), Size("100 KB", 102_400, 25)
SETTLED = Size("1 KB, log settled", 1_024, 100, 700)


@functools.cache
def text_of(size: int, number: int = 0) -> str:
    """Return a text of so many bytes that hardly compresses; another one for each number."""
    return random.Random(number).randbytes(size // 2).hex()  # noqa: S311


class Contender:
    """A way to do steps.

    Attributes:
        name: Unique in its section.
        note: What it does more, or less, than ours.
        file: Its SQLite file, if it has one.
    """

    name = ""
    note = ""
    file: Path | None = None

    def setup(self) -> None:
        """Open it.

        Raises:
            Unavailable: It is not here; the text says why.
        """

    def steps(self, text: str, count: int) -> float:
        """Do so many steps that return a text each; return the seconds that one took.

        Beginning and end of the run are not timed.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End it; nothing happens if it never was open."""


def trials(contenders: Iterable[Contender], size: Size) -> list[Trial]:
    """Return one trial for each of some that are open."""
    return [Trial(each.name, functools.partial(_timed, each, size)) for each in contenders]


def _timed(contender: Contender, size: Size) -> float:
    if contender.file is not None and not size.warm:
        with contextlib.closing(sqlite3.connect(contender.file)) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return contender.steps(text_of(size.bytes), size.count)


@contextlib.contextmanager
def ready(contenders: Iterable[Contender], size: Size, section: Section) -> Iterator[list[Contender]]:
    """Open those that are here and warm them up, and close them at the end; the section is told which are not."""
    with contextlib.ExitStack() as stack:
        found = []
        for each in contenders:
            stack.callback(each.close)
            try:
                each.setup()
                each.steps(text_of(size.bytes), size.warm or 1)
            except Unavailable as reason:
                section.skipped[each.name] = str(reason)
            else:
                found.append(each)
        # Else each trial begins with a search through all that the packages brought, which takes longer than it.
        gc.freeze()
        yield found
        gc.unfreeze()
