"""What people see of runs: made of real journals, at times that the tests say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_agentic.errors import RunNotFound
from airflow_agentic.persistence import Interrupted, Run, RunHead, RunQuery, RunStatus
from airflow_agentic.persistence.glances import Glance, Glances, Together
from airflow_agentic.persistence.ports import Append, Record
from airflow_agentic.persistence.views import RunView
from airflow_agentic.stores import Store, open_store
from airflow_agentic.stores.memory import MemoryJournals

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


class Killed(BaseException):
    """The worker dies."""


def die() -> None:
    raise Killed


def one() -> int:
    return 1


def fail() -> None:
    raise ConnectionError("nobody answers")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/agentic.db"
    with open_store(url, owner="worker-1:42") as opened:
        yield opened


def seen(store: Store, key: str) -> RunView:
    return store.runs.views.of(key, datetime.now(UTC))


def worked(store: Store, error: type[BaseException], work: Callable[[Run], object]) -> None:
    """Work on the run ``k``, to a bad end."""
    with pytest.raises(error), store.run("triage", key="k") as run:
        work(run)


def head(key: str, status: str = "finished", **values: Any) -> RunHead:
    at = round(NOW.timestamp() * 1000)
    made = RunHead(key, "triage", status=status, version=1, created_at_ms=at, updated_at_ms=at)
    return replace(made, **values)


def journals(*heads: RunHead) -> MemoryJournals:
    kept = MemoryJournals()
    for each in heads:
        assert kept.append(Append(each, 0, [Record(1, "run.started", each.created_at_ms, "run", b"{}", b"")]))
    return kept


def lasted(key: str, seconds: float, done: int) -> RunHead:
    made = head(key, done=done)
    return replace(made, updated_at_ms=made.created_at_ms + round(seconds * 1000))


def running(done: int = 0, total: int = 0, for_seconds: float = 0) -> RunHead:
    made = head(
        "now", "running", done=done, total=total, lease_until_ms=round(NOW.timestamp() * 1000) + 60_000
    )
    return replace(made, created_at_ms=made.created_at_ms - round(for_seconds * 1000))


def test_the_time_left_goes_by_the_medians_of_finished_runs_of_the_agent() -> None:
    past = [
        lasted("a", 10, 5),
        lasted("b", 20, 10),
        lasted("c", 900, 10),
        lasted("d", 18, 9),
        lasted("e", 20, 10),
    ]
    other = replace(lasted("f", 9_000, 1), agent="another")

    pace = Glances(journals(*past, other), NOW).pace("triage")

    assert pace is not None
    assert (pace.runs, pace.duration, pace.steps) == (5, timedelta(seconds=20), 10)
    assert pace.left(running(done=4), NOW) == timedelta(seconds=12)
    assert pace.left(running(done=4, total=24), NOW) == timedelta(seconds=40)


@pytest.mark.parametrize("done", [10, 11])
def test_nobody_knows_the_end_of_a_run_that_has_as_many_steps_as_the_others_had(done: int) -> None:
    pace = Glances(journals(lasted("a", 20, 10)), NOW).pace("triage")

    assert pace is not None
    assert pace.left(running(done=done), NOW) is None
    assert pace.left(running(done=10, total=10), NOW) == timedelta(0)
    assert pace.left(running(done=11, total=10), NOW) is None


def test_without_steps_the_time_left_is_that_of_the_whole() -> None:
    pace = Glances(journals(lasted("a", 60, 0)), NOW).pace("triage")

    assert pace is not None
    assert pace.left(running(for_seconds=20), NOW) == timedelta(seconds=40)
    assert pace.left(running(for_seconds=61), NOW) is None


def test_of_an_agent_of_which_no_run_finished_nothing_is_promised() -> None:
    glances = Glances(journals(head("a", "failed")), NOW)

    assert glances.pace("triage") is None
    assert glances.of(running()) == Glance(running(), NOW)


@pytest.mark.parametrize(
    ("made", "has_time_left"),
    [
        (running(done=1), True),
        (replace(running(done=1), lease_until_ms=0), False),
        (replace(running(done=1), status="waiting"), False),
        (replace(running(done=1), status="failed"), False),
    ],
)
def test_time_left_is_told_of_what_is_worked_on_only(made: RunHead, has_time_left: bool) -> None:
    glance = Glances(journals(lasted("a", 20, 10)), NOW).of(made)

    assert (glance.left is not None) == has_time_left
    assert glance.paced_by == has_time_left


def test_a_run_whose_lease_is_over_is_stale_only_while_it_says_that_it_runs() -> None:
    assert not Glance(running(), NOW).is_stale
    assert Glance(running(), NOW + timedelta(seconds=61)).is_stale
    assert not Glance(head("a", "waiting"), NOW).is_stale


def test_runs_that_belong_together_are_counted_together() -> None:
    quick = Glance(running(done=1, total=2), NOW, timedelta(seconds=5), 1)
    slow = Glance(running(done=3, total=9), NOW, timedelta(seconds=50), 1)
    broken = Glance(head("b", "failed", category="transient", done=1), NOW)
    over = Glance(head("c", done=7), NOW)

    assert Together((quick, slow, over)).left == timedelta(seconds=50)
    assert (Together((quick, slow, over)).done, Together((quick, slow, over)).total) == (11, 18)
    assert Together((quick, slow, over, broken)).total is None
    assert Together((over, broken)).is_ended
    assert not Together((over, quick)).is_ended
    assert Together((over, broken)).errors == {"transient": 1}
    assert Together((over, Glance(running(), NOW))).left is None
    assert Together((broken, over, over)).statuses == {"failed": 1, "finished": 2}


def test_while_a_step_is_done_it_is_current_and_not_ambiguous(store: Store) -> None:
    found: list[RunView] = []

    with store.run("triage", key="k", task="dag/run/task", correlation="dag:run") as run:
        run.expect(2)
        run.step("first", lambda: 1)
        run.step("second", lambda: found.append(seen(store, "k")))

    [view] = found
    assert (view.head.status, view.head.done, view.head.total, view.head.step) == ("running", 1, 2, "second")
    assert view.glance.is_held
    assert view.step_since is not None
    assert view.ambiguous == ()
    assert seen(store, "k").step_since is None
    assert seen(store, "k").glance.is_ended


def test_a_step_that_nobody_ended_is_ambiguous_with_what_its_code_says(store: Store) -> None:
    with pytest.raises(Killed), store.run("triage", key="k") as run:
        run.step("pay", die, on_ambiguous="ask")

    view = seen(store, "k")

    [doubt] = view.ambiguous
    assert (doubt.step, doubt.tries, doubt.declared) == ("pay", 1, "ask")
    assert view.glance.is_stale
    assert view.step_became == "step.intended"


def test_a_step_that_was_left_in_the_middle_is_ambiguous_while_another_worker_has_not_come_to_it(
    store: Store,
) -> None:
    found: list[RunView] = []

    def work(run: Run) -> None:
        run.step("first", one, pure=True)
        run.step("pay", die)

    worked(store, Killed, work)

    with store.run("triage", key="k") as run:
        run.step("first", one, pure=True)
        run.emit({"again": True})
        found.append(seen(store, "k"))
        run.step("pay", lambda: found.append(seen(store, "k")))

    assert [[doubt.step for doubt in view.ambiguous] for view in found] == [["pay"], []]
    [settled] = seen(store, "k").settled
    assert (settled.step, settled.decision, settled.by) == ("pay", "retry", "declared")


def test_what_a_person_decided_is_told_as_such_and_not_as_doubt(store: Store) -> None:
    with pytest.raises(Killed), store.run("triage", key="k") as run:
        run.step("pay", die, on_ambiguous="ask")

    store.runs.by_hand.retry_step("k", "pay", actor="ana", reason="not paid")

    view = seen(store, "k")
    assert view.ambiguous == ()
    assert view.settled == ()
    assert [(each.what, each.name, each.actor, each.reason) for each in view.interventions] == [
        ("retry", "pay", "ana", "not paid")
    ]


def test_what_ended_a_step_and_the_run_is_one_failure(store: Store) -> None:
    for _ in range(2):
        with pytest.raises(ConnectionError), store.run("triage", key="k") as run:
            run.step("ask", fail)
    with pytest.raises(ZeroDivisionError), store.run("triage", key="k"):
        _ = 1 / 0

    view = seen(store, "k")

    assert [each.step for each in view.failures] == ["ask", "ask", ""]
    assert view.errors == {"transient": 3}
    assert "nobody answers" in view.failures[0].error


def test_a_question_is_open_until_it_is_answered(store: Store) -> None:
    def work(run: Run) -> None:
        run.step("first", lambda: 1)
        run.interrupt("Pay 300?", {"type": "boolean"}, name="approve")

    worked(store, Interrupted, work)

    view = seen(store, "k")
    [question] = view.questions
    assert (question.question, question.schema) == ("Pay 300?", {"type": "boolean"})
    assert view.waiting_since is not None
    assert question.since == view.waiting_since
    assert not view.glance.is_ended

    store.runs.by_hand.answer("k", question.name, answer=True, actor="ana")

    view = seen(store, "k")
    assert view.questions == ()
    assert [(each.what, each.name, each.actor) for each in view.interventions] == [
        ("answered", question.name, "ana")
    ]


def test_every_intervention_is_told_in_order(store: Store) -> None:
    def work(run: Run) -> None:
        run.emit({"open": 1})
        run.checkpoint("begun")
        run.step("ask", fail)

    worked(store, ConnectionError, work)
    by_hand = store.runs.by_hand
    by_hand.skip_step("k", "ask", actor="ana", reason="asked by phone", result=1)
    by_hand.set_state("k", patch={"open": 2}, actor="bo", reason="a typo")
    by_hand.release("k", actor="cy", reason="go on")

    view = seen(store, "k")

    assert [(each.what, each.actor) for each in view.interventions] == [
        ("skipped", "ana"),
        ("state set", "bo"),
        ("released", "cy"),
    ]
    assert [name for name, _ in view.checkpoints] == ["begun"]


def test_it_is_told_how_often_a_run_was_worked_on(store: Store) -> None:
    for number in range(3):
        worked(store, ConnectionError, lambda run: run.step(f"s{number}", fail))  # noqa: B023  # called at once
        assert (seen(store, "k").tries, seen(store, "k").is_begun_before) == (number + 1, False)
        store.run("triage", key="k").close()  # It was only looked at.
    fork = store.fork("k", at=seen(store, "k").head.version, actor="ana", reason="try again")
    assert seen(store, fork).tries == 0
    for number in (1, 2):
        with store.run("triage", key=fork) as run:
            run.emit({"n": number})
        assert seen(store, fork).tries == number
    assert seen(store, "k").tries == 3


def test_of_a_run_whose_first_records_are_forgotten_it_is_told_that_there_was_more(store: Store) -> None:
    for number in range(2):
        with store.run("triage", key="k", persistence="snapshot") as run:
            run.emit({"n": number})
    assert (seen(store, "k").tries, seen(store, "k").is_begun_before) == (2, False)
    assert store.runs.prune("k")
    assert seen(store, "k").is_begun_before
    assert seen(store, "k").tries < 2


def test_many_failures_far_from_each_other_are_read(store: Store) -> None:
    def now_and_then(number: int) -> int:
        if not number % 40:
            raise ConnectionError(f"number {number}")
        return number

    with store.run("triage", key="k") as run:
        for number in range(130):
            try:
                run.step(f"step {number}", now_and_then, number)
            except ConnectionError:
                run.emit({"failed": number})

    view = seen(store, "k")

    assert [each.error.rpartition(" ")[2] for each in view.failures] == ["0", "40", "80", "120"]


def test_records_of_a_newer_version_and_damaged_ones_can_be_looked_at() -> None:
    kept = journals(head("k", "failed"))
    [first] = kept.read("k")
    later = [
        replace(first, version=2, type="future.thing", name="x"),
        replace(first, version=3, type="step.failed", name="s", data=b"\xff"),
        replace(first, version=4, type="run.failed", data=b"[1]"),
    ]
    assert kept.append(Append(head("k", "failed", version=4), 1, later))
    store = open_store("memory://")
    store.run_stores = replace(store.run_stores, journals=kept, runs=kept)

    view = store.runs.views.of("k", NOW)

    assert view.unknown == ("future.thing",)
    assert [(each.step, each.error) for each in view.failures] == [("s", "")]


def test_runs_of_a_correlation_come_oldest_first_across_agents_and_of_others_none(store: Store) -> None:
    for key, agent, correlation in (("1", "a", "dag:1"), ("2", "b", "dag:1"), ("3", "a", "dag:2")):
        with store.run(agent, key=key, correlation=correlation) as run:
            run.step("x", lambda: 1)

    together = store.runs.views.together(["dag:1", "dag:1"], datetime.now(UTC))

    assert [each.head.stream for each in together.runs] == ["1", "2"]
    assert (together.done, together.total, together.is_ended) == (2, 2, True)


def test_of_a_large_correlation_no_run_is_left_out(store: Store) -> None:
    empty = Record(1, "run.started", 1, "run", b"{}", b"")
    for number in range(1_100):
        made = RunHead(
            f"k-{number}", "a", correlation="dag:1", version=1, owner="me", updated_at_ms=number // 3
        )
        assert store.run_stores.journals.append(Append(made, 0, [empty]))

    together = store.runs.views.together(["dag:1"], datetime.now(UTC))

    assert len({each.head.stream for each in together.runs}) == 1_100
    found = [*store.runs.each(RunQuery(agent="a", limit=7))]
    assert found == store.runs.find_all(RunQuery(agent="a", limit=2_000))
    assert [each.head for each in store.runs.views.each(RunQuery(agent="a"), datetime.now(UTC))] == found


def test_glances_take_a_query(store: Store) -> None:
    with store.run("a", key="1") as run:
        run.step("x", lambda: 1)
    with pytest.raises(ConnectionError), store.run("a", key="2") as run:
        run.step("x", fail)

    found = store.runs.views.glances(RunQuery(statuses=(RunStatus.FAILED,)), datetime.now(UTC))

    assert [each.head.stream for each in found] == ["2"]


def test_of_a_run_that_is_not_there_nothing_is_shown(store: Store) -> None:
    with pytest.raises(RunNotFound, match="no run 'k'"):
        seen(store, "k")
