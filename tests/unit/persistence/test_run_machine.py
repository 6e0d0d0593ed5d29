"""Whatever happens to a run, in every mode: its state is that of a plain fold, and no finished step is done twice."""

from __future__ import annotations

import logging
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from run_parts import MODES, Breakable, Effects, Killed, runs_on

from airflow_agentic.errors import RunNotFound
from airflow_agentic.persistence import StateSchema
from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.stores.memory import MemoryJournals

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_agentic.persistence import Run

NAMES = st.sampled_from(["read", "write", "send"])
VALUES = st.integers(0, 3) | st.none() | st.dictionaries(st.sampled_from("xy"), st.integers(0, 2), max_size=2)
PATCHES = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=2)
WAYS = st.sampled_from(["retry", "skip"])


def _plain_merge(state: Any, patch: Any) -> Any:
    """The model's own merging."""
    if not isinstance(patch, dict):
        return patch
    state = dict(state) if isinstance(state, dict) else {}
    for key, value in patch.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = _plain_merge(state.get(key), value)
    return state


def _count_and_merge(state: Any, event: Any) -> Any:
    """A reducer that tells an event that is there twice from one that is there once."""
    return {"events": state["events"] + 1, "merged": _plain_merge(state["merged"], event)}


SCHEMA = StateSchema({"events": 0, "merged": {}}, _count_and_merge)


@dataclass
class Lane:
    """The run in one mode, and what it did in the world outside."""

    mode: str
    store: Breakable = field(init=False)
    run: Run = field(init=False)
    effects: Effects = field(default_factory=Effects)
    reported: Counter[str] = field(default_factory=Counter)
    finished: dict[str, int] = field(default_factory=dict)
    heard: int = 0

    def __post_init__(self) -> None:
        journals = MemoryJournals()
        self.store = Breakable(RunStores(journals, journals))
        self.runs = runs_on(self.store.stores, persistence=self.mode, schema=SCHEMA)
        self.open()

    def open(self) -> None:
        self.run, self.heard = self.runs.open("a", "k"), 0

    def listen(self) -> None:
        for each in self.run.ambiguities[self.heard :]:
            self.reported[each.step] += 1
        self.heard = len(self.run.ambiguities)


class Runs(RuleBasedStateMachine):
    """The code of a run is a list of things to do; after a death all of it is done again from the top."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.WARNING)  # it says a lot, and rightly so
        self.lanes = [Lane(mode) for mode in MODES]
        self.code: list[Callable[[Lane], Any]] = []
        self.lap = 0
        self.asked: Counter[str] = Counter()
        self.is_finished = False
        self.state: Any = deepcopy(SCHEMA.initial)
        # What the state was after the records of these versions.
        self.changes: dict[int, Any] = {0: self.state}

    # -- what code does ------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self._do(lambda lane: lane.run.step("first", lane.effects.do, "first"))

    @precondition(lambda self: not self.is_finished)
    @rule(name=NAMES, result=VALUES, way=WAYS, death=st.none() | st.tuples(st.integers(1, 2), st.booleans()))
    def step(self, name: str, result: Any, way: Any, death: tuple[int, bool] | None) -> None:
        name = f"{name}-{self.lap}"
        self.asked[name] += 1
        unique = name if self.asked[name] == 1 else f"{name}#{self.asked[name]}"

        def do(lane: Lane) -> None:
            try:
                found = lane.run.step(name, lane.effects.do, unique, result, on_ambiguous=way)
            finally:
                if not lane.store.is_dead:
                    lane.listen()
            assert found == result or (found is None and lane.reported[unique])
            lane.finished.setdefault(unique, lane.effects[unique])
            assert lane.effects[unique] == lane.finished[unique], "a finished step was done again"

        self._do(do, death)

    @precondition(lambda self: not self.is_finished)
    @rule(patch=PATCHES, death=st.none() | st.booleans())
    def emit(self, patch: Any, death: bool | None) -> None:  # hypothesis gives it
        self._emit(patch, None, death)

    @precondition(lambda self: not self.is_finished)
    @rule(patch=PATCHES, key=st.sampled_from("kl"), death=st.none() | st.booleans())
    def emit_once(self, patch: Any, key: str, death: bool | None) -> None:
        self._emit(patch, key, death)

    def _emit(self, patch: Any, key: str | None, death: bool | None) -> None:
        versions: list[int] = []

        def do(lane: Lane) -> None:
            versions.append(lane.run.emit(patch, key=key))

        self._do(do, None if death is None else (1, death))
        assert len({*versions}) == 1, "the modes are at several versions"
        if versions[0] not in self.changes:
            self.state = _count_and_merge(self.state, patch)
            self.changes[versions[0]] = self.state

    @precondition(lambda self: not self.is_finished)
    @rule(name=st.sampled_from(["one", "other"]), death=st.none() | st.booleans())
    def checkpoint(self, name: str, death: bool | None) -> None:
        self._do(lambda lane: lane.run.checkpoint(name), None if death is None else (1, death))

    # -- what becomes of it --------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_finished)
    @rule()
    def die_between_two_writes(self) -> None:
        for lane in self.lanes:
            self._again(lane)

    @precondition(lambda self: not self.is_finished)
    @rule()
    def wait(self) -> None:
        for lane in self.lanes:
            lane.run.pause("something")
            lane.run.close()
            self._again(lane)

    @precondition(lambda self: not self.is_finished)
    @rule()
    def fail(self) -> None:
        for lane in self.lanes:
            lane.run.fail(ValueError("no"))
            lane.run.close()
            self._again(lane)

    @precondition(lambda self: not self.is_finished)
    @rule()
    def sleep(self) -> None:
        long_past, name = datetime(2000, 1, 1, tzinfo=UTC), f"nap-{self.lap}"
        self._do(lambda lane: lane.run.sleep_until(long_past, name=name))

    @precondition(lambda self: not self.is_finished)
    @rule(patch=PATCHES)
    def set_state(self, patch: Any) -> None:
        versions = set()
        for lane in self.lanes:
            versions.add(lane.runs.by_hand.set_state("k", patch=patch, actor="ann", reason="why not"))
            self._again(lane)
        [version] = versions
        self.state = self.changes[version] = _plain_merge(self.state, patch)
        # The reducer wants to find what it made.
        if not isinstance(self.state, dict) or {"events", "merged"} - self.state.keys():
            raise AssertionError(self.state)

    @precondition(lambda self: not self.is_finished)
    @rule()
    def finish(self) -> None:
        for lane in self.lanes:
            lane.run.finish({"lap": self.lap})
            lane.run.close()
        self.is_finished = True

    @precondition(lambda self: self.is_finished)
    @rule(prunes=st.booleans())
    def go_on(self, prunes: bool) -> None:
        self.code, self.lap, self.is_finished = [], self.lap + 1, False
        self.asked.clear()
        for lane in self.lanes:
            if prunes:
                forgotten = lane.runs.prune("k")
                assert bool(forgotten) == (lane.mode in ("snapshot", "checkpoint"))
            lane.open()
            assert lane.run.result == {"lap": self.lap - 1}

    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        last = self.lanes[0].runs.find("k").version
        version = data.draw(st.integers(1, last))
        for lane in self.lanes:
            before = lane.runs.history("k")
            try:
                name = lane.runs.by_hand.fork("k", at=version)
            except RunNotFound:
                assert lane.mode in ("snapshot", "checkpoint")
                continue
            run = lane.runs.open("a", name)
            assert run.state == self._at(version)
            run.emit({"a": 1})
            run.close()
            assert lane.runs.history("k") == before
            assert lane.runs.verify(name) == []
            lane.runs.forget(name)

    # -- what is always so ---------------------------------------------------------------------------------

    @invariant()
    def the_state_is_that_of_the_fold_in_every_mode(self) -> None:
        for lane in self.lanes:
            state = lane.runs.open("a", "k").state if self.is_finished else lane.run.state
            assert state == self.state, lane.mode

    @invariant()
    def every_repeat_is_reported(self) -> None:
        for lane in self.lanes:
            for name, times in lane.effects.counts.items():
                assert times - 1 <= lane.reported[name], (lane.mode, name)

    @invariant()
    def every_moment_that_is_kept_is_as_it_was(self) -> None:
        heads = [lane.runs.find("k") for lane in self.lanes]
        assert len({(head.version, head.done, head.status) for head in heads}) <= 1
        for version in range(max(1, heads[0].version - 4), heads[0].version + 1):
            self._check_moment(version)

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)
        for lane in self.lanes:
            if lane.runs.find_all():
                assert lane.runs.verify("k") == []
                for version in range(1, lane.runs.find("k").version + 1):
                    self._check_moment(version)

    # -- inside --------------------------------------------------------------------------------------------

    def _do(self, do: Callable[[Lane], Any], death: tuple[int, bool] | None = None) -> None:
        """Do something new; with ``death`` in the n-th write that comes of it, after or before its commit."""
        for lane in self.lanes:
            if death is not None:
                lane.store.kill(death[0], "after" if death[1] else "before")
            try:
                do(lane)
            except Killed:
                lane.store.revive()
                self._again(lane)
                do(lane)
            lane.store.revive()
        self.code.append(do)

    def _again(self, lane: Lane) -> None:
        before = lane.runs.find("k").version if lane.runs.find_all() else 0
        lane.open()
        for each in self.code:
            each(lane)
        assert lane.run.version <= before + 1, "what was said before was said again"

    def _at(self, version: int) -> Any:
        return self.changes[max(each for each in self.changes if each <= version)]

    def _check_moment(self, version: int) -> None:
        for lane in self.lanes:
            try:
                moment = lane.runs.at("k", version)
            except RunNotFound:
                assert lane.mode in ("snapshot", "checkpoint")
                assert self.lap
                continue
            assert moment.state == self._at(version), (lane.mode, version)


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
