"""Failures of other DAGs come as messages; agents read the logs, find the causes, and decide.

A task with ``on_failure_callback=AgenticNotifier()`` tells of its failure on the topic ``airflow.task.failed``, and the
mailbox ``incidents`` hears of it (``agentic.yaml``). One run of this DAG takes what belongs together: failures that came
within seconds of each other. Those with the same cause are one incident. What will go by itself is tried again, a bug becomes
a ticket, and a person is asked about what no rule knows: on the page of required actions, or with ``airflow agentic runs
answer``. Tickets and reports are files in ``$AIRFLOW_HOME/incidents``.

Every task can be killed at any time: nothing is lost, and nothing is done twice. The failures of this DAG itself never come
here: the subscription leaves them out.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.workflows import map_reduce, on_message

with DAG(
    "incident_triage",
    schedule=on_message("incidents"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=8,  # one that waits for a person does not keep the others
    tags=["agentic", "example"],
    doc_md=__doc__,
    default_args={"retries": 5, "retry_delay": timedelta(seconds=10)},
) as triage:
    collect = RunAgentOperator(task_id="collect", agent="incident-collector", task="incidents")
    causes = map_reduce(
        "causes",
        items=collect.output,
        mapper={"agent": "incident-log-reader", "task_id": "read_log"},
        reducer={"agent": "incident-correlator", "task_id": "correlate"},
    )
    classify = RunAgentOperator.partial(task_id="classify", agent="incident-classifier").expand(
        task=causes.output
    )
    decisions = map_reduce(
        "decisions",
        items=classify.output,
        mapper={"agent": "incident-resolver", "task_id": "resolve"},
        reducer={"agent": "incident-reporter", "task_id": "report"},
    )
