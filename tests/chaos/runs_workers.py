"""Workers on durable runs, which live until they are killed, and stop where they are told to.

A run has some steps. Each has one effect outside of the store, a line in a file that a SIGKILL cannot take back, and sends
one message with its result. After each the run emits two events: one that is matched by its place when the run is done
again, and one that has a key, since it is made of the state. In the middle there is a checkpoint; the end sends a message.

A worker passes *boundaries*: before and after each commit of its journal, in the middle of the commits that send
messages, and before and after each effect. At some of them it stops, says where it is, and waits: for a signal, or to be
let go.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runs_mutants
from journals import Journal
from mutants import Inside

from airflow_agentic.errors import AmbiguousStep, JournalCorrupt, RunTaken, StoreUnavailable
from airflow_agentic.messaging import Message
from airflow_agentic.persistence import RunQuery, RunStatus, StateSchema, current_step
from airflow_agentic.stores import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

AGENT, BOX, CHECKPOINT, END = "worker", "progress", "half", "the end"
MODES = ("hybrid", "events", "snapshot", "checkpoint")
SECONDS_OF_AN_EFFECT = 0.004
_PATIENCE = 600


def folded(state: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """Keep every event, so that one that is lost or comes twice is seen."""
    return {"log": [*state["log"], event], "sum": event["value"] if event["what"] == "sum" else state["sum"]}


SCHEMA = StateSchema(initial={"log": [], "sum": 0}, reduce=folded)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where runs are, and what they are like.

    Attributes:
        folder: Of the files with the effects.
        url: Of the store.
        persistence: One of the modes, or ``mixed`` for all of them, one run after the other.
        on_ambiguous: ``retry``, ``skip`` or ``ask``, or ``mixed`` for the first two.
        steps: Of each run.
        lease: Seconds.
        pace: 1 for effects that take a little time, 0 for none.
        mutant: Which promise is broken, if any.
    """

    folder: Path
    url: str
    persistence: str = "hybrid"
    on_ambiguous: str = "retry"
    steps: int = 3
    lease: float = 60
    pace: float = 0
    mutant: str = ""

    def persistence_of(self, key: str) -> str:
        return MODES[_number(key) % 4] if self.persistence == "mixed" else self.persistence

    def on_ambiguous_of(self, key: str) -> str:
        if self.on_ambiguous != "mixed":
            return self.on_ambiguous
        return "skip" if _number(key) // 4 % 2 else "retry"

    def open(self) -> Store:
        """Open the store, however long that takes."""
        while True:
            try:
                return runs_mutants.opened(self.url, self.mutant)
            except StoreUnavailable:
                time.sleep(0.02)


@dataclasses.dataclass(frozen=True)
class Stops:
    """Where a worker stops.

    Attributes:
        at: At this boundary.
        number: At the so-manieth, from 0.
        unless: At every boundary that is not one of these; ``None`` for no such rule.
    """

    at: str = ""
    number: int = -1
    unless: frozenset[str] | None = None


NOWHERE = Stops()


class Boundaries:
    """What a worker passes; where it stops, somebody has to let it go."""

    def __init__(self, stops: Stops, line: Connection):
        self._stops, self._line = stops, line
        self._passed: set[str] = set()
        self._count = 0

    def at(self, name: str) -> None:
        number, self._count = self._count, self._count + 1
        stops = self._stops
        is_new = stops.unless is not None and name not in stops.unless | self._passed
        if is_new or name == stops.at or number == stops.number:
            self._passed.add(name)
            self._line.send(("at", name))
            self._line.recv()  # Raises EOFError when nobody is there any more.


class Watched(Inside):
    """A journal store whose commits are boundaries."""

    def __init__(self, inner: Any, boundaries: Boundaries):
        super().__init__(inner)
        self._at, self._name = boundaries.at, ""

    def append(self, write: Any) -> bool:
        record = write.records[-1]
        self._name = f"{record.type} {_about(record)}"
        self._at(f"before {self._name}")
        done: bool = self._inner.append(write)
        self._at(f"after {self._name}")
        return done

    def in_the_middle(self) -> None:
        self._at(f"in {self._name}")


class WatchedMessages(Inside):
    """What takes the messages of a commit, which is not over then: on SQL. To Redis all goes at once."""

    def __init__(self, inner: Any, watched: Watched):
        super().__init__(inner)
        self._watched = watched

    def insert(self, outgoing: Any) -> Any:
        found = self._inner.insert(outgoing)
        self._watched.in_the_middle()
        return found


class Worker:
    """One process.

    Args:
        place: Where.
        stops: Where it stops.
        line: To whom it says so.
    """

    def __init__(self, place: Place, stops: Stops, line: Connection):
        self.place, self.boundaries = place, Boundaries(stops, line)
        self.effects, self.noted = (Journal(place.folder, name) for name in ("effects", "noted"))
        store = place.open()
        journals = store.run_stores.journals
        watched = Watched(journals, self.boundaries)
        if hasattr(journals, "_messages"):
            journals._messages = WatchedMessages(journals._messages, watched)
        stores = dataclasses.replace(store.run_stores, journals=watched)
        self.store = dataclasses.replace(store, run_stores=stores)
        self.run: Any = None

    # -- which runs ------------------------------------------------------------------------------------

    def one(self, key: str) -> tuple[str, ...]:
        """Work on one run until it ends in some way; say how."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self.work(key)
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def many(self, through: int | None) -> tuple[str, ...]:
        """Work on all runs up to a number, in any order that others leave; without a number, for ever."""
        while True:
            try:
                finished = self.finished()
            except StoreUnavailable:
                continue
            numbers = itertools.count() if through is None else range(through + 1)
            left = (key for number in numbers if (key := f"run-{number}") not in finished)
            # Two workers want the same ones, so that they meet.
            wanted = [*itertools.islice(left, 3)]
            if not wanted:
                return ("finished",)
            key = random.choice(wanted)
            if self.one(key)[0] == "taken":
                self.noted.write(f"taken\t{key}")

    def finished(self) -> set[str]:
        query = RunQuery(prefix="run-", statuses=(RunStatus.FINISHED,), limit=1_000_000)
        return {head.stream for head in self.store.runs.find_all(query)}

    # -- one run ---------------------------------------------------------------------------------------

    def work(self, key: str) -> tuple[str, ...]:
        place = self.place
        try:
            with self.store.run(
                AGENT,
                key=key,
                persistence=place.persistence_of(key),
                on_ambiguous=place.on_ambiguous_of(key),
                schema=SCHEMA,
                lease=timedelta(seconds=place.lease),
            ) as run:
                if not run.was_finished:
                    self.run = run
                    self.do(run)
        except RunTaken:
            return "taken", key
        except JournalCorrupt:
            return "corrupt", key
        except AmbiguousStep as ambiguous:
            return "ambiguous", key, ambiguous.step
        return "finished", key

    def do(self, run: Any) -> None:
        results = []
        for number in range(1, self.place.steps + 1):
            value = run.step(
                f"step-{number}", self.effect, number, pure=self.place.mutant == runs_mutants.NO_INTENTS
            )
            results.append(value)
            run.emit({"what": "value", "step": number, "value": value})
            # It is made of the state, which is another one when the run is done again: its key says that it is the same.
            total = run.state["sum"] + (value or 0)
            run.emit({"what": "sum", "step": number, "value": total}, key=f"sum {number}")
            if number == (self.place.steps + 1) // 2:
                run.checkpoint(CHECKPOINT)
        run.finish({"sum": run.state["sum"], "results": results}, [_message(run.key, END)])

    def effect(self, number: int) -> int:
        step = current_step()
        assert step is not None
        self.boundaries.at(f"before the effect of {step.name}")
        time.sleep(random.uniform(0, SECONDS_OF_AN_EFFECT) * self.place.pace)
        self.effects.write("\t".join((step.run, step.name, str(self.run.version))))
        time.sleep(random.uniform(0, SECONDS_OF_AN_EFFECT) * self.place.pace)
        self.boundaries.at(f"after the effect of {step.name}")
        message = _message(step.run, step.name)
        if self.place.mutant == runs_mutants.SENDS_AT_ONCE:
            self.store.bus.send(message)
        else:
            step.outbox.append(message)
        return number * number


def run_worker(
    place: Place, stops: Stops, line: Connection, what: Callable[[Worker], tuple[str, ...]]
) -> None:
    """Be a worker, and say at last how it ended."""
    line.send(("ended", *what(Worker(place, stops, line))))
    os._exit(0)  # There is nothing to clean up that a killed worker would not leave too.


def effects(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the effects that took place: run, step, and the version that the run had."""
    path = folder / "effects"
    for line in path.read_text().splitlines() if path.exists() else ():
        key, step, version = line.split("\t")
        yield key, step, int(version)


def _message(key: str, step: str) -> Message:
    return Message(source="worker", recipient=BOX, type="progress", data={"run": key, "step": step})


def _about(record: Any) -> str:
    if record.type != "event":
        return str(record.name)
    event = json.loads(record.data)["event"]
    return f"{event['what']} {event['step']}"


def _number(key: str) -> int:
    return int(key.partition("-")[2] or 0) if key.startswith("run-") else 0
