"""People are asked, others if they do not answer; and DAGs that messages start."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DAG, Asset, Param, task
from airflow.sdk.exceptions import AirflowSkipException

from airflow_agentic.errors import ConfigurationError
from airflow_agentic.workflows import Ask, await_human, on_message

SHORT = timedelta(seconds=30)


class Office:
    """Answers questions as Airflow's API does, and lets time pass for those that nobody answers."""

    def __init__(self, answers):
        self.answers = dict(answers)
        self.asked = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _work(self):
        while not self._over.wait(0.3):
            self._look()

    def _look(self):
        from airflow.models.hitl import HITLDetail
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from airflow.utils.state import TaskInstanceState

        with create_session() as session:
            parked = session.query(TaskInstance).filter_by(state=TaskInstanceState.AWAITING_INPUT).all()
            for ti in parked:
                detail = session.query(HITLDetail).filter_by(ti_id=ti.id).one()
                who = [user["id"] for user in detail.assignees or []]
                self.asked.append((ti.task_id.rpartition(".")[2], detail.subject, who))
                answer = self.answers.get(ti.task_id.rpartition(".")[2])
                event = {"error": "nobody", "error_type": "timeout"}
                if answer is not None:
                    event = {
                        "chosen_options": [answer[0]],
                        "params_input": answer[1],
                        "responded_at": datetime.now(UTC),
                        "responded_by_user": {"id": who[0] if who else "somebody", "name": "A"},
                        "timedout": False,
                    }
                ti.next_kwargs = {**(ti.next_kwargs or {}), **_stored(event)}
                ti.state = TaskInstanceState.SCHEDULED


def _stored(event):
    from airflow.sdk.serde import serialize

    return serialize({"event": event})


def asking(**arguments):
    with DAG("people") as dag:
        given = {
            "options": ["Yes", "No"],
            "ask": [Ask(["ana"], SHORT), Ask(["ben", "eva"], SHORT)],
            **arguments,
        }
        flow = await_human("ok", given.pop("question", "Shall we?"), **given)

        @task
        def told(answer):
            return answer

        told(flow.output)
    return dag


def test_who_is_asked_answers_and_nobody_else_is_asked(run_dag):
    dag = asking(params={"why": Param("", type="string")})
    with Office({"ask": ("Yes", {"why": "it is time"})}) as office:
        run = run_dag(dag)
    assert office.asked == [("ask", "Shall we?", ["ana"])]
    assert run.task("ok.escalate_1").state == "skipped"
    assert run.xcom("told") == {"chosen": ["Yes"], "given": {"why": "it is time"}, "by": "ana", "asked": 1}


def test_others_are_asked_if_nobody_answers_in_time(run_dag):
    with Office({"escalate_1": ("No", {})}) as office:
        run = run_dag(asking())
    assert [(each[0], each[2]) for each in office.asked] == [("ask", ["ana"]), ("escalate_1", ["ben", "eva"])]
    assert (run.state, run.task("ok.ask").state) == ("success", "success")
    assert run.xcom("told") == {"chosen": ["No"], "given": {}, "by": "ben", "asked": 2}


def test_if_nobody_answers_at_all_it_fails_or_the_default_is_the_answer(run_dag):
    with Office({}):
        failed, decided = run_dag(asking()), run_dag(asking(default={"chosen": ["No"]}))
    assert (failed.state, failed.task("ok.answer").state) == ("failed", "failed")
    assert decided.xcom("told") == {"chosen": ["No"], "given": {}, "by": None, "asked": 2}


def test_several_questions_are_several_pauses(run_dag):
    with Office({"ask_1": ("Yes", {}), "ask_2": ("No", {})}) as office:
        run = run_dag(asking(question=["Right?", "Now?"]))
    assert [each[1] for each in office.asked] == ["Right?", "Now?"]
    assert [each["chosen"] for each in run.xcom("told")] == [["Yes"], ["No"]]


def test_nobody_is_asked_in_a_way_that_is_not_taken(run_dag):
    @task
    def skip():
        raise AirflowSkipException

    with DAG("not_taken") as dag:
        skip() >> await_human("ok", "Shall we?", ask=[Ask(["ana"], SHORT), Ask()])
    run = run_dag(dag)
    assert {run.task(f"ok.{each}").state for each in ("ask", "escalate_1", "answer")} == {"skipped"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"ask": [Ask(["ana"]), Ask(["ben"])]}, r"ask\[0\] has no within=.*never be asked"),
        ({"ask": []}, "at least 1 of people to ask"),
        ({"question": []}, "at least 1 of questions"),
        ({"options": []}, "at least 1 of options"),
        ({"ask": [Ask("ana")]}, r"users must be a list, as in \['ana'\]"),
        ({"ask": [Ask(["ana"], timedelta(0))]}, "give some time to answer"),
    ],
)
def test_what_cannot_work_is_refused(arguments, why):
    with pytest.raises(ConfigurationError, match=why):
        asking(**arguments)


class TestOnMessage:
    def test_a_mailbox_is_an_asset_with_a_watcher(self):
        asset = on_message("claims", deliver=True)
        assert (type(asset), asset.name) == (Asset, "agentic_claims_messages")
        [watcher] = asset.watchers
        path, kwargs = watcher.trigger.serialize()
        assert path.endswith("AgentMessageTrigger")
        assert (kwargs["mailbox"], kwargs["deliver"]) == ("claims", True)

    def test_it_is_the_schedule_of_a_dag_alone_or_with_others(self):
        assert DAG("one", schedule=on_message("claims")).timetable.asset_condition is not None
        both = DAG("two", schedule=on_message("claims") | on_message("complaints"))
        assert [asset.name for asset in both.timetable.asset_condition.objects] == [
            "agentic_claims",
            "agentic_complaints",
        ]

    def test_no_mailbox_is_refused(self):
        with pytest.raises(ConfigurationError, match="needs the name of a mailbox"):
            on_message(" ")
