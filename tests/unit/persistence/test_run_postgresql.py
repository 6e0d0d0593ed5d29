from __future__ import annotations

from typing import TYPE_CHECKING

import clocked
import postgres
import pytest
from run_parts import MODES, Breakable, Effects, Killed, dying, runs_on, types_of

from airflow_agentic.errors import RunTaken
from airflow_agentic.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_agentic.persistence import Run


@pytest.fixture
def breakable(tmp_path: Path) -> Iterator[Breakable]:
    postgres.require()
    with clocked.opened("postgresql", tmp_path, FakeClock()) as store:
        yield Breakable(store.run_stores)


def _work(run: Run, effects: Effects) -> None:
    run.step("one", effects.do, f"{run.key}-one", {"\u00e9": "\u2028"})
    run.emit({"n": 1})
    run.step("two", effects.do, f"{run.key}-two")


def test_runs_are_the_same_on_a_server(breakable: Breakable) -> None:
    effects = Effects()
    for mode in MODES:
        runs = runs_on(breakable.stores, persistence=mode)
        breakable.kill(4, "after")
        with pytest.raises(Killed), runs.open("a", mode) as run:
            _work(run, effects)
        breakable.revive()
        with dying(runs, mode) as run:
            _work(run, effects)
            run.checkpoint("half")
            assert [each.step for each in run.ambiguities] == ["two"]
        with runs.open("a", mode) as run:
            assert run.state == {"n": 1}
        assert runs.at(mode, "half").steps == ("one", "two")
        name = runs.by_hand.fork(mode, at="half", patch={"n": 2})
        assert runs.open("a", name).state == {"n": 2}
        assert runs.verify(mode) == [] == runs.verify(name)
        assert bool(runs.prune(mode)) == (mode in ("snapshot", "checkpoint"))
        assert runs.open("a", mode).state == {"n": 1}
    assert all(effects[f"{mode}-one"] == 1 for mode in MODES)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_that_is_lost_for_a_moment_is_asked_again(breakable: Breakable, when: str) -> None:
    runs, effects = runs_on(breakable.stores), Effects()
    breakable.lose(1, when)
    breakable.lose(3, when)
    with runs.open("a", "k") as run:
        run.step("s", effects.do, "s")
        run.emit({"n": 1})
    assert types_of(runs, "k") == ["run.started", "step.intended", "step.done", "event", "run.finished"]
    assert effects["s"] == 1


def test_of_two_workers_on_a_server_one_wins(breakable: Breakable) -> None:
    run = runs_on(breakable.stores, "here:1").open("a", "k")
    run.emit({"n": 1})
    with pytest.raises(RunTaken, match="here:1 works on the run"):
        runs_on(breakable.stores, "there:2").open("a", "k")
