"""An agent that cannot do its work: a person is asked, and no worker waits."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG

from airflow_agentic.agents import agent
from airflow_agentic.errors import ServiceError
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.resilience import Fallback, Policy


@agent(name="hopeless")
def hopeless(task: dict[str, Any]) -> dict[str, Any]:
    """Fail, as if what it asks had gone."""
    raise ServiceError(f"nobody knows {task['question']}")


with DAG("ask_a_person", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False):
    RunAgentOperator(
        task_id="ask",
        agent="hopeless",
        task={"question": "{{ dag_run.conf.get('question', 'why') }}"},
        policy=Policy(
            fallback=Fallback(person="What is the answer?", person_seconds=600, default={"answer": None})
        ),
    )
