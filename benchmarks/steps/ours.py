"""Our durable runs, as their users have them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bus.ours import opened
from benchmarks.steps.contender import Contender

if TYPE_CHECKING:
    from airflow_agentic.persistence import Run
    from airflow_agentic.stores import Store

Do = Callable[["Run", int, str], Any]
"""Does the n-th step, which returns a text."""


def pure(run: Run, number: int, text: str) -> None:
    """Do a step that has no effect outside: one commit."""
    run.step(f"step-{number}", _returned, text, pure=True)


def step(run: Run, number: int, text: str) -> None:
    """Do a step: its intent is on disk before it begins, and its result after it."""
    run.step(f"step-{number}", _returned, text)


def emit(run: Run, _number: int, text: str) -> None:
    """Record an event, which changes the state."""
    run.emit({"text": text})


class Ours(Contender):
    """``store.run(…)`` at its defaults.

    Args:
        url: Of a store that is its own.
        name: Unique in its section.
        do: What is done.
        persistence: How the run is kept.
        note: What the reader must know.
    """

    def __init__(self, url: str, name: str, do: Do, persistence: str = "hybrid", note: str = "") -> None:
        self.name, self.note = name, note
        self._url = url
        self.file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
        self._do = do
        self._persistence = persistence
        self._store: Store | None = None

    def setup(self) -> None:
        """Open the store, which makes its schema."""
        self._store = opened(self._url)

    def steps(self, text: str, count: int) -> float:
        """Do them in a run of their own."""
        assert self._store is not None, "setup() opens it"
        with self._store.run("bench", persistence=self._persistence) as run:
            self._do(run, 0, text)
            began = time.perf_counter()
            for number in range(1, count + 1):
                self._do(run, number, text)
            return (time.perf_counter() - began) / count

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
            self._store = None


PURE, STEP, EMIT = "ours: step, pure", "ours: step", "ours: emit"


def usual(url: Callable[[str], str]) -> Iterator[Ours]:
    """Yield what people do, with the persistence that they have if they say nothing.

    Args:
        url: Makes room for a store, by name; returns its URL.
    """
    yield Ours(
        url("pure"), PURE, pure, note="one commit: a sealed record, and the head with its owner's lease"
    )
    yield Ours(url("step"), STEP, step, note="two commits: the intent before, the result after")
    yield Ours(url("emit"), EMIT, emit, note="one commit; the state is folded, a snapshot now and then")


def modes(url: Callable[[str], str]) -> Iterator[Ours]:
    """Yield the same with each kind of persistence; see :func:`usual`."""
    for mode, note in (
        ("hybrid", "a snapshot when the tail is as large as the last one"),
        ("events", "no snapshots"),
        ("snapshot", "the state with each event"),
        ("checkpoint", "the state at checkpoints and ends"),
    ):
        yield Ours(url(f"pure_{mode}"), f"{PURE}, {mode}", pure, mode, note)
        yield Ours(url(f"emit_{mode}"), f"{EMIT}, {mode}", emit, mode)


def _returned(text: str) -> str:
    return text
