"""Starts when an auditor finds something: one review note for each finding.

Nobody polls and nobody holds a slot: the triggerer receives the mailbox ``reviewer``, and a message is acked
only when its event is in Airflow's database.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
from airflow.sdk import Asset, AssetWatcher, dag, get_current_context, task
from pydantic import BaseModel

from airflow_agentic.agents import agent
from airflow_agentic.operators.agents import RunAgentOperator
from licenses import Family, Verdict

findings = Asset(
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
def review(finding: Verdict) -> ReviewNote:
    """Say what a person should do about a finding."""
    return ReviewNote(
        distribution=f"{finding.name} {finding.version}",
        family=finding.family,
        advice=_ADVICE[finding.family],
        reason=finding.reason,
    )


@dag(
    schedule=[findings],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["agentic", "example"],
    doc_md=__doc__,
)
def license_review() -> None:
    """One mapped review for each message that started this run."""

    @task
    def arrived() -> list[dict[str, Any]]:
        """Return the data of the messages."""
        events = get_current_context()["triggering_asset_events"]
        return [event.extra["payload"]["message"]["data"] for several in events.values() for event in several]

    RunAgentOperator.partial(task_id="review", agent=review).expand(task=arrived())


license_review()
