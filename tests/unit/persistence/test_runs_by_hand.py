from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from run_parts import MODES, Breakable, Effects, Killed, Shelf, dying, memory_runs, runs_on, types_of

from airflow_agentic.errors import (
    ConfigurationError,
    JournalCorrupt,
    JournalTooNew,
    NotRecordable,
    RunNotFound,
    RunTaken,
)
from airflow_agentic.persistence import (
    Interrupted,
    RunQuery,
    RunStatus,
    StateSchema,
    beginnings,
    restoring,
    session,
)
from airflow_agentic.persistence.journal import Draft, Journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_agentic.persistence import Runs

WHO: dict[str, Any] = {"actor": "ann", "reason": "it was wrong"}


def _made(runs: Runs, mode: str = "hybrid") -> Effects:
    effects = Effects()
    with dying(runs, "k", persistence=mode) as run:
        run.step("one", effects.do, "one", 1)
        run.emit({"one": 1})
        run.checkpoint("half")
        run.step("two", effects.do, "two", 2)
        run.emit({"two": 2})
    return effects


@pytest.mark.parametrize("mode", MODES)
def test_a_fork_begins_at_a_past_moment_and_leaves_the_other_run_as_it_is(runs: Runs, mode: str) -> None:
    effects = _made(runs, mode)
    before = runs.history("k")
    name = runs.by_hand.fork("k", at="half", **WHO)
    assert name == "k~fork-5"
    assert runs.history("k") == before
    assert (runs.find(name).status, runs.find(name).mode, runs.find(name).done) == ("failed", mode, 1)
    with runs.open("a", name) as run:
        assert run.is_replayed
        assert run.state == {"one": 1}
        assert run.step("one", effects.do, "one", 1) == 1
        run.emit({"one": 1})
        run.checkpoint("half")
        assert run.version == 6
        assert run.step("two", effects.do, "two", 2) == 2
        run.emit({"two": 3})
    assert effects.counts == {"one": 1, "two": 2}
    assert runs.at(name, runs.find(name).version).state == {"one": 1, "two": 3}
    assert runs.verify(name) == [] == runs.verify("k")
    [said] = [each.data for each in runs.history(name) if each.type == "run.intervened"]
    assert (said["what"], said["from"], said["version"], said["actor"]) == ("forked", "k", 5, "ann")


def test_forks_have_names_of_their_own(runs: Runs) -> None:
    _made(runs)
    assert [runs.by_hand.fork("k", at=2) for _ in range(3)] == ["k~fork-2", "k~fork-2-2", "k~fork-2-3"]
    assert runs.by_hand.fork("k", to="mine") == "mine"
    with pytest.raises(ConfigurationError, match="there is a run 'mine' already"):
        runs.by_hand.fork("k", to="mine")
    for key in ("a\0", "", "x" * 501, "\ud800", 7):
        with pytest.raises(ConfigurationError, match="the key of a run"):
            runs.by_hand.fork("k", to=key)  # type: ignore[arg-type]
    with pytest.raises(RunNotFound, match="no run 'other'"):
        runs.by_hand.fork("other")
    with runs.open("a", "x" * 500) as run:
        run.emit(1)
    assert len(runs.by_hand.fork("x" * 500)) <= 500


def test_a_fork_can_begin_with_another_state(runs: Runs) -> None:
    _made(runs)
    name = runs.by_hand.fork("k", at=4, patch={"one": None, "two": 22}, **WHO)
    assert runs.open("a", name).state == {"two": 22}


def test_a_fork_that_dies_leaves_no_half_of_a_run(breakable: Breakable, runs: Runs) -> None:
    with runs.open("a", "k") as run:
        for n in range(300):
            run.emit({"n": n})
    breakable.kill(1, "before")
    with pytest.raises(Killed):
        runs.by_hand.fork("k")
    breakable.revive()
    assert [head.stream for head in runs.find_all()] == ["k"]
    name = runs.by_hand.fork("k")
    assert runs.find(name).version == 303
    assert runs.open("a", name).state == {"n": 299}


def test_an_ambiguous_step_is_ambiguous_in_a_fork_too(breakable: Breakable, runs: Runs) -> None:
    effects = Effects()
    breakable.kill(2, "before")
    with pytest.raises(Killed), runs.open("a", "k") as run:
        run.step("s", effects.do, "s")
    breakable.revive()
    name = runs.by_hand.fork("k")
    with runs.open("a", name) as run:
        run.step("s", effects.do, "s")
        assert len(run.ambiguities) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_person_changes_the_state_and_says_why(runs: Runs, mode: str) -> None:
    _made(runs, mode)
    runs.by_hand.set_state("k", patch={"one": None, "three": 3}, **WHO)
    assert runs.open("a", "k").state == {"two": 2, "three": 3}
    version = runs.by_hand.set_state("k", state=[1], force=True, **WHO)
    assert runs.at("k", version).state == [1]
    assert runs.at("k", version - 1).state == {"two": 2, "three": 3}
    said = runs.history("k")[-1].data
    assert said == {"actor": "ann", "reason": "it was wrong", "state": [1]}
    with runs.open("a", "k") as run:
        assert run.state == [1]


def test_a_patch_is_merged_into_the_state_of_a_reducer_of_ones_own() -> None:
    schema = StateSchema({"n": 0}, lambda state, event: {"n": state["n"] + event})
    runs = memory_runs(schema=schema)
    with runs.open("a", "k") as run:
        run.emit(2)
        run.emit(3)
    runs_on(runs._stores).by_hand.set_state("k", patch={"note": "x"}, **WHO)
    assert runs.open("a", "k").state == {"n": 5, "note": "x"}


@pytest.mark.parametrize(
    "arguments", [{}, {"patch": 1, "state": 1}, {"patch": 1, "actor": ""}, {"patch": 1, "reason": " "}]
)
def test_who_changes_the_state_says_what_and_why(arguments: dict[str, Any]) -> None:
    runs = memory_runs()
    _made(runs)
    with pytest.raises(ConfigurationError):
        runs.by_hand.set_state("k", **{**WHO, **arguments})
    with pytest.raises(NotRecordable, match="is a set"):
        runs.by_hand.set_state("k", patch={1}, **WHO)


def test_a_large_result_by_hand_lies_elsewhere_too() -> None:
    shelf = Shelf()
    runs = memory_runs(shelf=shelf, inline_bytes=100)
    _made(runs)
    runs.by_hand.skip_step("k", "three", result="x" * 1000, **WHO)
    assert any(b"xxx" in content for content in shelf.contents.values())
    with runs.open("a", "k") as run:
        assert run.step("three", int) == "x" * 1000


def test_nobody_changes_a_run_that_somebody_works_on_unless_by_force(
    runs: Runs, breakable: Breakable
) -> None:
    run = runs.open("a", "k")
    run.emit({"n": 1})
    other = runs_on(breakable.stores, "there:2")
    with pytest.raises(RunTaken, match="here:1 works on the run") as caught:
        other.by_hand.set_state("k", patch={"n": 2}, **WHO)
    assert (caught.value.key, caught.value.owner) == ("k", "here:1")
    assert caught.value.retry_at is not None
    other.by_hand.set_state("k", patch={"n": 2}, force=True, **WHO)
    with pytest.raises(RunTaken):
        run.emit({"n": 3})
    run.close()
    assert runs.open("a", "k").state == {"n": 2}


def test_somebody_who_is_known_to_be_gone_keeps_nobody_from_it(breakable: Breakable) -> None:
    runs = runs_on(breakable.stores, "there:2")
    runs.open("a", "k").emit({"n": 1})
    other = runs_on(breakable.stores, "here:1", gone="there:2")
    other.by_hand.set_state("k", patch={"n": 2}, **WHO)
    assert other.open("a", "k").state == {"n": 2}


def test_a_quarantine_ends_when_its_cause_is_mended() -> None:
    runs = memory_runs()
    _made(runs)
    streams: Any = runs._stores.journals
    records = streams._streams["k"].records
    whole, records[3] = records[3], records[4]
    with pytest.raises(JournalCorrupt, match="version"):
        runs.open("a", "k")
    assert runs.find("k").status == RunStatus.QUARANTINED
    with pytest.raises(JournalCorrupt):
        runs.by_hand.release("k", **WHO)
    with pytest.raises(JournalCorrupt, match="in quarantine"):
        runs.open("a", "k")
    assert runs.by_hand.fork("k", at=3) == "k~fork-3"
    records[3] = whole
    runs.by_hand.release("k", **WHO)
    with runs.open("a", "k") as run:
        assert run.state == {"one": 1, "two": 2}


def _quarantined(runs: Runs, *, finished: bool = False) -> Callable[[], None]:
    """Damage a run, so that it is in quarantine; return what mends it."""
    with contextlib.suppress(Interrupted, Killed), runs.open("a", "k") as run:
        run.step("one", str)
        run.emit({"one": 1})
        if not finished:
            with contextlib.suppress(Interrupted):
                run.interrupt("May I?", name="leave")
            run.step("pay", _die, on_ambiguous="ask")
    streams: Any = runs._stores.journals
    records = streams._streams["k"].records
    whole, records[2] = records[2], replace(records[2], data=b"{}")
    with pytest.raises(JournalCorrupt):
        runs.open("a", "k")
    assert runs.find("k").status == RunStatus.QUARANTINED

    def mend() -> None:
        records[2] = whole

    return mend


def _die() -> None:
    raise Killed


INTERVENTIONS: dict[str, Callable[[Runs], object]] = {
    "skip": lambda runs: runs.by_hand.skip_step("k", "pay", **WHO),
    "retry": lambda runs: runs.by_hand.retry_step("k", "pay", **WHO),
    "set": lambda runs: runs.by_hand.set_state("k", patch={"n": 1}, force=True, **WHO),
    "answer": lambda runs: runs.by_hand.answer("k", "leave", "yes", actor="ann"),
}


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_a_run_in_quarantine_is_not_changed_and_whoever_tries_is_told_the_ways_out(name: str) -> None:
    runs = memory_runs()
    mend = _quarantined(runs)
    before = (runs.find("k"), runs.history("k"))
    with pytest.raises(JournalCorrupt, match=r"in quarantine.* `airflow agentic runs resume k .*runs fork k"):
        INTERVENTIONS[name](runs)
    assert (runs.find("k"), runs.history("k")) == before
    fork = runs.by_hand.fork("k", at=1, **WHO)
    runs.by_hand.set_state(fork, patch={"n": 1}, **WHO)
    mend()
    runs.by_hand.release("k", **WHO)
    INTERVENTIONS[name](runs)
    assert runs.verify("k") == []


def test_one_that_had_ended_has_ended_again_after_its_quarantine() -> None:
    runs = memory_runs()
    mend = _quarantined(runs, finished=True)
    mend()
    runs.by_hand.release("k", **WHO)
    assert runs.find("k").status == RunStatus.FINISHED
    assert runs.open("a", "k").was_finished


def test_damage_that_is_found_in_the_middle_of_the_work_leaves_the_run_in_quarantine() -> None:
    runs = memory_runs()
    with dying(runs) as run:
        for n in range(100):
            run.step(f"s{n}", str, "x" * 300)
            run.emit({"n": n})
    streams: Any = runs._stores.journals
    records = streams._streams["k"].records
    records[2] = replace(records[2], data=records[2].data.replace(b"xxx", b"xyx"))
    with pytest.raises(JournalCorrupt) as caught, runs.open("a", "k") as run:
        run.step("s0", str, "x" * 300)
    assert (caught.value.stream, caught.value.version) == ("k", 3)
    head = runs.find("k")
    assert (head.status, head.lease_until_ms) == (RunStatus.QUARANTINED, 0)
    assert types_of(runs, "k")[-1] == "event"


def test_runs_are_found_by_what_is_said_of_them(runs: Runs) -> None:
    for n, agent in enumerate(("a", "b", "a")):
        with runs.open(agent, f"k{n}", correlation=f"dag/{n % 2}") as run:
            run.emit(n)
    assert {head.stream for head in runs.find_all(RunQuery(agent="a"))} == {"k0", "k2"}
    assert {head.stream for head in runs.find_all(RunQuery(correlation="dag/1"))} == {"k1"}
    assert runs.find_all(RunQuery(statuses=(RunStatus.FAILED,))) == []
    assert runs.forget("k0")
    assert not runs.forget("k0")
    for call in (runs.find, runs.history, runs.verify, runs.prune, lambda key: runs.at(key, 1)):
        with pytest.raises(RunNotFound):
            call("k0")


def test_a_run_belongs_to_its_agent(runs: Runs) -> None:
    with runs.open("a", "k") as run:
        run.emit(1)
    with pytest.raises(ConfigurationError, match="belongs to the agent 'a'"):
        runs.open("b", "k")
    assert runs.find("k").lease_until_ms == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("before", [True, False])
def test_a_run_with_records_of_a_newer_format_is_left_to_the_version_that_wrote_them(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, mode: str, *, before: bool
) -> None:
    if before:
        _made(runs, mode)
    with monkeypatch.context() as newer:
        for module in (beginnings, session, restoring):
            newer.setattr(module, "FORMAT", 2)
        with dying(runs, "k", persistence=mode) as run:
            run.emit({"three": 3})
    events = runs.history("k")
    with pytest.raises(
        JournalTooNew, match=r"'k' has records of format 2, and this version .* knows up to 1"
    ):
        runs.open("a", "k", persistence=mode)
    assert runs.find("k").lease_until_ms == 0
    with pytest.raises(JournalTooNew):
        runs.by_hand.set_state("k", patch={}, **WHO)
    assert runs.history("k") == events
    runs.by_hand.release("k", **WHO)
    if before:
        assert runs.open("a", runs.by_hand.fork("k", at=4)).state == {"one": 1}


def test_a_snapshot_of_a_newer_format_is_enough_to_say_so(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the newer session wrote first lies before the snapshot, and is not read again."""
    with monkeypatch.context() as newer:
        newer.setattr(session, "FORMAT", 2)
        _made(runs, "snapshot")
    with pytest.raises(JournalTooNew, match="format 2"):
        runs.open("a", "k")


def test_a_journal_of_a_newer_version_is_left_to_it(runs: Runs) -> None:
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
    hold = runs._stores.runs.hold("k", "here:1", timedelta(seconds=9))
    assert hold.head is not None
    Journal(runs._stores, hold.head, hold.now_ms, timedelta(seconds=9)).write(
        [Draft("step.dreamt", "s", b"{}")]
    )
    with pytest.raises(JournalTooNew, match=r"'step\.dreamt' at version 4"):
        runs.open("a", "k")
    assert runs.find("k").lease_until_ms == 0
    assert runs.history("k")[-1].type == "step.dreamt"
    assert runs.at("k", 4).state == {"n": 1}
    assert runs.verify("k") == []
