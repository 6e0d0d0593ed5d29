"""The agents of the licence audit.

Nothing here says which of them works under which name: ``agentic.yaml`` does, and ``agentic.strict.yaml`` over it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from airflow_agentic.agents import AgentContext, BaseAgent
from audit_report import Audit, DeadRecord, write_report
from licenses import ApprovedLicenses, DistributionRecord, Family, Verdict, judge, read_installed

AUDITOR, REPORTER, REVIEWER = "license-auditor", "reporter", "reviewer"
PLANTED = "planted-broken-record"


class Inventory(BaseModel):
    """How many records were sent."""

    installed: int
    planted: int


class InventoryTask(BaseModel):
    """What to take stock of: ``plant_broken_record`` adds one unreadable record, to show where such go."""

    model_config = ConfigDict(extra="forbid")

    plant_broken_record: bool = False


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


class LicenseAuditor(BaseAgent[DistributionRecord, Verdict]):
    """Judges the licence of one distribution: permissive, weak or strong copyleft, or unknown."""

    config_model = AuditorConfig

    def process(self, task: DistributionRecord, ctx: AgentContext) -> Verdict:
        """Judge one record, and tell those who want to know."""
        time.sleep(ctx.config.pause_seconds)
        verdict = self.judge(task)
        ctx.send(REPORTER, verdict, type="license.verdict", subject=task.name)
        if verdict.needs_review:
            ctx.send(REVIEWER, verdict, type="license.finding", subject=task.name)
        return verdict

    def judge(self, record: DistributionRecord) -> Verdict:
        """Say what the licence of one distribution comes to."""
        return judge(record)


class StrictLicenseAuditor(LicenseAuditor):
    """Judges the same way, and lets a person see every licence that the company has not approved."""

    def __init__(self, approved: ApprovedLicenses, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._approved = approved

    def judge(self, record: DistributionRecord) -> Verdict:
        """Say what the licence comes to, and whether it is approved."""
        verdict = super().judge(record)
        if self._approved.cover(verdict.spdx):
            return verdict
        said = f"{verdict.spdx} is" if verdict.spdx else "What has no SPDX expression is"
        reason = f"{verdict.reason} {said} not approved."
        return verdict.model_copy(update={"needs_review": True, "reason": reason})


class ReporterConfig(BaseModel):
    """Where the report goes, and what the verdicts must add up to: the operator knows, when the DAG runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: Path
    inventory: Inventory
    dead: list[DeadRecord] = []


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


_ADVICE = {
    Family.STRONG_COPYLEFT: "Ask counsel before this is distributed: source of the whole work may be owed.",
    Family.WEAK_COPYLEFT: "Keep it a separate, replaceable library, and offer its source.",
    Family.PERMISSIVE: "The evidence contradicts itself: read the licence text and correct the metadata.",
    Family.UNKNOWN: "No licence was recognised: read the project's page; without a licence nothing is allowed.",
}
_NOT_APPROVED = "Have its licence approved, or replace it."


class ReviewNote(BaseModel):
    """What a person should do about a finding."""

    distribution: str
    family: Family
    advice: str
    reason: str


def review(findings: list[Verdict], approved: ApprovedLicenses | None = None) -> list[ReviewNote]:
    """Say what a person should do about each finding; ``approved`` is given where the project has such a list."""
    return [
        ReviewNote(
            distribution=f"{finding.name} {finding.version}",
            family=finding.family,
            advice=_ADVICE[finding.family] if not approved or approved.cover(finding.spdx) else _NOT_APPROVED,
            reason=finding.reason,
        )
        for finding in findings
    ]
