"""What is forgotten is gone with its large data, wherever that lies; and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from run_parts import Shelf, dying, runs_on

from airflow_agentic.errors import NotRecordable, RunTaken, StoreUnavailable
from airflow_agentic.persistence import RunOptions
from airflow_agentic.stores import open_store

if TYPE_CHECKING:
    from airflow_agentic.persistence import Runs
    from airflow_agentic.stores import Store

LARGE = "x" * 1_000


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def runs(store: Store, shelf: Shelf) -> Runs:
    return runs_on(store.run_stores, shelf=shelf, inline_bytes=100)


def work(runs: Runs, key: str = "k", mode: str = "hybrid", **options: Any) -> None:
    with runs.open("a", key, persistence=mode, **options) as run:
        run.step("read", str, LARGE)
        run.emit({"text": LARGE + "1"})
        run.checkpoint("half")
        run.emit({"text": LARGE + "2", "more": 1})


@pytest.mark.parametrize("mode", ["hybrid", "snapshot", "checkpoint"])
def test_a_run_that_is_forgotten_leaves_nothing_and_others_keep_the_same_data(
    runs: Runs, shelf: Shelf, mode: str
) -> None:
    work(runs, "other", mode)
    others = dict(shelf.contents)
    work(runs, "k", mode)
    kept = {place for place in shelf.contents if place not in others}
    assert len(kept) >= 3
    assert runs.forget("k")
    left = set(shelf.contents) & kept
    # A snapshot whose place a newer one took is known to nobody any more.
    assert not left if mode != "snapshot" else len(left) == 1
    assert {place: content for place, content in shelf.contents.items() if place in others} == others
    assert runs.open("a", "other").state["text"] == LARGE + "2"


@pytest.mark.parametrize("mode", ["snapshot", "checkpoint"])
def test_what_is_pruned_takes_the_data_along_that_nothing_else_needs(
    runs: Runs, shelf: Shelf, mode: str
) -> None:
    work(runs, "k", mode)
    before = len(shelf.contents)
    assert runs.prune("k") > 0
    assert len(shelf.contents) < before
    assert runs.at("k", "half").state == {"text": LARGE + "1"}
    assert runs.verify("k") == []
    with runs.open("a", "k") as run:
        assert run.state == {"text": LARGE + "2", "more": 1}
    assert runs.find("k").lease_until_ms == 0
    assert runs.forget("k")


def test_a_fork_has_data_of_its_own(runs: Runs, shelf: Shelf) -> None:
    work(runs)
    fork = runs.by_hand.fork("k", at="half")
    assert runs.forget("k")
    with runs.open("a", fork) as run:
        assert run.step("read", str, LARGE) == LARGE
        assert run.state == {"text": LARGE + "1"}
    assert runs.forget(fork)
    assert shelf.contents == {}


def test_a_run_whose_data_is_gone_can_be_forked_all_the_same(runs: Runs, shelf: Shelf) -> None:
    work(runs)
    shelf.contents.clear()
    fork = runs.by_hand.fork("k", at=3)
    with pytest.raises(NotRecordable, match="is gone"), dying(runs, fork) as run:
        run.step("read", str, LARGE)


def test_while_its_data_cannot_be_removed_the_run_is_still_there(runs: Runs, shelf: Shelf) -> None:
    work(runs)
    shelf.is_away = True
    with pytest.raises(StoreUnavailable):
        runs.forget("k")
    assert runs.find("k").lease_until_ms == 0
    shelf.is_away = False
    assert runs.forget("k")
    assert shelf.contents == {}


def test_whoever_works_on_a_run_that_is_forgotten_keeps_nothing_more(store: Store, shelf: Shelf) -> None:
    worker = runs_on(store.run_stores, "there:2", shelf=shelf, inline_bytes=100)
    runs = runs_on(store.run_stores, "here:1", shelf=shelf, inline_bytes=100)
    run = worker.open("a", "k")
    run.emit({"text": LARGE})
    assert runs.forget("k")
    assert shelf.contents == {}
    with pytest.raises(RunTaken):
        run.emit({"text": "y"})
    assert runs.known("k") is None


def test_a_run_that_somebody_went_on_with_is_not_pruned(store: Store, shelf: Shelf) -> None:
    runs = runs_on(store.run_stores, "here:1", shelf=shelf, inline_bytes=100)
    work(runs, mode="snapshot")
    worker = runs_on(store.run_stores, "there:2", shelf=shelf, inline_bytes=100)
    with worker.open("a", "k"):
        assert runs.prune("k") == 0
    assert runs.prune("k") > 0


def test_damaged_records_are_forgotten_as_well(shelf: Shelf) -> None:
    with open_store("memory://") as store:
        runs = runs_on(store.run_stores, shelf=shelf, inline_bytes=100)
        work(runs)
        streams: Any = store.run_stores.journals
        records = streams._streams["k"].records
        for n, data in enumerate((b'{"claim":', b'{"claim":7}', b'{"claim":{"where":"shelf/other"}}')):
            records[n] = replace(records[n], data=data)
        shelf.contents["shelf/other"] = b"of somebody else"
        assert runs.forget("k")
        assert "shelf/other" in shelf.contents


def test_a_store_with_a_place_for_large_data_removes_it_there() -> None:
    shelf = Shelf()
    with open_store("memory://", blobs=shelf) as store:
        runs = store.runs_with(RunOptions(inline_bytes=100))
        work(runs)
        assert shelf.contents
        assert runs.forget("k")
    assert shelf.contents == {}
