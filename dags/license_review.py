"""Starts when an auditor finds something: one review note for each finding.

Nobody polls and nobody holds a slot: the triggerer watches the mailbox ``reviewer``, and a message is acked
only when its review note is written. If this DAG fails, the messages wait and it is started again. Who reviews
says the project file (``agentic.yaml``).
"""

from __future__ import annotations

import pendulum
from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_agentic.operators.agents import RunAgentOperator

findings_asset = Asset(
    name="license_findings",
    watchers=[
        AssetWatcher(
            name="reviewer_mailbox", trigger=MessageQueueTrigger(scheme="agentic", mailbox="reviewer")
        )
    ],
)

with DAG(
    "license_review",
    schedule=[findings_asset],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["agentic", "example"],
    doc_md=__doc__,
):
    RunAgentOperator(task_id="review", agent="reviewer", mailbox="reviewer", gather=True, retries=3)
