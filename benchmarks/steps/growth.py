"""What a conversation takes on disk, and how long its latest state takes to load."""

from __future__ import annotations

import contextlib
import operator
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from benchmarks.bus.ours import opened
from benchmarks.bus.peers import package
from benchmarks.bus.rounds import Spread, Trial, Unavailable, interleaved
from benchmarks.bus.section import Goal, Plan, Row, Section
from benchmarks.steps.contender import text_of
from benchmarks.steps.peers import graph_of, sqlite_saver, thread

_TURNS, _BYTES = 300, 1_024
_MODES = ("hybrid", "events", "snapshot", "checkpoint")
_DELTAS = (100, 50)
_KEY = "conversation"


class Conversation:
    """A way to keep a conversation.

    Args:
        path: Of its file.

    Attributes:
        name: Unique.
        note: What the reader must know.
    """

    name = ""
    note = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Make an empty file.

        Raises:
            Unavailable: It is not here.
        """
        raise NotImplementedError

    def fill(self, turns: int) -> float:
        """Hold a conversation, each turn of it on disk before the next one; return the seconds that a turn took."""
        raise NotImplementedError

    def loading(self, turns: int) -> contextlib.AbstractContextManager[list[Trial]]:
        """Have what loads the latest state, which must have all turns."""
        raise NotImplementedError

    def size(self) -> int:
        """Return the bytes on disk, with all that is in the write-ahead log."""
        with contextlib.closing(sqlite3.connect(self.path)) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self.path.stat().st_size


class Ours(Conversation):
    """A run whose state is the conversation: one event a turn.

    Args:
        path: Of its file.
        mode: How the run is kept.
    """

    note = "a turn is an event; the state is all turns"

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(path)
        self.name = f"ours, {mode}"
        self._mode = mode

    def make(self) -> None:
        """See the base class."""
        opened(f"sqlite:///{self.path}").close()

    def fill(self, turns: int) -> float:
        """See the base class. The run is left as by a worker that goes away in its middle."""
        with opened(f"sqlite:///{self.path}") as store:
            run = store.run("bench", _KEY, self._mode)
            began = time.perf_counter()
            for turn in range(turns):
                run.emit({"turns": {f"{turn:04}": text_of(_BYTES, turn)}})
            seconds = (time.perf_counter() - began) / turns
            run.close()
            return seconds

    @contextlib.contextmanager
    def loading(self, turns: int) -> Iterator[list[Trial]]:
        """See the base class: the run is opened, which takes it from everybody else; or only looked at."""
        with opened(f"sqlite:///{self.path}") as store:

            def taken() -> float:
                began = time.perf_counter()
                run = store.run("bench", _KEY, self._mode)
                state = run.state
                seconds = time.perf_counter() - began
                run.close()
                return _checked(seconds, len(state["turns"]), turns)

            def looked_at() -> float:
                began = time.perf_counter()
                state = store.at(_KEY, store.runs.find(_KEY).version).state
                return _checked(time.perf_counter() - began, len(state["turns"]), turns)

            yield [Trial(_taken(self.name), taken), Trial(_seen(self.name), looked_at)]


class Turns(TypedDict):
    """State of the graph: the whole of it is in each checkpoint."""

    left: int
    turns: Annotated[list[str], operator.add]


class LangGraph(Conversation):
    """A graph whose state is the conversation, ``durability="sync"``.

    Args:
        path: Of its file.
        delta: How many turns pass between two whole states; ``None`` for the whole state each turn.
    """

    def __init__(self, path: Path, delta: int | None = None) -> None:
        super().__init__(path)
        self.name = "LangGraph, full" if delta is None else f"LangGraph, delta {delta}"
        self.note = "the whole state each turn" if delta is None else "DeltaChannel, beta"
        self._delta = delta

    def make(self) -> None:
        """See the base class."""
        with self._graph():
            pass

    def fill(self, turns: int) -> float:
        """See the base class."""
        with self._graph() as graph:
            began = time.perf_counter()
            graph.invoke({"left": turns, "turns": []}, thread(turns, _KEY), durability="sync")
            return (time.perf_counter() - began) / turns

    @contextlib.contextmanager
    def loading(self, turns: int) -> Iterator[list[Trial]]:
        """See the base class."""
        with self._graph() as graph:

            def looked_at() -> float:
                began = time.perf_counter()
                state = graph.get_state(thread(turns, _KEY)).values
                return _checked(time.perf_counter() - began, len(state["turns"]), turns)

            yield [Trial(_seen(self.name), looked_at)]

    @contextlib.contextmanager
    def _graph(self) -> Iterator[Any]:
        saver, connection = sqlite_saver(self.path)
        with contextlib.closing(connection):
            yield graph_of(self._state(), _turn, saver)

    def _state(self) -> Any:
        if self._delta is None:
            return Turns
        channels = package("langgraph.channels")
        if not hasattr(channels, "DeltaChannel"):
            raise Unavailable("this version has no DeltaChannel")
        channel = channels.DeltaChannel(_extended, list, snapshot_frequency=self._delta)
        make: Any = TypedDict
        return make("Deltas", {"left": int, "turns": Annotated[list, channel]})


def growth(plan: Plan) -> Section:
    """Measure growth."""
    turns = plan.some(_TURNS)
    section = Section(f"SQLite: a conversation of {turns} turns of 1 KB each: its size, and its latest state")
    conversations = [
        *(Ours(plan.folder / f"ours-{mode}.db", mode) for mode in _MODES),
        LangGraph(plan.folder / "langgraph.db"),
        *(LangGraph(plan.folder / f"langgraph-{delta}.db", delta) for delta in _DELTAS),
    ]
    sizes = _filled(section, conversations, turns)
    with contextlib.ExitStack() as stack:
        trials = [
            trial
            for each in conversations
            if each.name in sizes
            for trial in stack.enter_context(each.loading(turns))
        ]
        section.rounds = interleaved(trials, plan.disk, plan.rounds, say=plan.say)
    section.skipped.update(section.rounds.failed)
    for each in conversations:
        for name in (_seen(each.name), _taken(each.name)):
            section.add("the latest state", name, name, "ms")
    section.goals.append(Goal("on disk, hybrid, of the payload", 3, False, "x", sizes.get("ours, hybrid")))
    section.within("the latest state, hybrid, looked at", 3, "ms", _seen("ours, hybrid"))
    section.within("the latest state, hybrid, run opened", 3, "ms", _taken("ours, hybrid"))
    return section


def _filled(section: Section, conversations: Sequence[Conversation], turns: int) -> dict[str, float]:
    """Hold the conversations; return how many times their payload they take on disk, by name."""
    sizes = {}
    for each in conversations:
        try:
            each.make()
            empty = each.size()
            seconds = each.fill(turns)
        except Unavailable as reason:
            section.skipped[each.name] = str(reason)
            continue
        sizes[each.name] = times = (each.size() - empty) / (turns * _BYTES)
        note = f"{each.note}; {seconds * 1e6:,.0f} µs a turn when written"
        section.rows.append(Row("on disk", each.name, Spread(times, times, times), "x payload", note=note))
    return sizes


def _seen(name: str) -> str:
    return f"{name}: looked at"


def _taken(name: str) -> str:
    return f"{name}: run opened"


def _checked(seconds: float, found: int, wanted: int) -> float:
    if found != wanted:
        raise AssertionError(f"of {wanted} turns, {found} are in the state")
    return seconds


def _turn(now: Any) -> dict[str, Any]:
    return {"left": now["left"] - 1, "turns": [text_of(_BYTES, len(now.get("turns", [])))]}


def _extended(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*state, *(turn for write in writes for turn in write)]
