"""Sagas: what failed in the middle is taken back in reverse, exactly once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

from airflow_agentic.agents import agent
from airflow_agentic.agents.registry import registry
from airflow_agentic.errors import ConfigurationError, ServiceError, UnknownAgent
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.persistence.run import Run
from airflow_agentic.workflows import NO_COMPENSATION, Step, saga


@pytest.fixture
def done():
    """All that was done, in order."""
    return []


@pytest.fixture(autouse=True)
def trip(monkeypatch, done):
    """A trip is booked: flight, hotel, car; an order may name what fails."""
    monkeypatch.setattr(registry, "_known", {})

    def booking(name):
        @agent(f"book-{name}")
        def book(task: dict) -> dict:
            if task.get("fails") == name:
                raise ValueError(f"no {name}")
            done.append(f"book {name}")
            return {**task, "booked": name}

        @agent(f"cancel-{name}")
        def cancel(task: dict) -> str:
            done.append(f"cancel {task['booked']}")
            return f"{name} cancelled"

    for name in ("flight", "hotel", "car"):
        booking(name)


STEPS = [
    Step("book-flight", "cancel-flight"),
    Step("book-hotel", "cancel-hotel"),
    Step("book-car"),
]
UNDO = ("trip.undo_book-hotel", "trip.undo_book-flight")


def booked(fails=None, steps=STEPS, **arguments):
    with DAG("trips") as dag:
        saga("trip", steps, task={"fails": fails}, **arguments) >> EmptyOperator(task_id="after")
    return dag


def test_if_all_goes_well_nothing_is_taken_back(run_dag, done):
    run = run_dag(booked())
    assert (run.state, done) == ("success", ["book flight", "book hotel", "book car"])
    assert run.xcom("trip.outcome") == {"fails": None, "booked": "car"}
    assert [run.task(each).state for each in UNDO] == ["skipped", "skipped"]
    assert run.task("after").state == "success"


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        ("car", ["book flight", "book hotel", "cancel hotel", "cancel flight"]),
        ("hotel", ["book flight", "cancel flight"]),
        ("flight", []),
    ],
)
def test_exactly_the_finished_steps_are_taken_back_in_reverse(run_dag, done, fails, expected):
    run = run_dag(booked(fails))
    assert (run.state, done) == ("failed", expected)
    assert (run.task("trip.outcome").state, run.task("after").state) == ("failed", "upstream_failed")
    taken_back = [each for each in UNDO if run.task(each).state == "success"]
    assert len(taken_back) == len([each for each in expected if each.startswith("cancel")])


def test_a_compensation_that_was_done_is_not_done_again_when_its_task_is_tried_again(
    run_dag, done, monkeypatch, store
):
    finish, crashed = Run.finish, []

    def crash_once(run, *args, **kwargs):
        if not crashed:
            crashed.append(run.key)
            raise ServiceError("the worker died after the work, before it could say so")
        return finish(run, *args, **kwargs)

    monkeypatch.setattr(Run, "finish", crash_once)
    args = {"retries": 2, "retry_delay": timedelta(0)}
    run = run_dag(
        booked(
            "car", steps=[STEPS[0], STEPS[1], Step({"agent": "book-car", "retries": 0})], default_args=args
        )
    )
    assert done == ["book flight", "book hotel", "cancel hotel", "cancel flight"]
    assert [run.task(each).try_number for each in UNDO] == [2, 1]
    [key] = crashed
    types = [event.type for event in store.history(key)]
    assert types.count(RecordType.DONE) == 1


def test_a_compensation_that_fails_stops_those_of_earlier_steps(run_dag, done):
    @agent("cannot-cancel")
    def cannot(task: dict) -> None:
        raise ValueError("too late")

    run = run_dag(booked("car", steps=[STEPS[0], Step("book-hotel", "cannot-cancel"), STEPS[2]]))
    assert (run.state, done) == ("failed", ["book flight", "book hotel"])
    assert [run.task(each).state for each in UNDO] == ["failed", "upstream_failed"]
    assert run.task("trip.outcome").state == "failed"


def test_a_step_that_needs_no_compensation_says_so(run_dag, done):
    dag = booked("car", steps=[STEPS[0], Step("book-hotel", NO_COMPENSATION), STEPS[2]])
    assert "trip.undo_book-hotel" not in dag.task_ids
    assert (run_dag(dag).state, done) == ("failed", ["book flight", "book hotel", "cancel flight"])


def test_what_a_compensation_sends_leaves_with_it(run_dag, store, done):
    @agent("tell-hotel")
    def tell(task: dict, ctx) -> None:
        ctx.send("hotel", {"cancel": task["booked"]})

    run_dag(booked("car", steps=[STEPS[0], Step("book-hotel", "tell-hotel"), STEPS[2]]))
    assert [each.message.data for each in store.bus.receive("hotel")] == [{"cancel": "hotel"}]


def test_a_saga_that_is_skipped_takes_nothing_back(run_dag, done):
    @task
    def skip():
        raise AirflowSkipException

    with DAG("skipped_trip") as dag:
        skip() >> saga("trip", STEPS, task={}) >> EmptyOperator(task_id="after")
    run = run_dag(dag)
    assert done == []
    assert {run.task(each).state for each in (*UNDO, "trip.outcome", "after")} == {"skipped"}


def test_mapped_sagas_go_each_their_own_way(run_dag, done):
    with DAG("trips") as dag:

        @task_group
        def each(order):
            return saga("trip", STEPS, task=order).output

        each.expand(order=[{"fails": "car"}, {"fails": None}])
    run = run_dag(dag)
    states = [run.task("each.trip.outcome", map_index=index).state for index in (0, 1)]
    assert (run.state, states) == ("failed", ["failed", "success"])
    assert sorted(done) == sorted(
        [
            "book flight",
            "book hotel",
            "cancel hotel",
            "cancel flight",
            "book flight",
            "book hotel",
            "book car",
        ]
    )


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([Step("book-flight"), Step("book-car")], r"step 1 has no compensation.*NO_COMPENSATION"),
        (
            [Step("book-flight", "cancel-flight"), Step("book-car", "cancel-car")],
            "the last step has a compensation",
        ),
        ([Step("book-flight", NO_COMPENSATION), Step("book-car")], "that is a sequence, and no saga"),
        ([Step("book-flight")], "at least 2 of steps"),
        (["book-flight", "book-car"], r"step 1 must be a Step\(who, compensation\)"),
        (
            [Step("book-flight", {"agent": "cancel-flight", "retries": 3}), Step("book-car")],
            "only agent, config, policy can be said here, not retries",
        ),
    ],
)
def test_what_cannot_work_is_refused(steps, why):
    with DAG("bad"), pytest.raises(ConfigurationError, match=why):
        saga("trip", steps, task={})


def test_an_unknown_compensation_is_refused():
    with DAG("bad"), pytest.raises(UnknownAgent, match="Did you mean 'cancel-flight'"):
        saga("trip", [Step("book-flight", "cancel-fligth"), Step("book-car")], task={})
