"""Starts when an auditor finds something: one review note for each finding.

Nobody polls and nobody holds a slot: the triggerer watches the mailbox ``reviewer``, and a message is acked
only when its review note is written. If this DAG fails, the messages wait and it is started again.
"""

from __future__ import annotations

import pendulum
from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
from airflow.sdk import DAG, Asset, AssetWatcher
from pydantic import BaseModel

from airflow_agentic.agents import agent
from airflow_agentic.operators.agents import RunAgentOperator
from licenses import Family, Verdict

findings_asset = Asset(
    name="license_findings",
    watchers=[
        AssetWatcher(
            name="reviewer_mailbox", trigger=MessageQueueTrigger(scheme="agentic", mailbox="reviewer")
        )
    ],
)

_ADVICE = {
    Family.STRONG_COPYLEFT: "Ask counsel before this is distributed: source of the whole work may be owed.",
    Family.WEAK_COPYLEFT: "Keep it a separate, replaceable library, and offer its source.",
    Family.PERMISSIVE: "The evidence contradicts itself: read the licence text and correct the metadata.",
    Family.UNKNOWN: "No licence was recognised: read the project's page; without a licence nothing is allowed.",
}


class ReviewNote(BaseModel):
    """What a person should do about a finding."""

    distribution: str
    family: Family
    advice: str
    reason: str


@agent("reviewer")
def review(findings: list[Verdict]) -> list[ReviewNote]:
    """Say what a person should do about each finding."""
    return [
        ReviewNote(
            distribution=f"{finding.name} {finding.version}",
            family=finding.family,
            advice=_ADVICE[finding.family],
            reason=finding.reason,
        )
        for finding in findings
    ]


with DAG(
    "license_review",
    schedule=[findings_asset],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["agentic", "example"],
    doc_md=__doc__,
):
    RunAgentOperator(task_id="review", agent=review, mailbox="reviewer", gather=True, retries=3)
