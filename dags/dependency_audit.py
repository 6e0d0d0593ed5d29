"""Audits the licences of everything installed in this Python environment, with agents that talk to each other.

``inventory`` sends one message for each installed distribution to the mailbox ``license-auditor``. Several
auditors compete for them: each judges a record, sends the verdict to ``reporter`` and what a person should see
to ``reviewer``, in one commit with the ack. A record that no auditor can read goes to the dead letters.
``reporter`` gathers the verdicts and writes the report. ``license_review.py`` starts when a finding arrives.

This file names the agents. What each is made of says the project file: ``agentic.yaml``, and for a stricter company
``agentic.strict.yaml`` over it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.sdk import Param, dag, get_current_context, task

from airflow_agentic.hooks.messaging import AgenticHook
from airflow_agentic.operators.agents import RunAgentOperator

AUDITOR = "license-auditor"
REPORTS = str(Path(os.environ.get("AIRFLOW_HOME", "~/airflow")) / "reports")


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["agentic", "example"],
    doc_md=__doc__,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=1)},
    params={
        "auditors": Param(4, type="integer", minimum=1, maximum=32),
        # Where nothing is said, the project file and the auditor's policy hold.
        "pause_seconds": Param(None, type=["null", "number"], minimum=0),
        "lease_seconds": Param(None, type=["null", "number"], minimum=0.5),
        "plant_broken_record": Param(True, type="boolean"),
        "report_directory": Param(REPORTS, type="string"),
    },
    render_template_as_native_obj=True,
)
def dependency_audit() -> None:
    """Take stock, audit, report."""

    @task
    def auditors() -> list[dict[str, float]]:
        """Return one configuration for each auditor."""
        params = get_current_context()["params"]
        pause = params["pause_seconds"]
        return [{} if pause is None else {"pause_seconds": pause}] * params["auditors"]

    @task
    def dead_records() -> list[dict[str, str]]:
        """Return what this run left in the dead letters."""
        ctx = get_current_context()
        run = f"{ctx['dag'].dag_id}:{ctx['run_id']}"
        with AgenticHook().get_conn() as store:
            letters = store.bus.dead_letters(AUDITOR, limit=10_000)
        return [
            {"subject": str(letter.message.subject), "reason": str(letter.reason)}
            for letter in letters
            if letter.message and letter.message.correlation_id == run
        ]

    inventory = RunAgentOperator(
        task_id="inventory",
        agent="inventory",
        task={"plant_broken_record": "{{ params.plant_broken_record }}"},
    )
    audit = RunAgentOperator.partial(
        task_id="audit", agent=AUDITOR, mailbox=AUDITOR, lease="{{ params.lease_seconds }}"
    ).expand(config=auditors())
    dead = dead_records()
    report = RunAgentOperator(
        task_id="report",
        agent="reporter",
        mailbox="reporter",
        gather=True,
        config={
            "directory": "{{ params.report_directory }}",
            "inventory": inventory.output,
            "dead": dead,
        },
    )
    inventory >> audit >> dead >> report


dependency_audit()
