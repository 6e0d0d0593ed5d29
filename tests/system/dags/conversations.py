"""One DAG asks, another one that starts on messages answers; the outcomes are told on the bus."""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, Asset, AssetWatcher, dag, get_current_context, task

from airflow_agentic import runtime
from airflow_agentic.notifications.messaging import AgenticNotifier
from airflow_agentic.operators.requests import RequestOperator
from airflow_agentic.triggers.messaging import AgentMessageTrigger

start = pendulum.datetime(2026, 1, 1, tz="UTC")
tell = AgenticNotifier(recipient="outcomes")

with DAG("ask_oracle", schedule=None, start_date=start, on_success_callback=tell, on_failure_callback=tell):
    RequestOperator(
        task_id="ask", recipient="oracle", data={"question": "{{ dag_run.conf['question'] }}"}, timeout=120,
        on_success_callback=tell, on_failure_callback=tell,
    )  # fmt: skip

questions = Asset("questions", watchers=[AssetWatcher(name="oracle", trigger=AgentMessageTrigger("oracle"))])


@dag(schedule=[questions], start_date=start, catchup=False)
def answer_questions():
    @task.on_message(mailbox="oracle")
    def answer(message):
        return {"answer": len(message.data["question"])}

    @task
    def started_by():
        return [each.mailbox for each in runtime.started_by(get_current_context())]

    answer()
    started_by()


answer_questions()
