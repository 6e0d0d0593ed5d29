"""Answers of people: checked, and given once, however many give one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from run_parts import Breakable, Shelf, memory_runs, runs_on

from airflow_agentic.errors import AlreadyAnswered, InvalidAnswer, JournalCorrupt, RunNotFound, RunTaken
from airflow_agentic.persistence import Interrupted, recovery
from airflow_agentic.persistence.records import RecordType

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_agentic.persistence import Runs
    from airflow_agentic.persistence.ports import Hold, Record
    from airflow_agentic.stores import Store

SCHEMA = {
    "type": "object",
    "properties": {"limits": {"type": "array", "items": {"type": "integer"}}},
    "required": ["limits"],
}


class Watched(Breakable):
    """A store of runs that counts what is read, and where others may come first.

    Attributes:
        has_read: How many records were read.
        meanwhile: Called when somebody is about to take a run.
    """

    has_read = 0
    meanwhile: Callable[[], object] | None = None

    def read(self, stream: str, after: int = 0, limit: int = 1000) -> list[Record]:
        found = super().read(stream, after, limit)
        self.has_read += len(found)
        return found

    def hold(self, stream: str, owner: str, lease: timedelta, instead_of: str | None = None) -> Hold:
        others, self.meanwhile = self.meanwhile, None
        if others is not None:
            others()
        return super().hold(stream, owner, lease, instead_of)


@pytest.fixture
def watched(store: Store) -> Watched:
    return Watched(store.run_stores)


@pytest.fixture
def runs(watched: Watched) -> Runs:
    return runs_on(watched.stores)


def ask(runs: Runs, schema: Any = None, *, events: int = 0) -> None:
    with contextlib.suppress(Interrupted), runs.open("a", "k") as run:
        for n in range(events):
            run.emit({"n": n})
        run.interrupt("May I?", schema, name="leave")


def answers(runs: Runs) -> list[Any]:
    return [each.data for each in runs.history("k") if each.type == RecordType.ANSWERED]


def test_one_that_does_not_fit_is_refused_with_the_place_that_is_wrong(runs: Runs) -> None:
    ask(runs, SCHEMA)
    before = runs.find("k")
    with pytest.raises(
        InvalidAnswer, match=r"the answer\['limits'\]\[1\] does not fit .* 'two' is not of type"
    ):
        runs.by_hand.answer("k", "question:leave", {"limits": [1, "two"]}, actor="ann")
    assert runs.find("k") == before
    runs.by_hand.answer("k", "leave", {"limits": [1, 2]}, actor="ann")
    assert answers(runs) == [{"answer": {"limits": [1, 2]}, "actor": "ann"}]


def test_a_second_one_is_refused_and_names_who_answered_and_when(runs: Runs) -> None:
    ask(runs)
    version = runs.by_hand.answer("k", "leave", "yes", actor="ann")
    given_at = runs.history("k")[version - 1].at
    with pytest.raises(AlreadyAnswered, match="ann answered 'question:leave' of run 'k' at 2030-") as caught:
        runs.by_hand.answer("k", "question:leave", "no", actor="bob")
    assert (caught.value.actor, caught.value.at) == ("ann", given_at)
    assert answers(runs) == [{"answer": "yes", "actor": "ann"}]


def test_one_that_comes_after_the_run_went_on_without_is_refused(runs: Runs) -> None:
    ask(runs)
    with runs.open("a", "k") as run:
        run.once(RecordType.ANSWERED, "question:leave", {"answer": None, "actor": "", "late": True})
    with pytest.raises(AlreadyAnswered, match="nobody answered 'question:leave' of run 'k' in time"):
        runs.by_hand.answer("k", "leave", "no", actor="bob")


def test_of_two_that_come_at_the_same_moment_one_counts(watched: Watched, runs: Runs) -> None:
    ask(runs)
    watched.meanwhile = lambda: runs.by_hand.answer("k", "leave", "yes", actor="ann")
    with pytest.raises(AlreadyAnswered, match="ann answered"):
        runs.by_hand.answer("k", "leave", "no", actor="bob")
    assert answers(runs) == [{"answer": "yes", "actor": "ann"}]
    assert runs.find("k").lease_until_ms == 0


def test_somebody_who_answers_at_this_moment_is_waited_for(
    store: Store, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(runs)
    ann = runs_on(store.run_stores, "there:2")
    assert store.run_stores.runs.hold("k", "there:2", timedelta(minutes=1)).taken  # she is about to write
    monkeypatch.setattr(recovery, "sleep", lambda _: ann.by_hand.answer("k", "leave", "yes", actor="ann"))
    with pytest.raises(AlreadyAnswered, match="ann answered"):
        runs.by_hand.answer("k", "leave", "no", actor="bob")
    assert answers(runs) == [{"answer": "yes", "actor": "ann"}]


def test_somebody_who_works_on_the_run_is_not_waited_for_long(
    store: Store, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(runs)
    assert store.run_stores.runs.hold("k", "there:2", timedelta(minutes=1)).taken
    waited: list[float] = []
    monkeypatch.setattr(recovery, "sleep", waited.append)
    with pytest.raises(RunTaken, match="there:2 works on the run"):
        runs.by_hand.answer("k", "leave", "no", actor="bob")
    assert 0 < sum(waited) < 2


def test_what_others_do_to_the_run_at_the_same_moment_hinders_none(watched: Watched, runs: Runs) -> None:
    ask(runs)
    watched.meanwhile = lambda: runs.by_hand.set_state("k", patch={"n": 1}, actor="ann", reason="why not")
    runs.by_hand.answer("k", "leave", "yes", actor="bob")
    assert answers(runs) == [{"answer": "yes", "actor": "bob"}]
    assert runs.verify("k") == []


def test_nobody_waits_for_ever_to_be_the_first(watched: Watched, runs: Runs) -> None:
    ask(runs)
    tries = []

    def others() -> None:
        tries.append(1)
        watched.meanwhile = None
        runs.by_hand.set_state("k", patch={"n": len(tries)}, actor="ann", reason="why not")
        watched.meanwhile = others

    watched.meanwhile = others
    with pytest.raises(RunTaken, match="somebody else writes to the run 'k'"):
        runs.by_hand.answer("k", "leave", "yes", actor="bob")
    assert len(tries) < 50
    assert answers(runs) == []


def test_few_records_are_read_however_long_the_run_is(watched: Watched, runs: Runs) -> None:
    ask(runs, SCHEMA, events=300)
    runs.by_hand.answer("k", "leave", {"limits": []}, actor="ann")
    watched.has_read = 0
    with pytest.raises(AlreadyAnswered):
        runs.by_hand.answer("k", "leave", {"limits": []}, actor="ann")
    assert watched.has_read <= 130


def test_what_is_not_asked_is_refused_with_what_is(runs: Runs) -> None:
    ask(runs)
    with pytest.raises(RunNotFound, match=r"does not ask 'leaf' now\. It asks: leave"):
        runs.by_hand.answer("k", "leaf", "yes", actor="ann")
    runs.by_hand.answer("k", "leave", "yes", actor="ann")
    with pytest.raises(RunNotFound, match="It asks nothing that nobody answered"):
        runs.by_hand.answer("k", "leaf", "yes", actor="ann")


@pytest.mark.parametrize(
    "schema",
    [{"type": "nothing"}, {"$ref": "https://example.com/a.json"}, {"$ref": "#"}, {"pattern": "["}],
)
def test_a_schema_that_is_none_keeps_nobody_from_answering(
    schema: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *address, **_: fetched.append(address))
    runs = memory_runs()
    ask(runs, schema)
    runs.by_hand.answer("k", "leave", "yes", actor="ann")
    assert answers(runs) == [{"answer": "yes", "actor": "ann"}]
    assert "the answer is not checked" in caplog.text
    assert fetched == []


def test_a_large_schema_is_checked_too(store: Store) -> None:
    runs = runs_on(store.run_stores, shelf=Shelf(), inline_bytes=100)
    ask(runs, {"enum": ["x" * 1000]})
    with pytest.raises(InvalidAnswer):
        runs.by_hand.answer("k", "leave", "x", actor="ann")
    runs.by_hand.answer("k", "leave", "x" * 1000, actor="ann")


def test_a_question_that_somebody_changed_is_not_answered() -> None:
    runs = memory_runs()
    ask(runs, SCHEMA)
    streams: Any = runs._stores.journals
    records = streams._streams["k"].records
    from dataclasses import replace

    records[1] = replace(records[1], data=records[1].data.replace(b"integer", b"numbers"))
    with pytest.raises(JournalCorrupt, match="version 2"):
        runs.by_hand.answer("k", "leave", {"limits": []}, actor="ann")


def test_who_asks_nobody_does_not_load_what_checks_answers() -> None:
    code = (
        "import sys, airflow_agentic.persistence.runs, airflow_agentic.stores\n"
        "sys.exit('jsonschema' in sys.modules or 'referencing' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
