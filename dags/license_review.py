"""Starts when an auditor finds something: one review note for each finding.

Nobody polls and nobody holds a slot: the triggerer watches the mailbox ``reviewer``, and a message is acked
only when its review note is written. If this DAG fails, the messages wait and it is started again. Who reviews
says the project file (``agentic.yaml``).
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG

from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.workflows import on_message

with DAG(
    "license_review",
    schedule=on_message("reviewer", name="license_findings"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["agentic", "example"],
    doc_md=__doc__,
):
    RunAgentOperator(task_id="review", agent="reviewer", mailbox="reviewer", gather=True, retries=3)
