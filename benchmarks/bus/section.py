"""What a part of the benchmark found: rows of figures, goals, and what could not be measured."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bus.rounds import Disk, Rounds, Spread

PER_SECOND = "msg/s"
# Of a second.
_UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}


@dataclass(frozen=True)
class Plan:
    """How much is to be measured.

    Attributes:
        folder: For files; on a disk, not in memory.
        rounds: How many rounds must count.
        quick: Whether a tenth of everything will do.
        long: Whether to fill mailboxes with a million messages.
        say: Told what goes on.
    """

    folder: Path
    rounds: int
    quick: bool
    long: bool
    say: Callable[[str], None] = field(compare=False)

    @property
    def disk(self) -> Disk:
        """The disk that the folder is on."""
        return Disk(self.folder)

    def some(self, count: int) -> int:
        """Return a number of messages, less if it has to be quick."""
        return max(count // 10, min(count, 100)) if self.quick else count


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        group: What it is compared with.
        name: What was measured.
        figure: In ``unit``.
        unit: ``msg/s``, ``s``, ``ms`` or ``µs``.
        ratio: Of the same round: to the first line of its group.
        note: What the reader must know.
    """

    group: str
    name: str
    figure: Spread
    unit: str
    ratio: Spread | None = None
    note: str = ""


@dataclass(frozen=True)
class Goal:
    """A figure to reach.

    Attributes:
        text: What.
        bound: The figure.
        at_least: Whether more is better.
        unit: ``x`` for a ratio, else as for rows.
        measured: Median; ``None`` if it was not measured.
        enough: Whether as many rounds counted as had to: fewer decide nothing.
    """

    text: str
    bound: float
    at_least: bool
    unit: str
    measured: float | None
    enough: bool = True

    @property
    def verdict(self) -> str:
        """``reached``, ``missed``, ``too few rounds`` or ``not measured``."""
        if self.measured is None:
            return "not measured"
        if not self.enough:
            return "too few rounds"
        better = self.measured >= self.bound if self.at_least else self.measured <= self.bound
        return "reached" if better else "missed"


@dataclass
class Section:
    """One part of the benchmark.

    Attributes:
        title: What was measured, and how.
        rounds: All that was measured.
        rows: For people.
        goals: The figures to reach.
        skipped: What could not be measured, and why.
        settings: Of the server.
        load: How many processes wanted a CPU when it began; more than there are make every figure worse.
    """

    title: str
    rounds: Rounds = field(default_factory=Rounds)
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    load: float = field(default_factory=lambda: round(os.getloadavg()[0], 1))

    def add(
        self, group: str, name: str, trial: str, unit: str, than: str | None = None, note: str = ""
    ) -> None:
        """Add a line for a trial, if it was measured.

        Args:
            group: What it is compared with.
            name: For people.
            trial: Whose figure.
            unit: To give it in.
            than: Trial that it is compared with: how many times as fast for ``msg/s``, as slow for times.
            note: What the reader must know.
        """
        seconds = self.rounds.seconds(trial)
        if seconds is None:
            return
        if unit == PER_SECOND:
            figure = Spread(1 / seconds.median, 1 / seconds.high, 1 / seconds.low)
            ratio = self.rounds.speed(trial, than) if than else None
        else:
            scale = _UNITS[unit]
            figure = Spread(seconds.median * scale, seconds.low * scale, seconds.high * scale)
            ratio = self.rounds.speed(than, trial) if than else None
        self.rows.append(Row(group, name, figure, unit, ratio, note))

    def faster(self, text: str, bound: float, trial: str, than: str) -> None:
        """Ask a trial to be at least so many times as fast as another one."""
        speed = self.rounds.speed(trial, than)
        self.goals.append(
            Goal(text, bound, at_least=True, unit="x", measured=speed.median if speed else None)
        )

    def slower(self, text: str, bound: float, trial: str, than: str) -> None:
        """Ask a trial to take at most so many times as long as another one."""
        speed = self.rounds.speed(than, trial)
        self.goals.append(
            Goal(text, bound, at_least=False, unit="x", measured=speed.median if speed else None)
        )

    def within(self, text: str, bound: float, unit: str, trial: str) -> None:
        """Ask a trial to take at most so long."""
        seconds = self.rounds.seconds(trial)
        self._ask(text, bound, unit, seconds.median * _UNITS[unit] if seconds else None)

    def _ask(
        self, text: str, bound: float, unit: str, measured: float | None, *, at_least: bool = False
    ) -> None:
        self.goals.append(Goal(text, bound, at_least, unit, measured, self.rounds.are_enough))
