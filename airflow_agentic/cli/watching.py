"""Shows how things go on: on a terminal in place, elsewhere what changed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, TextIO

from rich.cells import set_cell_size

from airflow_agentic.cli.output import clean, iso, span
from airflow_agentic.cli.runs import status_of, together_line, why
from airflow_agentic.persistence import RunStatus
from airflow_agentic.persistence.glances import Glance, Together

_BAR = 20
_UP_AND_CLEAR = "\x1b[{}F\x1b[J"
_WIDEST_KEY = 60


class Screen:
    """Where lines are shown again and again.

    Args:
        to: If it is a terminal, lines are written over those before; else only those that are new are written, with the
            time before them.
    """

    def __init__(self, to: TextIO) -> None:
        self._to = to
        self._is_terminal = to.isatty()
        self._height = 0
        self._before: Sequence[tuple[str, str]] = ()

    def show(self, lines: Sequence[tuple[str, str]], now: datetime) -> None:
        """Show lines: each as it is compared, and as it is shown on a terminal."""
        if self._is_terminal:
            size = shutil.get_terminal_size()
            fitting = [set_cell_size(clean(line), size.columns - 1).rstrip() for _, line in lines]
            # What is above the window cannot be written over.
            fitting = fitting[: max(1, size.lines - 1)]
            up = _UP_AND_CLEAR.format(self._height) if self._height else ""
            self._to.write(up + "".join(f"{line}\n" for line in fitting))
            self._height = len(fitting)
        else:
            known = {line for line, _ in self._before}
            for line, _ in lines:
                if line not in known:
                    self._to.write(f"{iso(now)}  {clean(line)}\n")
        self._before = lines
        self._to.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._to.flush()


def lines_of(together: Together) -> list[tuple[str, str]]:
    """Return a line for each run, and one for all: as they are compared, and as a terminal shows them."""
    width = max((min(_WIDEST_KEY, len(each.head.stream)) for each in together.runs), default=0)
    lines = [(" ".join(filter(None, _words(each))), _line(each, width)) for each in together.runs]
    if len(together.runs) > 1:
        lines.append((_compared(together), together_line(together)))
    return lines


def _words(glance: Glance) -> Iterator[str]:
    """Yield what is said of a run, without what changes by itself."""
    head = glance.head
    yield from (f"{head.stream}:", f"{status_of(glance)},", f"{_progress(glance)} done")
    if head.step:
        yield f"({head.step})"
    if said := why(glance):
        yield f"- {said}"


def _line(glance: Glance, width: int) -> str:
    head = glance.head
    key = head.stream if len(head.stream) <= width else f"{head.stream[: width - 1]}…"
    parts = [f"{key:<{width}}", _bar(glance), f"{_progress(glance)}", status_of(glance)]
    if not glance.is_ended:
        parts += [head.step, f"for {span((glance.now - glance.began_at).total_seconds())}"]
    if glance.left is not None:
        parts.append(f"~ {span(glance.left.total_seconds())} left")
    return "  ".join(filter(None, [*parts, why(glance)]))


def _progress(glance: Glance) -> str:
    head = glance.head
    return f"{head.done:,}/{head.total:,}" if head.total else f"{head.done:,}"


def _bar(glance: Glance) -> str:
    """Return how far a run is, as a bar; of one whose length nobody knows an empty one until it ends."""
    head = glance.head
    share = min(1.0, head.done / head.total) if head.total else 0.0
    full = _BAR if head.status == RunStatus.FINISHED else int(share * _BAR)
    return f"[{'#' * full}{'.' * (_BAR - full)}]"


def _compared(together: Together) -> str:
    counts = ", ".join(f"{number} {status}" for status, number in together.statuses.items())
    return f"together: {counts}"
