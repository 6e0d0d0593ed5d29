from __future__ import annotations

import gc
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from run_parts import Breakable, Effects, runs_on, types_of

from airflow_agentic.errors import AgenticError, RunTaken, StoreUnavailable
from airflow_agentic.persistence import RunOptions, Runs, RunStatus
from airflow_agentic.persistence.ports import Facilities
from airflow_agentic.resilience.keeping import Keeper

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_agentic.stores import Store
    from airflow_agentic.testing import FakeClock


class HandKeeper:
    """A keeper whose moments a test makes."""

    def __init__(self) -> None:
        self.kept: dict[str, Callable[[], bool]] = {}

    def keep(self, token: str, every_seconds: float, renew: Callable[[], bool]) -> None:
        assert every_seconds == 20
        self.kept[token] = renew

    def drop(self, token: str) -> None:
        self.kept.pop(token, None)

    def tick(self) -> None:
        self.kept = {token: renew for token, renew in self.kept.items() if renew()}


def _kept(store: Store, owner: str = "here:1", keeper: Any = None) -> tuple[Runs, HandKeeper]:
    keeper = keeper or HandKeeper()
    return Runs(store.run_stores, Facilities(lambda: owner, keeper=keeper), RunOptions()), keeper


def test_of_two_workers_one_wins_and_the_other_stops(store: Store) -> None:
    ours, theirs = runs_on(store.run_stores, "here:1"), runs_on(store.run_stores, "there:2")
    run = ours.open("a", "k")
    run.emit({"n": 1})
    with pytest.raises(RunTaken, match="here:1 works on the run 'k' until") as caught:
        theirs.open("a", "k")
    assert caught.value.owner == "here:1"
    run.close()
    with theirs.open("a", "k") as other:
        other.emit({"n": 2})


def test_of_two_that_begin_the_same_new_run_one_wins(store: Store) -> None:
    first, second = (runs_on(store.run_stores, owner).open("a", "k") for owner in ("here:1", "there:2"))
    first.emit({"n": 1})
    with pytest.raises(RunTaken), second:
        second.emit({"n": 2})
    assert first.state == {"n": 1}
    first.emit({"n": 3})


def test_who_lost_the_run_stops_and_does_not_give_it_back(store: Store, clock: FakeClock) -> None:
    ours, theirs = runs_on(store.run_stores, "here:1"), runs_on(store.run_stores, "there:2")
    effects = Effects()
    run = ours.open("a", "k")
    run.emit({"n": 1})
    clock.advance(timedelta(seconds=61))
    other = theirs.open("a", "k")
    other.emit({"n": 2})
    with pytest.raises(RunTaken), run:
        run.step("s", effects.do, "s")
    assert effects["s"] == 0
    head = ours.find("k")
    assert (head.owner, head.status) == ("there:2", "running")
    assert head.lease_until_ms > 0
    other.emit({"n": 3})


def test_who_loses_the_run_in_the_middle_of_a_step_records_nothing(store: Store, clock: FakeClock) -> None:
    ours, theirs = runs_on(store.run_stores, "here:1"), runs_on(store.run_stores, "there:2")

    def slow() -> None:
        clock.advance(timedelta(seconds=61))
        theirs.open("a", "k")

    with pytest.raises(RunTaken), ours.open("a", "k") as run:
        run.step("s", slow)
    assert types_of(ours, "k") == ["run.started", "step.intended"]
    assert ours.find("k").owner == "there:2"


def test_that_another_run_is_taken_is_an_error_like_any_other(store: Store) -> None:
    ours, theirs = runs_on(store.run_stores, "here:1"), runs_on(store.run_stores, "there:2")
    theirs.open("a", "theirs").emit(1)
    with pytest.raises(RunTaken), ours.open("a", "mine") as run:
        run.step("s", lambda: ours.open("a", "theirs"))
    assert ours.find("mine").status == RunStatus.FAILED
    assert types_of(ours, "mine")[1:] == ["step.intended", "step.failed", "run.failed"]


def test_a_second_opening_by_the_same_process_takes_the_run_over(store: Store) -> None:
    runs = runs_on(store.run_stores)
    first = runs.open("a", "k")
    first.emit({"n": 1})
    second = runs.open("a", "k")
    second.emit({"n": 2})
    with pytest.raises(RunTaken):
        first.emit({"n": 3})
    first.close()
    assert runs.find("k").lease_until_ms > 0
    second.emit({"n": 4})
    assert runs.verify("k") == []


def test_an_open_run_is_held_on_to(store: Store, clock: FakeClock) -> None:
    runs, keeper = _kept(store)
    run = runs.open("a", "k")
    keeper.tick()
    run.emit({"n": 1})
    for _ in range(9):
        clock.advance(timedelta(seconds=20))
        keeper.tick()
    with pytest.raises(RunTaken):
        runs_on(store.run_stores, "there:2").open("a", "k")
    run.close()
    assert not keeper.kept
    assert runs.find("k").lease_until_ms == 0


def test_a_run_that_somebody_took_is_not_held_on_to(store: Store, clock: FakeClock) -> None:
    runs, keeper = _kept(store)
    run = runs.open("a", "k")
    run.emit({"n": 1})
    clock.advance(timedelta(seconds=61))
    runs_on(store.run_stores, "there:2").open("a", "k").emit({"n": 2})
    keeper.tick()
    assert not keeper.kept
    assert runs.find("k").owner == "there:2"


def test_a_run_that_is_dropped_and_never_closed_is_not_kept_alive(store: Store) -> None:
    runs, keeper = _kept(store)
    run = runs.open("a", "k")
    run.emit({"n": 1})
    known = weakref.ref(run._session)
    del run
    gc.collect()
    assert known() is None
    keeper.tick()
    assert not keeper.kept


def test_a_run_that_cannot_be_opened_is_given_back_and_not_held_on_to(
    breakable: Breakable, store: Store
) -> None:
    class FailingKeeper(HandKeeper):
        def keep(self, *_: Any) -> None:
            raise OSError("no more threads")

    runs, _ = _kept(store)
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
    failing, _ = _kept(store, keeper=FailingKeeper())
    with pytest.raises(OSError, match="no more threads"):
        failing.open("a", "k")
    assert runs.find("k").lease_until_ms == 0


def test_a_renewal_and_the_end_of_a_run_do_not_meet(store: Store) -> None:
    """Whatever comes first, the run is free at the end."""
    runs, keeper = _kept(store)
    for n in range(20):
        run = runs.open("a", f"k{n}")
        run.emit({"n": 1})
        thread = threading.Thread(target=keeper.tick)
        thread.start()
        run.finish()
        run.close()
        thread.join()
        assert runs.find(f"k{n}").lease_until_ms == 0


def test_the_keeper_of_the_process_renews_a_lease(store: Store) -> None:
    facilities = Facilities(lambda: "here:1", keeper=Keeper())
    runs = Runs(store.run_stores, facilities, RunOptions(lease=timedelta(milliseconds=30)))
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
        inner: Any = store.run_stores.runs
        renewed, renew = threading.Event(), inner.hold

        def hold(*args: Any) -> Any:
            renewed.set()
            return renew(*args)

        inner.hold = hold
        assert renewed.wait(5)


# -- a store that goes away ----------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_store_that_is_lost_for_a_moment_is_asked_again_and_nothing_is_there_twice(
    breakable: Breakable, runs: Runs, when: str
) -> None:
    effects = Effects()
    with runs.open("a", "k") as run:
        for n in range(3):
            breakable.lose(1, when)
            run.emit({f"n{n}": n})
            breakable.lose(2, when)
            run.step(f"s{n}", effects.do, f"s{n}")
        breakable.lose(1, when)
    assert runs.find("k").status == RunStatus.FINISHED
    assert types_of(runs, "k") == [
        "run.started",
        *["event", "step.intended", "step.done"] * 3,
        "run.finished",
    ]
    assert set(effects.counts.values()) == {1}
    assert runs.verify("k") == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_store_that_comes_back_later_is_asked_what_it_has(
    breakable: Breakable, runs: Runs, when: str
) -> None:
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
        breakable.lose(1, when, for_good=True)
        with pytest.raises(StoreUnavailable):
            run.emit({"n": 2}, key="two")
        with pytest.raises(StoreUnavailable):
            run.emit({"n": 3})
        breakable.revive()
        assert run.emit({"n": 2}, key="two") == 3
        assert run.state == {"n": 2}
        run.emit({"n": 4})
    assert types_of(runs, "k") == ["run.started", "event", "event", "event", "run.finished"]
    assert runs.verify("k") == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_whose_result_was_lost_with_the_store_is_ambiguous_or_done_but_never_done_again_silently(
    breakable: Breakable, runs: Runs, when: str
) -> None:
    effects = Effects()
    breakable.lose(2, when, for_good=True)
    with pytest.raises(StoreUnavailable, match="the store is away"), runs.open("a", "k") as run:
        run.step("s", effects.do, "s", 7)
    breakable.revive()
    with runs.open("a", "k") as run:
        assert run.step("s", effects.do, "s", 7) == 7
        assert effects["s"] == 1 + len(run.ambiguities)
        assert len(run.ambiguities) == (1 if when == "before" else 0)


def test_the_error_of_a_step_is_not_hidden_by_a_store_that_is_away(breakable: Breakable, runs: Runs) -> None:
    def fail() -> None:
        breakable.lose(1, "before", for_good=True)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), runs.open("a", "k") as run:
        run.step("s", fail)
    breakable.revive()
    with runs.open("a", "k") as run:
        run.step("s", int)
        assert len(run.ambiguities) == 1


def test_an_interrupted_write_is_looked_for_before_the_next_one(breakable: Breakable, runs: Runs) -> None:
    """As by a task's timeout, which is raised in the middle of whatever goes on."""
    for when in ("before", "after"):
        run = runs.open("a", when)
        run.emit({"n": 1})
        breakable._fails[breakable.appends + 1] = (when, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            run.emit({"n": 2})
        run.fail(TimeoutError("too slow"))
        run.close()
        assert runs.find(when).status == RunStatus.FAILED
        assert runs.find(when).version == (3 if when == "before" else 4)
        assert runs.open("a", when).state == {"n": 1 if when == "before" else 2}


def test_a_run_is_opened_only_if_the_store_is_there(breakable: Breakable, runs: Runs) -> None:
    breakable.lose(1, "before", for_good=True)
    with pytest.raises(AgenticError), runs.open("a", "k") as run:
        run.emit({"n": 1})
    with pytest.raises(StoreUnavailable):
        runs.open("a", "k")
