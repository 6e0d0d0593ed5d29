from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from commandline import Run as Command

from airflow_agentic.cli.tasks import TaskName, task_named
from airflow_agentic.errors import JournalCorrupt
from airflow_agentic.persistence import Interrupted, Run
from airflow_agentic.persistence.ports import Append
from airflow_agentic.stores import Store


class Killed(BaseException):
    """The worker dies."""


def die() -> None:
    raise Killed


def fail() -> None:
    raise ConnectionError("nobody answers")


def work(
    store: Store, key: str, do: Callable[[Run], Any], error: type[BaseException] | None = None, task: str = ""
) -> None:
    with (
        pytest.raises(error) if error else contextlib.nullcontext(),
        store.run("triage", key=key, task=task) as run,
    ):
        do(run)


def be_killed(run: Run) -> None:
    run.emit({"open": 1, "old": 2})
    run.checkpoint("begun")
    run.step("pay", die, on_ambiguous="ask")


@pytest.fixture
def killed(store: Store) -> None:
    work(store, "killed", be_killed, Killed, task="billing/manual__1/pay[2]")


def again(store: Store, key: str = "killed") -> tuple[Any, Any, list[str]]:
    """Work on the run again, and return what the step gave, the state, and what was done."""
    done: list[str] = []
    with store.run("triage", key=key) as run:
        run.emit({"open": 1, "old": 2})
        run.checkpoint("begun")
        paid = run.step("pay", lambda: done.append("pay"), on_ambiguous="ask")
        return paid, run.state, done


@pytest.mark.usefixtures("killed")
def test_a_skipped_step_returns_the_given_result_and_is_not_done(on_store: Command, store: Store) -> None:
    ended = on_store(
        "runs", "skip-step", "killed", "pay", "--result", '{"receipt": 7}', "--reason", "paid", "--actor", "ana",
        "-o", "json",
    )  # fmt: skip

    assert (ended.code, ended.json[0]["done"]) == (0, 1)
    assert "kept as event" in ended.err
    assert again(store)[::2] == ({"receipt": 7}, [])
    [told] = on_store("runs", "show", "killed", "-o", "json").json["interventions"]
    assert (told["what"], told["name"], told["actor"], told["reason"]) == ("skipped", "pay", "ana", "paid")


@pytest.mark.usefixtures("killed")
def test_a_step_to_be_retried_is_done_once_more(on_store: Command, store: Store) -> None:
    ended = on_store("runs", "retry-step", "killed", "pay", "--reason", "not paid")

    assert ended.code == 0
    assert again(store)[2] == ["pay"]


@pytest.mark.usefixtures("killed")
def test_what_is_not_ambiguous_cannot_be_retried(on_store: Command) -> None:
    ended = on_store("runs", "retry-step", "killed", "other", "--reason", "x")

    assert ended.code == 1
    assert "is not ambiguous" in ended.err


@pytest.mark.usefixtures("killed")
def test_a_step_that_never_began_can_be_skipped_with_a_remark(on_store: Command) -> None:
    ended = on_store("runs", "skip-step", "killed", "later", "--reason", "x")

    assert ended.code == 0
    assert "never began a step 'later'" in ended.err


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize(
    ("words", "state"),
    [
        (["--patch", '{"open": 5, "old": null}'], {"open": 5}),
        (["--state", '{"new": true}'], {"new": True}),
        (["--state", "null"], None),
    ],
)
def test_the_state_can_be_set(on_store: Command, store: Store, words: list[str], state: Any) -> None:
    ended = on_store("runs", "set-state", "killed", *words, "--reason", "typo")

    assert ended.code == 0
    assert store.at("killed", store.runs.find("killed").version).state == state


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["set-state", "killed", "--reason", "x"], "give either --patch"),
        (["set-state", "killed", "--patch", "1", "--state", "2", "--reason", "x"], "give either --patch"),
        (["set-state", "killed", "--patch", "{a: 1}", "--reason", "x"], "--patch is not JSON"),
        (["set-state", "killed", "--patch", "[" * 100_000, "--reason", "x"], "nested too deeply"),
        (["skip-step", "killed", "pay", "--result", "paid", "--reason", "x"], "--result is not JSON"),
        (["skip-step", "killed", "pay", "--reason", " "], "reason="),
        (["skip-step", "nobody", "pay", "--reason", "x"], "there is no run 'nobody'"),
        (
            ["fork", "killed", "--at", "nope", "--reason", "x"],
            "the name of a checkpoint (checkpoints are begun)",
        ),
        (["fork", "killed", "--at", "99", "--reason", "x"], "has versions 1 to"),
        (["answer", "killed", "approve", "true"], "asks nothing that nobody answered"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_changes_nothing(
    on_store: Command, store: Store, words: list[str], told: str
) -> None:
    before = store.history("killed")

    ended = on_store("runs", *words)

    assert ended.code == 1
    assert told in ended.err
    assert "\n" not in ended.err.strip()
    assert store.history("killed") == before
    assert len(store.runs.find_all()) == 1


@pytest.mark.parametrize("verb", ["resume", "retry-step", "skip-step", "set-state", "fork", "forget"])
def test_a_reason_is_asked_for(on_store: Command, verb: str) -> None:
    step = ["pay"] if verb.endswith("-step") else []

    assert on_store("runs", verb, "killed", *step).code == 2


def test_a_run_that_somebody_works_on_is_let_alone_unless_forced(on_store: Command, store: Store) -> None:
    ended: list[Any] = []

    def look(run: Run) -> None:
        run.emit({"n": 1})
        # Another worker than the one that the commands are.
        tried = (["resume", "now"], ["skip-step", "now", "pay"], ["forget", "now"])
        ended.extend(on_store("runs", *words, "--reason", "x") for words in tried)

    work(store, "now", look)

    assert [each.code for each in ended] == [1, 1, 1]
    assert all("worker-1:42 works on the run 'now'" in each.err for each in ended)
    assert "Wait for its end, or give --force" in ended[2].err


# -- resume --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("killed")
def test_resume_lets_a_run_go_on_and_says_how_its_task_is_started(on_store: Command, store: Store) -> None:
    ended = on_store("runs", "resume", "killed", "--reason", "machine is gone", "-o", "json")

    assert (ended.code, ended.json[0]["status"]) == (0, "failed")
    assert f"runs resume killed --clear --reason 'why' --store-url {store.url}" in ended.err
    assert "clear the task 'pay', index 2 of the DAG run 'manual__1' of 'billing'" in ended.err
    assert "airflow dags clear billing --run-id manual__1 --only-failed" in ended.err
    assert store.history("killed")[-1].data["what"] == "released"


def test_resume_of_a_run_without_a_task_says_how_it_is_opened(on_store: Command, store: Store) -> None:
    work(store, "alone", lambda run: run.step("x", fail), ConnectionError)

    ended = on_store("runs", "resume", "alone", "--reason", "x")
    refused = on_store("runs", "resume", "alone", "--clear", "--reason", "x")

    assert "store.run('triage', key='alone')" in ended.err
    assert refused.code == 1
    assert "belongs to no task of Airflow" in refused.err


def test_a_finished_run_is_not_resumed(on_store: Command, store: Store) -> None:
    work(store, "good", lambda run: run.step("x", lambda: 1))
    before = store.history("good")

    ended = on_store("runs", "resume", "good", "--reason", "x")

    assert ended.code == 1
    assert "runs fork good --at VERSION --reason TEXT --store-url" in ended.err
    assert store.history("good") == before


def test_a_run_that_waits_is_not_resumed_unless_forced(on_store: Command, store: Store) -> None:
    work(store, "asks", lambda run: run.interrupt("Really?"), Interrupted)

    ended = on_store("runs", "resume", "asks", "--reason", "x")

    assert ended.code == 1
    assert "waits (a person: Really?)" in ended.err
    assert on_store("runs", "resume", "asks", "--reason", "x", "--force").code == 0


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("dag/run/task", TaskName("dag", "run", "task")),
        ("dag/run/task[3]", TaskName("dag", "run", "task", 3)),
        (
            "dag/manual__2026-11-23T14:00:00+00:00/group.task",
            TaskName("dag", "manual__2026-11-23T14:00:00+00:00", "group.task"),
        ),
        ("dag/a/b/task[0]", TaskName("dag", "a/b", "task", 0)),
        ("", None),
        ("dag/run", None),
        ("my script", None),
    ],
)
def test_the_name_of_a_task_is_read(name: str, task: TaskName | None) -> None:
    assert task_named(name) == task


@pytest.fixture
def damaged(store: Store) -> None:
    """A run whose third event was changed in the database, as it is found out by whoever opens it."""
    work(store, "damaged", lambda run: [run.emit({"n": n}) for n in range(4)] and fail(), ConnectionError)
    kept = store.run_stores
    head, records = store.runs.find("damaged"), kept.journals.read("damaged")
    forged = replace(records[2], data=records[2].data.replace(b'"n":1', b'"n":9'))
    kept.runs.forget("damaged")
    assert kept.journals.append(Append(head, 0, [*records[:2], forged, *records[3:]]))
    with pytest.raises(JournalCorrupt), store.run("triage", key="damaged") as run:
        run.emit({"n": 5})


@pytest.mark.usefixtures("damaged")
def test_a_damaged_run_is_in_quarantine_until_it_is_mended(on_store: Command, store: Store) -> None:
    shown = on_store("runs", "show", "damaged").out
    resumed = on_store("runs", "resume", "damaged", "--reason", "x", "--force")

    assert "quarantined" in shown
    assert "version 3" in shown
    assert f"runs verify damaged --store-url {store.url}" in shown
    assert f"runs fork damaged --at VERSION --reason 'why' --store-url {store.url}" in shown
    assert (
        f"if it was mended:  airflow agentic runs resume damaged --reason 'why' --store-url {store.url}"
        in shown
    )
    assert resumed.code == 1
    assert "damaged at version 3" in resumed.err
    assert store.runs.find("damaged").status == "quarantined"


@pytest.mark.usefixtures("damaged")
def test_a_damaged_run_goes_on_as_a_fork_from_before(on_store: Command, store: Store) -> None:
    after = on_store("runs", "fork", "damaged", "--at", "4", "--reason", "x")
    before = on_store("runs", "fork", "damaged", "--at", "2", "--to", "mended", "--reason", "x")

    assert (after.code, before.code) == (1, 0)
    assert "damaged at version 3" in after.err
    with store.run("triage", key="mended") as run:
        assert run.state == {"n": 0}


# -- questions -----------------------------------------------------------------------------------------------


@pytest.fixture
def asking(store: Store) -> None:
    work(
        store,
        "asks",
        lambda run: run.interrupt("Pay?", {"type": "object", "required": ["ok"]}, name="approve"),
        Interrupted,
    )


@pytest.mark.usefixtures("asking")
@pytest.mark.parametrize("name", ["approve", "question:approve"])
def test_an_answer_reaches_the_run(on_store: Command, store: Store, name: str) -> None:
    ended = on_store("runs", "answer", "asks", name, '{"ok": true}', "--actor", "ana")

    assert ended.code == 0
    with store.run("triage", key="asks") as run:
        assert run.interrupt("Pay?", {"type": "object", "required": ["ok"]}, name="approve") == {"ok": True}


@pytest.mark.usefixtures("asking")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["approve", "{}"],
            "the answer does not fit what is asked for: 'ok' is a required property; the schema is {",
        ),
        (["approve", "yes"], "the answer is not JSON"),
        (["aprove", "{}"], "does not ask 'aprove' now. It asks: approve"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(
    on_store: Command, store: Store, words: list[str], told: str
) -> None:
    before = store.history("asks")

    ended = on_store("runs", "answer", "asks", *words)

    assert ended.code == 1
    assert told in ended.err
    assert store.history("asks") == before


@pytest.mark.usefixtures("asking")
def test_what_is_answered_is_not_answered_again(on_store: Command, store: Store) -> None:
    on_store("runs", "answer", "asks", "approve", '{"ok": true}', "--actor", "ana")

    ended = on_store("runs", "answer", "asks", "approve", '{"ok": false}')

    assert ended.code == 1
    assert "error: ana answered 'question:approve' of run 'asks' at 20" in ended.err
    assert sum(event.type == "question.answered" for event in store.history("asks")) == 1


# -- fork ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("killed")
@pytest.mark.parametrize("at", ["begun", "3"])
def test_a_fork_is_a_new_run_from_then_and_the_old_one_stays(
    on_store: Command, store: Store, at: str
) -> None:
    before = store.history("killed")

    ended = on_store(
        "runs", "fork", "killed", "--at", at, "--to", "other", "--patch", '{"open": 9}', "--reason", "try",
        "--actor", "ana", "-o", "json",
    )  # fmt: skip

    assert (ended.code, ended.json[0]["key"]) == (0, "other")
    assert "'killed' stays as it is" in ended.err
    assert "RunAgentOperator(…, run_key='other'); if task 'pay' has" in ended.err
    assert """airflow dags trigger billing --conf '{"run_key": "other"}'""" in ended.err
    assert store.history("killed") == before
    assert store.at("other", store.runs.find("other").version).state == {"open": 9, "old": 2}
    [told] = [each for each in store.history("other") if each.type == "run.intervened"]
    assert (told.data["actor"], told.data["reason"], told.data["from"]) == ("ana", "try", "killed")


@pytest.mark.usefixtures("killed")
def test_a_fork_is_no_run_of_the_task_that_the_old_one_belongs_to(on_store: Command, store: Store) -> None:
    """Cleared, that task would go on with the old one."""
    on_store("runs", "fork", "killed", "--at", "begun", "--to", "other", "--reason", "try")

    ended = on_store("runs", "resume", "other", "--clear", "--reason", "go on")

    assert (ended.code, "belongs to no task of Airflow" in ended.err) == (1, True)
    work(store, "other", lambda run: run.emit({"n": 1}, key="n"), task="billing/manual__2/pay")
    assert store.runs.find("other").task == "billing/manual__2/pay"


@pytest.mark.usefixtures("killed")
def test_a_fork_may_be_at_a_time_as_commands_show_it(on_store: Command, store: Store) -> None:
    on_store("runs", "fork", "killed", "--at", "2999-01-01T00:00:00", "--to", "late", "--reason", "x")
    too_early = on_store("runs", "fork", "killed", "--at", "2001-01-01T00:00:00Z", "--reason", "x")

    assert [each.type for each in store.history("late")][: len(store.history("killed"))] == [
        each.type for each in store.history("killed")
    ]
    assert "began later" in too_early.err or "began after" in too_early.err
