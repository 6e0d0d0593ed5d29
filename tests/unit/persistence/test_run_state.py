from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from run_parts import MODES, Breakable, Killed, Shelf, dying, memory_runs, runs_on, types_of

from airflow_agentic.errors import (
    ConfigurationError,
    JournalCorrupt,
    JournalTooNew,
    NotRecordable,
    RunNotFound,
    StateConflict,
    StoreUnavailable,
)
from airflow_agentic.persistence import Runs, StateSchema, merge
from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.stores.memory import MemoryJournals


def test_events_are_merged_into_the_state(runs: Runs) -> None:
    with runs.open("a", "k") as run:
        assert run.state == {}
        run.emit({"open": {"a": 1, "b": 2}, "old": True})
        run.emit({"open": {"a": None}, "old": None})
        assert run.state == {"open": {"b": 2}}
    assert runs.open("a", "k").state == {"open": {"b": 2}}


@pytest.mark.parametrize(
    ("state", "patch", "after"),
    [
        # The examples of RFC 7396, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_is_that_of_json_merge_patch(state: Any, patch: Any, after: Any) -> None:
    assert merge(state, patch) == after


# -- events of a replayed run --------------------------------------------------------------------------


def _work(run: Any) -> None:
    run.emit({"begun": True})
    run.step("one", int)
    run.emit({"one": 1})
    run.emit({"one": 2})
    run.step("two", int)
    run.emit({"two": 2})


def _events(runs: Runs) -> list[Any]:
    return [each.data["event"] for each in runs.history("k") if each.type == "event"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 9))
def test_events_of_a_replayed_run_are_recorded_once(nth: int, when: str) -> None:
    store = Breakable(memory_runs()._stores)
    runs = runs_on(store.stores)
    store.kill(nth, when)
    with pytest.raises(Killed), runs.open("a", "k") as run:
        _work(run)
    store.revive()
    with runs.open("a", "k") as run:
        _work(run)
        assert run.state == {"begun": True, "one": 2, "two": 2}
    assert _events(runs) == [{"begun": True}, {"one": 1}, {"one": 2}, {"two": 2}]


def test_an_event_that_says_something_else_is_new_and_so_is_all_that_comes_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = memory_runs()
    with dying(runs) as run:
        run.emit({"status": "begun", "at": 1})
        run.step("s", int)
        run.emit({"status": "done"})
    with runs.open("a", "k") as run:
        run.emit({"status": "begun", "at": 2})
        run.step("s", int)
        run.emit({"status": "done"})
        assert run.state == {"status": "done", "at": 2}
    assert "says something else than the last time" in caplog.text


def test_an_event_that_the_state_makes_needless_may_be_left_out(runs: Runs) -> None:
    def work(run: Any) -> None:
        if "greeted" not in run.state:
            run.emit({"greeted": True})
        run.emit({"asked": True})
        run.step("s", int)
        run.emit({"told": True})

    with dying(runs) as run:
        work(run)
    with runs.open("a", "k") as run:
        work(run)
    assert _events(runs) == [{"greeted": True}, {"asked": True}, {"told": True}]


@pytest.mark.parametrize(("before", "now"), [(1, True), (1, 1.0), (0, False), ({"2": 1}, {"2": True})])
def test_what_python_takes_for_the_same_is_another_event(before: Any, now: Any) -> None:
    runs = memory_runs()
    for event in (before, now):
        with dying(runs) as run:
            run.emit({"n": event})
    assert len(_events(runs)) == 2


def test_a_key_that_is_a_number_is_the_same_event_again(runs: Runs) -> None:
    for _ in range(2):
        with dying(runs) as run:
            run.emit({1: "one"})
    assert _events(runs) == [{"1": "one"}]


def test_the_events_of_a_finished_run_that_goes_on_are_new(runs: Runs) -> None:
    for _ in range(2):
        with runs.open("a", "k") as run:
            run.emit({"said": "yes"})
    assert len(_events(runs)) == 2
    with dying(runs) as run:
        run.emit({"said": "yes"})
    with runs.open("a", "k") as run:
        run.emit({"said": "yes"})
        assert run.is_replayed
    assert len(_events(runs)) == 3


def test_an_event_with_a_key_is_recorded_once_in_the_run(runs: Runs) -> None:
    for n in range(3):
        with runs.open("a", "k") as run:
            assert run.emit({"n": n}, key="first") == 2
    assert _events(runs) == [{"n": 0}]


@pytest.mark.parametrize("key", ["at:/1", "in:s/1", "x" * 990])
def test_a_key_is_no_place(key: str) -> None:
    runs = memory_runs()
    with dying(runs) as run:
        run.emit({"n": 1})
        run.emit({"n": 2}, key=key)
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
        run.emit({"n": 2}, key=key)
    assert len(_events(runs)) == 2


def test_what_is_emitted_within_a_step_is_known_when_the_step_is_done_again() -> None:
    store = Breakable(memory_runs()._stores)
    runs = runs_on(store.stores)

    def step(run: Any) -> None:
        run.emit({"in": 1})

    def work(run: Any) -> None:
        run.step("s", step, run)
        run.emit({"after": 1})

    store.kill(3, "before")  # the result of the step
    with pytest.raises(Killed), runs.open("a", "k") as run:
        work(run)
    store.revive()
    with runs.open("a", "k") as run:
        work(run)
    assert _events(runs) == [{"in": 1}, {"after": 1}]


@pytest.mark.parametrize(
    ("event", "place"), [({"a": [{1}]}, "['a'][0] is a set"), (float("inf"), "is inf"), ("\udc00", "half a")]
)
def test_an_event_that_is_not_json_is_refused_and_the_place_in_it_named(event: Any, place: str) -> None:
    runs = memory_runs()
    with runs.open("a", "k") as run:
        with pytest.raises(NotRecordable) as caught:
            run.emit(event)
        assert place in str(caught.value)
        assert run.version == 0


def test_an_event_can_expect_the_version_that_was_read(runs: Runs) -> None:
    with runs.open("a", "k") as run:
        version = run.emit({"n": 1})
        with pytest.raises(StateConflict, match=f"has version {version}, not {version - 1}"):
            run.emit({"n": 2}, expected=version - 1)
        assert run.emit({"n": 2}, expected=version) == version + 1
    with runs.open("a", "k") as run:
        assert run.state == {"n": 2}


def test_an_event_that_is_known_expects_nothing() -> None:
    runs = memory_runs()
    with dying(runs) as run:
        run.emit({"n": 1}, expected=0)
        run.emit({"n": 2})
    with runs.open("a", "k") as run:
        assert run.emit({"n": 1}, expected=0) == 2


# -- checkpoints and progress --------------------------------------------------------------------------


def test_a_checkpoint_names_a_moment_and_a_replayed_run_has_its_own(runs: Runs) -> None:
    for _ in range(3):
        with dying(runs) as run:
            versions = []
            for n in range(3):
                run.emit({"n": n})
                versions.append(run.checkpoint("round"))
    assert versions == [3, 5, 7]
    assert runs.at("k", "round").state == {"n": 2}
    with runs.open("a", "k") as run:
        for n in range(4):
            run.emit({"n": n})
            run.checkpoint("round")
    assert runs.at("k", "round").state == {"n": 3}


@pytest.mark.parametrize("name", ["", "  ", None, "x" * 2000, "a\0"])
def test_a_checkpoint_needs_a_name(name: Any) -> None:
    with pytest.raises(NotRecordable), memory_runs().open("a", "k") as run:
        run.checkpoint(name)


def test_a_run_says_how_far_it_is(runs: Runs) -> None:
    run = runs.open("a", "k", correlation="dag/1", task="dag/1/t")
    run.expect(3)
    run.step("one", int)
    head = runs.find("k")
    assert (head.step, head.done, head.total, head.status) == ("one", 1, 3, "running")
    assert (head.correlation, head.task, head.owner) == ("dag/1", "dag/1/t", "here:1")
    with pytest.raises(NotRecordable):
        run.expect(-1)


# -- schemas -------------------------------------------------------------------------------------------


def _count(state: Any, event: Any) -> Any:
    return {**state, event["what"]: state.get(event["what"], 0) + 1}


@pytest.mark.parametrize("mode", MODES)
def test_a_reducer_of_ones_own_comes_to_the_same_state_in_every_mode(mode: str) -> None:
    schema = StateSchema({"begun": 1}, _count)
    runs = memory_runs(persistence=mode, schema=schema)
    for part in range(3):
        run = runs.open("a", "k")
        for n in range(40):
            run.emit({"what": f"w{n % 3}"}, key=f"{part}-{n}")
        state = run.state
        run.close()
        assert runs.open("a", "k").state == state
    assert state == {"begun": 1, "w0": 42, "w1": 39, "w2": 39}
    assert runs.at("k", 11).state == {"begun": 1, "w0": 4, "w1": 3, "w2": 3}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "reduce", [lambda s, e: {**s, e: 1}, lambda s, e: {"seen": (e,)}, lambda s, e: {"seen": {e}}]
)
def test_a_reducer_that_returns_no_plain_json_is_refused_in_every_mode(mode: str, reduce: Any) -> None:
    runs = memory_runs(persistence=mode, schema=StateSchema(reduce=reduce))
    with runs.open("a", "k") as run:
        with pytest.raises(NotRecordable, match="reduce returns"):
            run.emit(7)
        assert run.state == {}
        run.finish()


def _append_in_place(state: Any, event: Any) -> Any:
    state["seen"].append(event)
    return state


@pytest.mark.parametrize("mode", MODES)
def test_a_reducer_that_changes_the_state_in_place_does_no_harm_when_the_store_fails(mode: str) -> None:
    store = Breakable(memory_runs()._stores)
    runs = runs_on(store.stores, persistence=mode, schema=StateSchema({"seen": []}, _append_in_place))
    with runs.open("a", "k") as run:
        run.emit(1)
        store.lose(1, "before", for_good=True)
        with pytest.raises(StoreUnavailable):
            run.emit(2)
        store.revive()
        assert run.state == {"seen": [1]}
        run.emit(3)
        assert run.state == {"seen": [1, 3]}
    assert runs.open("a", "k").state == {"seen": [1, 3]}


_NEW = StateSchema(
    reduce=merge,
    version=2,
    upcast_event={1: lambda event: {"count": event["n"]}},
    upcast_state={1: lambda state: {"count": state["n"]} if state else {}},
)


@pytest.mark.parametrize("mode", MODES)
def test_events_and_states_of_an_older_schema_are_lifted(mode: str) -> None:
    runs = memory_runs(persistence=mode)
    with dying(runs) as run:
        run.emit({"n": 1})
        run.checkpoint("one")
        run.emit({"n": 2})
    newer = Runs(runs._stores, runs._facilities, runs.options)
    with newer.open("a", "k", schema=_NEW) as run:
        assert run.state == {"count": 2}
        run.emit({"count": 1})  # the same as before, in the new words
        assert run.version == 4
        run.checkpoint("one")
        run.emit({"count": 3})
    assert newer.at("k", 2, _NEW).state == {"count": 1}
    assert newer.open("a", "k", schema=_NEW).state == {"count": 3}
    with pytest.raises(JournalTooNew, match="schema version 2"):
        runs.open("a", "k")


def test_without_a_lift_for_states_the_state_is_made_of_the_events() -> None:
    runs = memory_runs(persistence="snapshot")
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
    schema = StateSchema(version=2, upcast_event=_NEW.upcast_event)
    assert runs.open("a", "k", schema=schema).state == {"count": 1}


def test_a_schema_that_cannot_lift_says_what_to_give() -> None:
    runs = memory_runs(persistence="events")
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
    with pytest.raises(ConfigurationError, match=r"upcast_event=\{1: …\}"):
        runs.open("a", "k", schema=StateSchema(version=2))


# -- large data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_large_data_lies_elsewhere(mode: str) -> None:
    shelf = Shelf()
    runs = memory_runs(shelf=shelf, persistence=mode, inline_bytes=100)
    with dying(runs) as run:
        run.emit({"text": "x" * 1000})
        run.checkpoint("c")
        assert run.step("s", lambda: "y" * 1000) == "y" * 1000
    assert shelf.contents
    assert all(len(record.data) < 400 for record in runs._stores.journals.read("k"))
    with runs.open("a", "k") as run:
        assert run.state == {"text": "x" * 1000}
        run.emit({"text": "x" * 1000})
        assert run.version == 5


def test_a_snapshot_whose_data_is_gone_is_made_again_of_the_events(caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf()
    runs = memory_runs(shelf=shelf, persistence="snapshot", inline_bytes=100)
    with runs.open("a", "k") as run:
        for n in range(3):
            run.emit({f"n{n}": "x" * 60})
    before = runs.open("a", "k").state
    shelf.contents.clear()
    assert runs.open("a", "k").state == before
    assert runs.at("k", 4).state == before
    assert "cannot be read, and the state is made again" in caplog.text


def test_an_event_whose_data_was_changed_or_is_gone_is_named() -> None:
    shelf = Shelf()
    runs = memory_runs(shelf=shelf, inline_bytes=100)
    with runs.open("a", "k") as run:
        run.emit({"n": "x" * 200})
    [where] = shelf.contents
    shelf.contents[where] = b"{}"
    with pytest.raises(NotRecordable, match="is not what was kept there"):
        runs.open("a", "k")
    shelf.contents.clear()
    with pytest.raises(NotRecordable, match="is gone"):
        runs.open("a", "k")
    without = runs_on(runs._stores)
    with pytest.raises(NotRecordable, match="claim_check_path"):
        without.open("a", "k")


def test_what_is_over_the_limit_is_refused() -> None:
    runs = memory_runs(limit_bytes=1000, persistence="snapshot")
    with runs.open("a", "k") as run:
        with pytest.raises(NotRecordable, match="at most 1,000 are kept"):
            run.emit({"text": "x" * 1000})
        run.emit({"a": "x" * 600})
        with pytest.raises(NotRecordable, match="state has"):
            run.emit({"b": "x" * 600})
        assert run.state == {"a": "x" * 600}
    assert runs.verify("k") == []


# -- modes, and what they forget -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_run_is_kept_as_it_began_whatever_is_said_later(mode: str) -> None:
    runs = memory_runs(persistence=mode)
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
    with runs.open("a", "k", persistence="events") as run:
        run.emit({"n": 2})
    has_snapshot = runs._stores.journals.latest_snapshot("k") is not None
    assert has_snapshot == (mode in ("snapshot", "checkpoint"))
    assert runs.find("k").mode == mode


def test_there_is_no_such_persistence() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'hybrid'"):
        memory_runs().open("a", "k", persistence="hybird")


@pytest.mark.parametrize("mode", MODES)
def test_what_was_forgotten_is_said_and_what_is_kept_is_as_it_was(mode: str, runs: Runs) -> None:
    with runs.open("a", "k", persistence=mode) as run:
        run.emit({"n": 1})
        run.checkpoint("one")
        run.step("s", int)
        run.emit({"n": 2}, key="two")
        run.finish({"done": True})
    forgotten = runs.prune("k")
    assert forgotten == (7 if mode in ("snapshot", "checkpoint") else 0)
    assert runs.verify("k") == []
    assert runs.at("k", "one").state == {"n": 1}
    assert runs.at("k", 7).state == {"n": 2}
    assert runs.at("k", 7).steps == ("s",)
    if forgotten:
        with pytest.raises(RunNotFound, match="it can be had from version 7 on"):
            runs.at("k", 5)
        with pytest.raises(RunNotFound, match="cannot be copied"):
            runs.by_hand.fork("k", at=7)
        assert runs.prune("k") == 0
    with runs.open("a", "k") as run:
        assert run.state == {"n": 2}
        assert run.result == {"done": True}
        run.emit({"n": 9}, key="two")
        run.emit({"m": 3})
        assert run.state == {"n": 2, "m": 3}
        run.step("new", int)
    assert runs.find("k").done == 2
    assert runs.open("a", "k").state == {"n": 2, "m": 3}
    assert runs.verify("k") == []
    assert runs.prune("k") == (5 if forgotten else 0)
    assert runs.verify("k") == []
    assert runs.at("k", "one").state == {"n": 1}


def test_a_run_that_is_not_finished_forgets_nothing() -> None:
    runs = memory_runs(persistence="snapshot")
    with dying(runs) as run:
        run.emit({"n": 1})
    assert runs.prune("k") == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_record_that_was_not_forgotten_but_is_missing_is_damage(mode: str, version: int) -> None:
    journals = MemoryJournals()
    runs = runs_on(RunStores(journals, journals), persistence=mode)
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
    del journals._streams["k"].records[version - 1]
    with pytest.raises(JournalCorrupt, match=f"version {version}"):
        runs.open("a", "k")
    assert runs.find("k").status == "quarantined"
    with pytest.raises(JournalCorrupt, match="in quarantine"):
        runs.open("a", "k")


def test_times_find_moments(runs: Runs) -> None:
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
    now = runs.find("k").updated_at_ms
    at = datetime.fromtimestamp(now / 1000, UTC)
    assert runs.at("k", at).version == 3
    with pytest.raises(RunNotFound, match="began after"):
        runs.at("k", at - timedelta(days=1))
    with pytest.raises(RunNotFound, match="no zone"):
        runs.at("k", datetime(2030, 1, 1))  # noqa: DTZ001  # that is what is refused
    for when in (0, 4, True, "no such", 1.5):
        with pytest.raises(RunNotFound):
            runs.at("k", when)  # type: ignore[arg-type]
    assert types_of(runs, "k") == ["run.started", "event", "run.finished"]
