"""Outcomes of tasks and DAG runs on the bus."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from airflow.sdk import DAG, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.log import mask_secret
from messaging_steps import context_of, sent_to

from airflow_agentic.errors import ConfigurationError, InvalidMessage
from airflow_agentic.messaging import Kind
from airflow_agentic.notifications.messaging import AgenticNotifier, outcome_of
from airflow_agentic.operators.messaging import SendMessageOperator

AT_ONCE = {"retries": 1, "retry_delay": timedelta(0)}


def failing(name, error, *callbacks, retries=0, **dag_options):
    @dag(dag_id=name, **dag_options)
    def made():
        @task(retries=retries, retry_delay=timedelta(0), **dict(callbacks))
        def work():
            raise error

        work()

    return made()


class TestTasks:
    def test_a_failure_is_an_error_message_with_its_category_and_causes(self, run_dag, store):
        @dag
        def failures():
            @task(on_failure_callback=AgenticNotifier(recipient="on-call", priority=9))
            def work():
                raise ValueError("no result") from OSError("no disk")

            work()

        run = run_dag(failures())
        [told] = sent_to(store, "on-call")
        assert (told.kind, told.type, told.source) == (Kind.ERROR, "airflow.task.failed", "failures.work")
        assert (told.priority, told.run) == (9, f"failures/{run.run_id}/work")
        assert told.correlation_id == f"failures:{run.run_id}"
        facts = {
            "dag_id": "failures",
            "run_id": run.run_id,
            "task_id": "work",
            "map_index": -1,
            "try_number": 1,
        }
        assert facts.items() <= told.data.items()
        assert (told.data["state"], told.data["category"]) == ("failed", "transient")
        assert told.data["exception"] == {"type": "ValueError", "message": "no result"}
        assert told.data["causes"] == [{"type": "OSError", "message": "no disk"}]
        assert told.data["logical_date"].startswith("20")

    def test_each_outcome_goes_to_a_topic_of_its_own_unless_it_is_given_one(self, run_dag, store):
        store.bus.subscribe("watcher", "airflow.#")
        tell = AgenticNotifier()

        @dag(
            on_success_callback=tell,
            on_failure_callback=tell,
            default_args={
                **AT_ONCE,
                "on_success_callback": tell,
                "on_failure_callback": tell,
                "on_retry_callback": tell,
                "on_skipped_callback": tell,
                "on_execute_callback": AgenticNotifier(topic="{{ dag.dag_id }}.{{ ti.task_id }}.begun"),
            },
        )
        def topics():
            @task
            def good():
                """Work."""

            @task
            def skipped():
                raise AirflowSkipException

            @task
            def bad():
                raise ValueError("no")

            good(), skipped(), bad()

        store.bus.subscribe("starter", "topics.*.begun")
        run_dag(topics())
        told = sorted((m.topic, m.data["task_id"]) for m in sent_to(store, "watcher") if m.data["task_id"])
        assert told == [
            ("airflow.task.failed", "bad"),
            ("airflow.task.skipped", "skipped"),
            ("airflow.task.success", "good"),
            ("airflow.task.up_for_retry", "bad"),
        ]
        [whole] = [message for message in sent_to(store, "watcher") if not message.data["task_id"]]
        assert (whole.topic, whole.data["reason"]) == ("airflow.dag.failed", "task_failure")
        assert {message.topic for message in sent_to(store, "starter")} == {
            f"topics.{name}.begun" for name in ("good", "skipped", "bad")
        }
        assert {message.data["state"] for message in sent_to(store, "starter")} == {"running"}

    def test_what_a_retry_cannot_help_is_permanent(self, run_dag, store):
        tell = ("on_failure_callback", AgenticNotifier(recipient="on-call"))
        run_dag(failing("finals", AirflowFailException("never"), tell))
        [told] = sent_to(store, "on-call")
        assert told.data["category"] == "permanent"

    def test_every_try_is_told_and_each_once(self, run_dag, store):
        tell = AgenticNotifier(recipient="on-call")
        callbacks = ("on_failure_callback", [tell, tell]), ("on_retry_callback", [tell, tell])
        run_dag(failing("tries", ValueError("no"), *callbacks, retries=1))
        assert [(m.data["state"], m.data["try_number"]) for m in sent_to(store, "on-call")] == [
            ("up_for_retry", 1), ("failed", 2),
        ]  # fmt: skip

    def test_two_notifiers_tell_two_mailboxes(self, run_dag, store):
        tell = [AgenticNotifier(recipient="on-call"), AgenticNotifier(recipient="archive")]
        run_dag(failing("both", ValueError("no"), ("on_failure_callback", tell)))
        assert (len(sent_to(store, "on-call")), len(sent_to(store, "archive"))) == (1, 1)

    def test_secrets_are_not_told(self, run_dag, store):
        mask_secret("opensesame-the-password")
        error = ValueError("login with opensesame-the-password failed")
        run_dag(failing("secrets", error, ("on_failure_callback", AgenticNotifier(recipient="on-call"))))
        [told] = sent_to(store, "on-call")
        assert "opensesame" not in str(told.data)
        assert told.data["message"] == "login with *** failed"

    def test_a_text_without_end_is_cut(self, run_dag, store):
        error = ValueError("x" * 2_000_000)
        run_dag(failing("texts", error, ("on_failure_callback", AgenticNotifier(recipient="on-call"))))
        [told] = sent_to(store, "on-call")
        assert len(told.data["message"]) == 4_000

    def test_mapped_tasks_are_told_apart(self, run_dag, store):
        @dag
        def mapped():
            @task(on_success_callback=AgenticNotifier(recipient="box-{{ ti.map_index }}"))
            def work(number):
                """Work."""

            work.expand(number=[1, 2])

        run_dag(mapped())
        assert [sent_to(store, f"box-{index}")[0].data["map_index"] for index in (0, 1)] == [0, 1]


class TestDagRuns:
    def test_success_is_a_notification_about_the_run_as_a_whole(self, run_dag, store):
        with DAG(
            "wholes", on_success_callback=AgenticNotifier(recipient="planner", subject="{{ run_id }}")
        ) as dag_:
            SendMessageOperator(task_id="send", recipient="inbox")

        run = run_dag(dag_)
        [told] = sent_to(store, "planner")
        assert (told.kind, told.type, told.source) == (Kind.NOTIFICATION, "airflow.dag.success", "wholes")
        assert (told.run, told.subject) == (f"wholes/{run.run_id}", run.run_id)
        assert (told.data["state"], told.data["task_id"], told.data["exception"]) == ("success", None, None)
        boxes = {record.mailbox for record in store.bus.trace(f"wholes:{run.run_id}")}
        assert boxes == {"inbox", "planner"}

    def test_of_a_run_of_which_airflow_says_little_enough_is_told(self, store):
        with DAG("little") as dag_:
            """Nothing."""
        AgenticNotifier(recipient="planner")({"dag": dag_, "run_id": "run-1", "reason": "timed_out"})
        [told] = sent_to(store, "planner")
        assert (told.data["state"], told.data["reason"], told.run) == ("failed", "timed_out", "little/run-1")

    def test_a_missed_deadline_is_told_from_the_triggerer(self, store):
        run = {"dag_id": "slow", "dag_run_id": "run-1", "logical_date": "2026-01-01T00:00:00Z"}
        context = {"dag_run": run, "deadline": {"id": "d", "deadline_time": "2026-01-01T01:00:00Z"}}

        async def call():
            await AgenticNotifier(recipient="planner", context=context)

        asyncio.run(call())
        [told] = sent_to(store, "planner")
        assert (told.type, told.data["run_id"]) == ("airflow.dag.deadline_missed", "run-1")
        assert told.data["logical_date"] == "2026-01-01T00:00:00Z"


class TestFaults:
    @pytest.mark.parametrize("url", ["sqlite:////no/such/folder/a.db", "nowhere://at-all"])
    def test_a_store_that_is_away_changes_nothing_for_the_task(
        self, run_dag, store, monkeypatch, url, caplog
    ):
        @dag
        def away():
            @task(on_success_callback=AgenticNotifier(recipient="on-call"))
            def work():
                monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", url)

            work()

        assert run_dag(away()).state == "success"

    def test_a_template_that_cannot_be_rendered_is_logged(self, store):
        with DAG("templates"):
            operator = SendMessageOperator(task_id="work", recipient="x")
        context = context_of(operator)
        AgenticNotifier(recipient="{{ nobody.knows.this }}")(context)
        AgenticNotifier(recipient="no {{ 'box' }}")(context)
        assert store.bus.mailboxes() == []

    def test_one_notifier_serves_many_tasks(self, store):
        tell = AgenticNotifier(recipient="{{ ti.task_id }}")
        with DAG("many"):
            for name in ("a", "b"):
                tell(context_of(SendMessageOperator(task_id=name, recipient="x")))
        assert (len(sent_to(store, "a")), len(sent_to(store, "b"))) == (1, 1)

    def test_of_a_task_whose_process_was_killed_the_state_is_told_by_its_tries(self):
        with DAG("killed"):
            operator = SendMessageOperator(task_id="work", recipient="x")
        context = context_of(operator)
        context["ti"].max_tries = 1
        assert outcome_of(context).state == "up_for_retry"
        context["ti"].try_number = 2
        assert outcome_of(context).state == "failed"

    def test_what_cannot_be_an_address_is_refused_when_the_dag_is_parsed(self):
        with pytest.raises(ConfigurationError, match="not both"):
            AgenticNotifier(recipient="a", topic="b")
        with pytest.raises(InvalidMessage, match="recipient"):
            AgenticNotifier(recipient="no box")
        with pytest.raises(InvalidMessage, match="priority"):
            AgenticNotifier(priority=10)
