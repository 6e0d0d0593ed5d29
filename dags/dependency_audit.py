"""Audits the licences of everything installed in this Python environment, with agents that talk to each other.

``inventory`` sends one message for each installed distribution to the mailbox ``license-auditor``. Several
auditors compete for them: each judges a record, sends the verdict to ``reporter`` and what a person should see
to ``reviewer``, in one commit with the ack. A record that no auditor can read goes to the dead letters.
``reporter`` gathers the verdicts and writes the report. ``license_review.py`` starts when a finding arrives.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pendulum
from airflow.sdk import Param, dag, get_current_context, task
from pydantic import BaseModel, ConfigDict, Field

from airflow_agentic.agents import AgentContext, BaseAgent, agent
from airflow_agentic.hooks.messaging import AgenticHook
from airflow_agentic.operators.agents import RunAgentOperator
from audit_report import Audit, DeadRecord, write_report
from licenses import DistributionRecord, Verdict, judge, read_installed

AUDITOR, REPORTER, REVIEWER = "license-auditor", "reporter", "reviewer"
PLANTED = "planted-broken-record"
REPORTS = str(Path(os.environ.get("AIRFLOW_HOME", "~/airflow")) / "reports")


class Inventory(BaseModel):
    """How many records were sent."""

    installed: int
    planted: int


class InventoryTask(BaseModel):
    """What to take stock of: ``plant_broken_record`` adds one unreadable record, to show where such go."""

    model_config = ConfigDict(extra="forbid")

    plant_broken_record: bool = False


@agent("inventory")
def take_inventory(order: InventoryTask, ctx: AgentContext) -> Inventory:
    """Send one message for each installed distribution."""
    installed = 0
    for record in read_installed():
        ctx.send(AUDITOR, record, type="distribution.found", subject=str(record["name"]), key=f"#{installed}")
        installed += 1
    if order.plant_broken_record:
        broken = {"name": PLANTED, "version": "not a version"}
        ctx.send(AUDITOR, broken, type="distribution.found", subject=PLANTED)
    ctx.log.info("%s distributions found", installed)
    return Inventory(installed=installed, planted=int(order.plant_broken_record))


class AuditorConfig(BaseModel):
    """``pause_seconds`` pretends that judging takes so long, to watch the agents at work."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pause_seconds: float = Field(default=0, ge=0)


@agent(AUDITOR)
class LicenseAuditor(BaseAgent[DistributionRecord, Verdict]):
    """Judges the licence of one distribution: permissive, weak or strong copyleft, or unknown."""

    config_model = AuditorConfig

    def process(self, task: DistributionRecord, ctx: AgentContext) -> Verdict:
        """Judge one record, and tell those who want to know."""
        time.sleep(ctx.config.pause_seconds)
        verdict = judge(task)
        ctx.send(REPORTER, verdict, type="license.verdict", subject=task.name)
        if verdict.needs_review:
            ctx.send(REVIEWER, verdict, type="license.finding", subject=task.name)
        return verdict


class ReporterConfig(BaseModel):
    """Where the report goes, and what the verdicts must add up to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: Path
    inventory: Inventory
    dead: list[DeadRecord] = []


@agent(REPORTER)
class Reporter(BaseAgent[list[Verdict], dict[str, Any]]):
    """Writes the report of one audit."""

    config_model = ReporterConfig

    def process(self, task: list[Verdict], ctx: AgentContext) -> dict[str, Any]:
        """Count the verdicts of this run once each, and write Markdown and JSON."""
        run = ctx.run.correlation_id if ctx.run else ""
        mine = [(m, v) for m, v in zip(ctx.messages, task, strict=True) if m.correlation_id == run]
        verdicts = {message.causation_id: verdict for message, verdict in mine}
        audit = Audit(
            run=run,
            installed=ctx.config.inventory.installed,
            verdicts=list(verdicts.values()),
            dead=[record for record in ctx.config.dead if record.subject != PLANTED],
            planted=[record for record in ctx.config.dead if record.subject == PLANTED],
            repeated=len(mine) - len(verdicts),
        )
        summary = write_report(audit, ctx.config.directory)
        if not audit.adds_up:
            ctx.degrade(f"{audit.installed} installed, but {audit.judged} judged and {len(audit.dead)} dead")
        return summary


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
        "pause_seconds": Param(0, type="number", minimum=0),
        "lease_seconds": Param(30, type="number", minimum=0.5),
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
        return [{"pause_seconds": params["pause_seconds"]}] * params["auditors"]

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
        agent=take_inventory,
        task={"plant_broken_record": "{{ params.plant_broken_record }}"},
    )
    audit = RunAgentOperator.partial(
        task_id="audit", agent=LicenseAuditor, mailbox=AUDITOR, lease="{{ params.lease_seconds }}"
    ).expand(config=auditors())
    dead = dead_records()
    report = RunAgentOperator(
        task_id="report",
        agent=Reporter,
        mailbox=REPORTER,
        gather=True,
        config={
            "directory": "{{ params.report_directory }}",
            "inventory": inventory.output,
            "dead": dead,
        },
    )
    inventory >> audit >> dead >> report


dependency_audit()
