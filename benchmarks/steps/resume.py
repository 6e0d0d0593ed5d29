"""What a long history costs: going on with it, and the next step."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchmarks.bus.ours import opened
from benchmarks.bus.rounds import Trial, interleaved
from benchmarks.bus.section import Plan, Section
from benchmarks.bus.servers import Place, places
from benchmarks.steps.contender import text_of
from benchmarks.steps.ours import pure

if TYPE_CHECKING:
    from airflow_agentic.stores import Store

_LONG = 10_000
_LENGTHS = (10, 1_000, _LONG)
_STEPS, _REPLAYED = 20, 500
_TEXT = text_of(1_024)
_PARTS = 50
# The cost of a step may be so much higher at the greatest length than at the least.
_FLAT = 1.5


def resume(plan: Plan) -> Section:
    """Measure long runs."""
    section = Section("A run with a long history: going on with it, and its next steps of 1 KB")
    lengths = [plan.some(length) for length in _LENGTHS]
    with places(plan.folder, section.skipped) as found, contextlib.ExitStack() as stack:
        trials: list[Trial] = []
        for place in found:
            if place.name == "Redis":
                continue  # Its file is synced by the server: nothing here depends on the length.
            store = stack.enter_context(opened(place.url("long")))
            trials += _trials(place.name, store, lengths)
        section.rounds = interleaved(trials, plan.disk, plan.rounds, _tidy(found), plan.say)
    section.skipped.update(section.rounds.failed)
    section.skipped.pop("Redis", None)
    for place in found:
        _add(section, place.name, lengths)
    return section


def _add(section: Section, place: str, lengths: list[int]) -> None:
    longest = lengths[-1]
    for mode in ("hybrid", "events"):
        name = _resumed(place, mode)
        note = "opened, its state read, its first step answered, the next one done"
        section.add(f"{place}, {longest:,} events", f"gone on with, {mode}", name, "ms", note=note)
    name = _answered(place)
    note = "one of a row: code and arguments compared, seals checked"
    section.add(f"{place}, {longest:,} events", "a finished step answers", name, "µs", note=note)
    for length in lengths:
        than = _next(place, lengths[0])
        section.add(f"{place}, the next step", f"after {length:,}", _next(place, length), "µs", than)
    if section.rounds.seconds(_resumed(place, "hybrid")) is None:
        return
    section.within(f"{place}, going on with {longest:,} events, hybrid", 100, "ms", _resumed(place, "hybrid"))
    text = f"{place}, a step after {longest:,}, of one after {lengths[0]:,}"
    section.slower(text, _FLAT, _next(place, longest), _next(place, lengths[0]))


def _trials(place: str, store: Store, lengths: list[int]) -> Iterator[Trial]:
    keys = {length: _filled(store, length, "hybrid") for length in lengths}
    longest, events = keys[lengths[-1]], _filled(store, lengths[-1], "events")
    yield Trial(_resumed(place, "hybrid"), functools.partial(_resume, store, longest, "hybrid"))
    yield Trial(_resumed(place, "events"), functools.partial(_resume, store, events, "events"))
    yield Trial(_answered(place), functools.partial(_replay, store, longest))
    for length, key in keys.items():
        yield Trial(_next(place, length), functools.partial(_step, store, key, length))


def _filled(store: Store, length: int, mode: str) -> str:
    """Make a run, half steps and half events, and leave it as by a worker that went away; return its key."""
    key = uuid.uuid4().hex
    run = store.run("bench", key, mode)
    for number in range(length // 2):
        pure(run, number, _TEXT)
        run.emit({"last": number, "parts": {str(number % _PARTS): _TEXT}})
    run.close()
    return key


def _resume(store: Store, key: str, mode: str) -> float:
    began = time.perf_counter()
    run = store.run("bench", key, mode)
    state = run.state
    pure(run, 0, _TEXT)
    pure(run, next(_NEW), _TEXT)
    seconds = time.perf_counter() - began
    run.close()
    if not state["parts"]:
        raise AssertionError("the state is lost")
    return seconds


def _replay(store: Store, key: str) -> float:
    run = store.run("bench", key)
    before = run.version
    began = time.perf_counter()
    for number in range(_REPLAYED):
        pure(run, number, _TEXT)
    seconds = time.perf_counter() - began
    if run.version != before:
        raise AssertionError("a finished step was done again")
    run.close()
    return seconds / _REPLAYED


def _step(store: Store, key: str, length: int) -> float:
    """Time a few steps. A short run is made anew, so that it stays short; a long one gets a little longer."""
    if length < _STEPS * 10:
        key = _filled(store, length, "hybrid")
    run = store.run("bench", key)
    pure(run, next(_NEW), _TEXT)
    began = time.perf_counter()
    for _ in range(_STEPS):
        pure(run, next(_NEW), _TEXT)
    seconds = time.perf_counter() - began
    run.close()
    return seconds / _STEPS


# Of steps that no run has yet.
_NEW = itertools.count(10**6)


def _tidy(found: list[Place]) -> functools.partial[None]:
    return functools.partial(_tidied, found)


def _tidied(found: list[Place]) -> None:
    for place in found:
        place.tidy()


def _resumed(place: str, mode: str) -> str:
    return f"{place}, {mode}: resumed"


def _answered(place: str) -> str:
    return f"{place}: answered"


def _next(place: str, length: int) -> str:
    return f"{place}: next after {length}"
