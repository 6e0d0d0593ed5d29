"""Requests, answers and outcomes between DAGs of a booted Airflow."""

from __future__ import annotations

import pytest
from waiting import wait_until

from airflow_agentic.messaging.ports import DeliveryQuery


@pytest.fixture(autouse=True)
def ready(airflow):
    for dag_id in ("ask_oracle", "answer_questions"):
        airflow.client.wait_for_dag(dag_id, timeout_s=60)


def ask(airflow, question):
    run_id = airflow.client.trigger("ask_oracle", conf={"question": question})
    return run_id, airflow.client.wait("ask_oracle", run_id, timeout=120)


def outcomes(store, run_id):
    records = store.bus.find(DeliveryQuery(mailbox="outcomes", correlation_id=f"ask_oracle:{run_id}"))
    return {record.message.type: record.message for record in records}


def test_a_dag_asks_without_a_slot_and_a_dag_that_starts_on_messages_answers(airflow, store):
    run_id, state = ask(airflow, "why?")
    assert state == "success"
    assert airflow.client.xcom("ask_oracle", run_id, "ask") == {"answer": 4}

    kinds = ("request", "response")
    trace = [r for r in store.bus.trace(f"ask_oracle:{run_id}") if str(r.message.kind) in kinds]
    asked, answered = trace
    assert asked.message.run == f"ask_oracle/{run_id}/ask"
    handler, _, process = asked.owner.partition("@")
    assert handler.startswith("answer_questions/")
    assert answered.message.run == handler
    assert process
    assert asked.message.traceparent is not None
    assert answered.message.traceparent == asked.message.traceparent

    answering = handler.split("/")[1]
    wait_until(lambda: airflow.client.wait("answer_questions", answering, timeout=60) == "success")
    assert airflow.client.xcom("answer_questions", answering, "started_by") == ["oracle"]
    references = airflow.client.xcom("answer_questions", answering, "answer", key="agentic_messages")
    assert asked.message.id in {each["id"] for each in references}


def test_the_outcomes_of_the_task_and_of_the_run_are_told(airflow, store):
    run_id, state = ask(airflow, "how?")
    assert state == "success"
    wait_until(lambda: len(outcomes(store, run_id)) == 2)
    told = outcomes(store, run_id)
    assert set(told) == {"airflow.task.success", "airflow.dag.success"}
    assert told["airflow.task.success"].run == f"ask_oracle/{run_id}/ask"
    assert told["airflow.dag.success"].run == f"ask_oracle/{run_id}"
