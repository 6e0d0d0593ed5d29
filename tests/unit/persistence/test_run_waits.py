from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from run_parts import Effects, dying, memory_runs, types_of

from airflow_agentic.errors import ConfigurationError, NotRecordable, RunNotFound
from airflow_agentic.persistence import AwaitingMessage, Interrupted, RunStatus, RunSuspended, Sleeping
from airflow_agentic.persistence.records import RecordType

if TYPE_CHECKING:
    from airflow_agentic.persistence import Runs
    from airflow_agentic.testing import FakeClock


def test_a_run_asks_a_person_and_goes_on_with_the_answer(runs: Runs) -> None:
    effects = Effects()

    def work(run: Any) -> Any:
        run.step("before", effects.do, "before")
        run.emit({"asked": True})
        answer = run.interrupt("May I?", {"type": "boolean"}, name="leave")
        run.emit({"answer": answer})
        run.step("after", effects.do, "after")
        return run.interrupt("And now?", name="leave")

    for _ in range(2):  # a second look changes nothing
        with pytest.raises(Interrupted) as caught, runs.open("a", "k") as run:
            work(run)
        assert (caught.value.key, caught.value.name) == ("k", "question:leave")
        assert (caught.value.question, caught.value.schema) == ("May I?", {"type": "boolean"})
        head = runs.find("k")
        assert (head.status, head.waiting, head.lease_until_ms) == ("waiting", "a person: May I?", 0)
        assert head.version == 5
    runs.by_hand.answer("k", "question:leave", answer=True, actor="ann")
    assert runs.find("k").waiting == ""
    with pytest.raises(Interrupted) as caught, runs.open("a", "k") as run:
        work(run)
    assert caught.value.name == "question:leave#2"
    runs.by_hand.answer("k", "question:leave#2", answer="go", actor="ann")
    with runs.open("a", "k") as run:
        assert work(run) == "go"
        assert run.state == {"asked": True, "answer": True}
    assert effects.counts == {"before": 1, "after": 1}
    assert types_of(runs, "k").count("event") == 2
    assert runs.find("k").status == RunStatus.FINISHED
    with pytest.raises(RunNotFound, match="does not ask"):
        runs.by_hand.answer("k", "question:other", answer=1, actor="ann")


def test_a_run_sleeps_without_being_held_and_wakes_at_the_first_time_it_said(
    runs: Runs, clock: FakeClock
) -> None:
    moments = [clock() + timedelta(hours=1), clock() + timedelta(hours=9)]
    for moment in (*moments, moments[1]):
        with pytest.raises(Sleeping) as caught, runs.open("a", "k") as run:
            run.sleep_until(moment)
        assert caught.value.until == moments[0]
        head = runs.find("k")
        assert (head.status, head.waiting) == ("waiting", "until 2030-01-01 01:00:00 UTC")
        assert (head.version, head.lease_until_ms) == (2, 0)
    clock.advance(timedelta(hours=1))
    with runs.open("a", "k") as run:
        run.sleep_until(moments[1])
        run.sleep_until(clock())
        assert run.head.status == RunStatus.RUNNING
    assert runs.find("k").status == RunStatus.FINISHED


def test_a_run_that_goes_on_after_waiting_is_at_work_again(runs: Runs, clock: FakeClock) -> None:
    with pytest.raises(Sleeping), runs.open("a", "k") as run:
        run.sleep_until(clock() + timedelta(hours=1))
    clock.advance(timedelta(hours=2))
    run = runs.open("a", "k")
    run.sleep_until(clock())
    run.emit({"n": 1})
    head = runs.find("k")
    assert (head.status, head.waiting) == ("running", "")
    assert head.lease_until_ms > 0


def test_work_before_the_same_wait_makes_it_wait_again(runs: Runs, clock: FakeClock) -> None:
    until = clock() + timedelta(hours=1)
    for n in range(2):
        with runs.open("a", "k") as run:
            run.emit({"try": n})
            with pytest.raises(Sleeping) as caught:
                run.sleep_until(until)
            run.pause(str(caught.value))
        assert runs.find("k").status == RunStatus.WAITING
    assert runs.open("a", "k").state == {"try": 1}


@pytest.mark.parametrize("moment", [datetime(2030, 1, 1), "tomorrow", None])  # noqa: DTZ001  # refused for that
def test_a_time_without_a_zone_is_refused(moment: Any) -> None:
    with memory_runs().open("a", "k") as run:
        with pytest.raises(NotRecordable, match="is no time with a zone"):
            run.sleep_until(moment)
        if moment is not None:
            with pytest.raises((NotRecordable, AttributeError)):
                run.interrupt("May I?", deadline=moment)


def test_a_question_that_not_every_store_keeps_in_a_head_is_asked_all_the_same(runs: Runs) -> None:
    with pytest.raises(Interrupted), runs.open("a", "k") as run:
        run.interrupt("May\0 I? " + "x" * 1000)
    assert runs.find("k").waiting.startswith("a person: May\\0 I?")


DETAILS = "- [log](http://airflow/log)\n\n```text\nKeyError: 'amount'\n```"


def test_a_question_has_details_and_those_of_the_first_time_count(runs: Runs) -> None:
    for question, details in (("May I?", DETAILS), ("Or not?", ""), ("Or what?", "other lines")):
        with pytest.raises(Interrupted) as caught, runs.open("a", "k") as run:
            run.interrupt(question, {"type": "boolean"}, details=details)
        asked = caught.value
        assert (asked.question, asked.schema, asked.details) == ("May I?", {"type": "boolean"}, DETAILS)
    [question] = runs.views.of("k", datetime.now(UTC)).questions
    assert question.details == DETAILS
    runs.by_hand.answer("k", "question", answer=True, actor="ann")
    with runs.open("a", "k") as run:
        # Of what has an answer nothing is refused any more.
        assert run.interrupt("May I?", {"type": "boolean"}, details="x" * 10_001) is True


def test_a_question_without_details_is_recorded_as_ever(runs: Runs) -> None:
    with pytest.raises(Interrupted) as caught, runs.open("a", "k") as run:
        run.interrupt("May I?")
    assert caught.value.details == ""
    [asked] = [each for each in runs.history("k") if each.type == RecordType.ASKED]
    assert asked.data == {"question": "May I?", "schema": None, "deadline": None}
    # So it is read as those of older versions are, which knew of none.
    with pytest.raises(Interrupted) as caught, runs.open("a", "k") as run:
        run.interrupt("May I?", details="new")
    assert caught.value.details == ""
    assert runs.views.of("k", datetime.now(UTC)).questions[0].details == ""


@pytest.mark.parametrize(
    ("details", "why"),
    [
        (None, "are a text .Markdown., and not a NoneType"),
        (["line"], "and not a list"),
        (b"line", "and not a bytes"),
        ("x" * 10_001, "have 10,001 characters, and at most 10,000 are kept"),
        ("\ud800", "has half a surrogate pair"),
    ],
    ids=["none", "lines", "bytes", "long", "half"],
)
def test_details_that_cannot_be_kept_whole_are_refused_and_nothing_is_asked(
    runs: Runs, details: Any, why: str
) -> None:
    with dying(runs) as run, pytest.raises(NotRecordable, match=why):
        run.interrupt("May I?", details=details)
    assert runs.known("k") is None
    with pytest.raises(Interrupted) as caught, runs.open("a", "k") as run:
        run.interrupt("May I?", details="x" * 10_000)
    assert len(caught.value.details) == 10_000


def test_what_is_said_once_is_said_once(runs: Runs) -> None:
    for n in range(2):
        with dying(runs) as run:
            assert run.once(RecordType.RECEIVED, "message:in", {"n": n}) == {"n": 0}
            assert run.recalled(RecordType.RECEIVED, "message:in") == {"n": 0}
            assert run.recalled(RecordType.RECEIVED, "message:other") is None
    assert types_of(runs, "k") == ["run.started", "message.received"]


def test_whatever_suspends_a_run_lets_it_wait(runs: Runs) -> None:
    awaited = AwaitingMessage("k", "message:in", "in", None)
    with contextlib.suppress(AwaitingMessage), runs.open("a", "k") as run:
        run.step("s", int)
        raise awaited
    head = runs.find("k")
    assert (head.status, head.waiting) == ("waiting", "the run 'k' waits for a message in 'in'")
    run = runs.open("a", "k")
    run.pause("better times")
    run.close()
    assert runs.find("k").waiting == "the run 'k' waits for a message in 'in'"
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
        run.pause("better times")
    assert (runs.find("k").status, runs.find("k").waiting) == ("waiting", "better times")


def test_a_step_that_is_suspended_says_to_wait_between_steps() -> None:
    def wait() -> None:
        raise RunSuspended("waits", "k", "x")

    with (
        pytest.raises(ConfigurationError, match="wait between steps"),
        memory_runs().open("a", "k") as run,
    ):
        run.step("s", wait)


def test_names_of_waits_are_counted_anew_each_time_the_code_runs(runs: Runs) -> None:
    until = datetime(2000, 1, 1, tzinfo=UTC)
    for _ in range(2):
        with dying(runs) as run:
            for _ in range(3):
                run.sleep_until(until)
    names = [each.name for each in runs.history("k")]
    assert names == ["run", "sleep:sleep", "sleep:sleep#2", "sleep:sleep#3"]


# -- ends ----------------------------------------------------------------------------------------------


def test_a_finished_run_has_its_result_and_is_not_written_to_again_for_nothing(runs: Runs) -> None:
    for _ in range(2):
        with runs.open("a", "k") as run:
            run.step("s", int)
            assert run.finish((1, {"a": None}), extra="more") == [1, {"a": None}]
    with runs.open("a", "k") as run:
        assert (run.was_finished, run.is_replayed, run.result) == (True, False, [1, {"a": None}])
        assert run.recalled(RecordType.FINISHED, "run") == {"result": [1, {"a": None}], "extra": "more"}
        run.finish((1, {"a": None}), extra="more")
    assert types_of(runs, "k") == ["run.started", "step.intended", "step.done", "run.finished"]
    with runs.open("a", "k") as run:
        run.finish("another")
    assert runs.open("a", "k").result == "another"


def test_a_result_of_a_run_that_is_not_json_lets_it_fail(runs: Runs) -> None:
    with pytest.raises(NotRecordable, match=r"the result of the run\['result'\]\['x'\] is a set"):  # noqa: SIM117
        with runs.open("a", "k") as run:
            run.finish({"x": {1}})
    assert runs.find("k").status == RunStatus.FAILED


def test_a_run_in_which_nothing_happened_is_finished_all_the_same(runs: Runs) -> None:
    with runs.open("a", "k"):
        pass
    assert types_of(runs, "k") == ["run.started", "run.finished"]


def test_a_run_without_a_key_has_one_of_its_own() -> None:
    runs = memory_runs()
    with runs.open("a") as one, runs.open("a") as other:
        assert one.key != other.key


@pytest.mark.parametrize("key", ["", "x" * 501, "a\0", "\ud800", 7])
def test_what_cannot_be_a_key_is_refused(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="the key of a run"):
        memory_runs().open("a", key)


@pytest.mark.parametrize("agent", ["", "a\0", None])
def test_what_cannot_be_an_agent_is_refused(agent: Any) -> None:
    with pytest.raises(ConfigurationError, match="belongs to an agent"):
        memory_runs().open(agent, "k")


@pytest.mark.parametrize(
    "options",
    [{"lease": timedelta(0)}, {"on_ambiguous": "no"}, {"on_change": "no"}, {"persistence": "no"}],
)
def test_options_that_cannot_be_are_refused(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        memory_runs().open("a", "k", **options)
