"""Interleaved rounds: every trial once a round, in random order, with looks at the disk in between.

A time by itself says nothing here: the rate at which a disk syncs can change 20-fold from one minute to the next.
So what counts is the ratio of two trials of the same round, and only of rounds in which the disk kept its pace.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PROBE_SECONDS = 0.05
_BLOCK = os.urandom(4096)
# The slow and the fast mode of a disk are ten times apart and more; a round's median stays within three times.
_FLIP, _NOISE = 8.0, 3.0
_TRIES = 3


class Unavailable(Exception):
    """Something cannot be measured here; the text says why."""


@dataclass(frozen=True)
class Trial:
    """One thing to measure.

    Attributes:
        name: Unique in its section.
        work: Does it and returns the seconds that one operation took.
    """

    name: str
    work: Callable[[], float]


@dataclass(frozen=True)
class Spread:
    """What several rounds said."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Round:
    """One round: seconds an operation by trial, and how often the disk could sync in a second, meanwhile."""

    seconds: dict[str, float]
    syncs: list[float]


@dataclass
class Rounds:
    """All rounds of a section.

    Attributes:
        counted: Those in which the disk kept its pace.
        dropped: The others.
        failed: Trials that did not get to the end, and why.
        wanted: How many had to count.
    """

    counted: list[Round] = field(default_factory=list)
    dropped: list[Round] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    wanted: int = 0

    @property
    def are_enough(self) -> bool:
        """Whether as many count as had to."""
        return len(self.counted) >= self.wanted

    def seconds(self, name: str) -> Spread | None:
        """Return the seconds that an operation of a trial took; ``None`` if it was not measured."""
        values = [each.seconds[name] for each in self.counted if name in each.seconds]
        return Spread.of(values) if values and name not in self.failed else None

    def speed(self, name: str, than: str) -> Spread | None:
        """Return how many times as fast one trial was as another one of the same round."""
        if {name, than} & set(self.failed):
            return None
        both = [each.seconds for each in self.counted if name in each.seconds and than in each.seconds]
        return Spread.of([each[than] / each[name] for each in both]) if both else None


class Disk:
    """Says how fast a folder's disk syncs right now.

    Args:
        folder: On the disk that the stores are on.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "probe"

    def syncs(self) -> float:
        """Write blocks and sync each; return how many it was in a second."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT)
        try:
            count, began = 0, time.perf_counter()
            while (passed := time.perf_counter() - began) < _PROBE_SECONDS:
                os.pwrite(file, _BLOCK, count % 256 * len(_BLOCK))
                os.fdatasync(file)
                count += 1
            return count / passed
        finally:
            os.close(file)


def interleaved(
    trials: Sequence[Trial],
    disk: Disk,
    wanted: int,
    before: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda _: None,
) -> Rounds:
    """Run rounds until enough of them count; the first one warms up and never does.

    Args:
        trials: What to measure.
        disk: Where the stores are.
        wanted: How many rounds must count; at most three times as many are tried.
        before: Done before each round, and not timed.
        say: Told what goes on.
    """
    result = Rounds(wanted=wanted)
    dice = random.Random(wanted)  # noqa: S311  # an order, not a secret
    done: list[Round] = []
    before()
    _round(trials, disk, dice, result.failed)
    for number in range(wanted * _TRIES):
        before()
        done.append(_round(trials, disk, dice, result.failed))
        _sort_out(done, result)
        say(f"round {number + 1}: {len(result.counted)} of {wanted} count, {len(result.dropped)} dropped")
        if len(result.counted) >= wanted:
            break
    return result


def _round(trials: Sequence[Trial], disk: Disk, dice: random.Random, failed: dict[str, str]) -> Round:
    order = [each for each in trials if each.name not in failed]
    dice.shuffle(order)
    seconds, syncs = {}, [disk.syncs()]
    for trial in order:
        gc.collect()
        try:
            seconds[trial.name] = trial.work()
        except Exception as error:  # noqa: BLE001  # a peer that breaks is a result, and must not end the others
            failed[trial.name] = f"{type(error).__name__}: {error}".partition("\n")[0]
        syncs.append(disk.syncs())
    return Round(seconds, syncs)


def _sort_out(done: Sequence[Round], result: Rounds) -> None:
    """All again with each round: only later ones may show that the disk was slow in the first."""
    pace = max(statistics.median(each.syncs) for each in done)
    result.counted, result.dropped = [], []
    for each in done:
        steady = min(each.syncs) * _FLIP >= pace and statistics.median(each.syncs) * _NOISE >= pace
        (result.counted if steady else result.dropped).append(each)
