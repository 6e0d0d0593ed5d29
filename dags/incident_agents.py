"""The agents of the incident triage: who collects failures, reads logs, correlates, classifies, decides and reports.

Each is plain Python. What they are called, and the rules that they go by, says the project file (``agentic.yaml``).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_agentic.agents import AgentContext, BaseAgent
from airflow_agentic.errors import ReplyTimeout, ServiceRefused
from airflow_agentic.messaging import Message
from incident_airflow import AirflowApi
from incident_book import IncidentBook, evidence_text, report_of, report_text
from incident_causes import Rule, correlated, evidence_of, judged, shortened
from incident_models import Choice, Decision, Evidence, Failure, Incident, Intake, SetAside, Verdict

ASK = "ask"


class CollectorConfig(BaseModel):
    """What belongs to one run of the triage.

    Attributes:
        gather_seconds: What comes so soon after the first one.
        most: At most so many. The others are for the next run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gather_seconds: float = Field(default=5.0, ge=0)
    most: int = Field(default=50, ge=1, le=500)


class Collector(BaseAgent[str, list[Failure]]):
    """Takes the messages of a mailbox for one run of the triage, whose report they will be in.

    Each is recorded in the durable run before it is acked, and the result with its end: a task that is killed anywhere takes
    none twice and loses none.
    """

    config_model = CollectorConfig

    def __init__(self, book: IncidentBook, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._book = book

    def process(self, task: str, ctx: AgentContext) -> list[Failure]:
        """Collect what came to the mailbox ``task``."""
        assert ctx.run is not None
        if ctx.config.gather_seconds:
            ctx.sleep_until(ctx.durable.now + timedelta(seconds=ctx.config.gather_seconds), name="gather")
        came: list[Message] = []
        with contextlib.suppress(ReplyTimeout):  # nothing is left
            while len(came) < ctx.config.most:
                came.append(ctx.wait_for_message(task, timeout=0))
        run, intake = ctx.run.correlation_id, _sorted(came, ctx.run.dag_id)
        intake = ctx.step("claim", self._book.claim, run, intake, on_change="keep")
        found = Intake.model_validate(intake)
        for each in found.set_aside:
            ctx.log.warning("set aside: %s: %s", each.what, each.why)
        ctx.checkpoint("collected")
        return found.failures


def _sorted(messages: list[Message], own_dag: str) -> Intake:
    failures: list[Failure] = []
    set_aside: list[SetAside] = []
    for message in messages:
        name = hashlib.sha256(f"{message.source} {message.id}".encode()).hexdigest()[:20]
        try:
            failure = Failure.model_validate({**_map(message.data), "id": name})
        except ValidationError as error:
            wrong = f"it tells of no task: {error.errors()[0]['loc']} {error.errors()[0]['msg']}"
            set_aside.append(SetAside(id=name, what=f"message {message.id} of {message.source}", why=wrong))
            continue
        if failure.dag_id == own_dag:
            # Else a fault of the triage would start one triage after the other.
            set_aside.append(
                SetAside(id=name, what=str(failure), why="the triage does not look after itself")
            )
        elif failure.state != "failed":
            why = f"it is {failure.state}, and has not failed for good"
            set_aside.append(SetAside(id=name, what=str(failure), why=why))
        else:
            failures.append(failure)
    return Intake(failures=failures, set_aside=set_aside)


def _map(data: Any) -> dict[str, Any]:
    return dict(data) if isinstance(data, dict) else {}


def read_log(failure: Failure, ctx: AgentContext, api: AirflowApi) -> Evidence:
    """Read the log of the try that failed. Where there is none, the message must do."""
    try:
        records = api.log(failure)
    except ServiceRefused as error:
        ctx.degrade(f"the log of {failure} cannot be read: {error}")
        records = []
    return evidence_of(failure, records, api.link(failure))


class CorrelatorConfig(BaseModel):
    """What failures with the same cause may differ in.

    Attributes:
        ignore: Regular expressions: what they match counts as the same, beside numbers, ids, paths and addresses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ignore: list[re.Pattern[str]] = []


class Correlator(BaseAgent[list[Evidence], list[Incident]]):
    """Makes one incident of failures with the same cause."""

    config_model = CorrelatorConfig

    def process(self, task: list[Evidence], ctx: AgentContext) -> list[Incident]:
        """Group them."""
        incidents = correlated(task, ctx.config.ignore)
        ctx.log.info("%s failures, %s incidents", len(task), len(incidents))
        return incidents


class ClassifierConfig(BaseModel):
    """The rules to go by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: list[Rule]


class Classifier(BaseAgent[Incident, Verdict]):
    """Says what kind of incident it is, how sure that is, and which lines say so."""

    config_model = ClassifierConfig

    def process(self, task: Incident, ctx: AgentContext) -> Verdict:
        """Find the rule that fits."""
        return judged(task, ctx.config.rules)


class ResolverConfig(BaseModel):
    """Who decides what.

    Attributes:
        actions: Category to ``retry``, ``ticket`` or ``ask``; a person is asked about any other one.
        least_confidence: A person is asked about what is less sure.
        retries: So often a task is tried again for the same cause; then it is a ticket.
        wait_seconds: What is tried again waits so long first, without a slot: the cause may go.
        answer_within_seconds: So long a person is waited for; then it is a ticket.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    actions: dict[str, str] = {}
    least_confidence: float = Field(default=0.7, ge=0, le=1)
    retries: int = Field(default=2, ge=0)
    wait_seconds: float = Field(default=30.0, ge=0)
    answer_within_seconds: float = Field(default=4 * 3600.0, gt=0)


_ANSWER = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "title": "What to do", "enum": [str(choice) for choice in Choice]},
        "note": {"type": "string", "title": "Why"},
    },
    "required": ["decision"],
}


_NOBODY = {"action": str(Choice.TICKET), "by": "nobody", "why": "no person answered in time"}
_SHORTEST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=10), timedelta(minutes=5)


class Resolver(BaseAgent[Verdict, Decision]):
    """Decides about one incident, or asks who can, and does it."""

    config_model = ResolverConfig

    def __init__(self, api: AirflowApi, book: IncidentBook, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._api = api
        self._book = book

    def process(self, task: Verdict, ctx: AgentContext) -> Decision:
        """Decide, and do it; each effect is a durable step that changes nothing when it is repeated.

        What is done stays done when a new version comes while a person is asked (``on_change="keep"``).
        """
        ctx.emit(
            {
                "incident": task.incident.id,
                "tasks": [str(failure) for failure in task.incident.failures],
                "category": task.category,
                "confidence": task.confidence,
            }
        )
        ctx.checkpoint("evidence")
        planned = ctx.step("plan", self._planned, task, ctx.config, on_change="keep")
        if planned["action"] == ASK:
            planned = self._asked(task, ctx)
        choice, by, why = Choice(planned["action"]), planned["by"], planned["why"]
        ctx.emit({"choice": choice, "by": by, "why": why})
        ctx.checkpoint("decided")
        ticket = None
        failures = task.incident.failures
        if choice is Choice.RETRY:
            outcomes = self._retried(task, ctx, waits=by == "rules")
        elif choice is Choice.TICKET:
            ticket = ctx.step("ticket", self._book.write_ticket, task, why, on_change="keep")
            outcomes = {failure.id: "in the ticket" for failure in failures}
        else:
            outcomes = {failure.id: "ignored" for failure in failures}
        ctx.checkpoint("done")
        return Decision(
            incident=task.incident.id,
            raised=task.incident.raised,
            category=task.category,
            confidence=task.confidence,
            choice=choice,
            by=by,
            why=why,
            failures=failures,
            outcomes=outcomes,
            ticket=ticket,
        )

    def _planned(self, verdict: Verdict, config: ResolverConfig) -> dict[str, str]:
        """Say what the rules make of it. A step: the answer may be another one tomorrow."""
        incident = verdict.incident
        action = config.actions.get(verdict.category, ASK)
        why = f"{verdict.category}: {shortened('; '.join(verdict.because), 200)}"
        if action != ASK and verdict.confidence < config.least_confidence:
            action, why = ASK, f"{verdict.confidence:.0%} sure of {why}"
        if (
            action == Choice.RETRY
            and (tried := self._book.retries(incident.id, incident.failures)) >= config.retries
        ):
            action, why = Choice.TICKET, f"tried again {tried} times, and the cause has not gone"
        if action == ASK and self._book.open_ticket(incident.id):
            action, why = Choice.TICKET, "there is an open ticket for it"
        return {"action": action, "by": "rules", "why": why}

    def _asked(self, verdict: Verdict, ctx: AgentContext) -> dict[str, str]:
        incident, run = verdict.incident, ctx.durable
        until = run.now + timedelta(seconds=ctx.config.answer_within_seconds)
        other = ctx.step("ask", self._book.ask, incident.id, run.key, until, on_change="keep")
        if other is not None:
            # A person is asked about it already, for failures that came earlier.
            return self._heard(incident.id, other, ctx)
        tasks = ", ".join(dict.fromkeys(f"{each.dag_id}.{each.task}" for each in incident.failures))
        question = (
            f"{shortened(str(incident.raised), 200)} ({shortened(tasks, 200)}): retry, ticket, or ignore?"
        )
        try:
            said = ctx.interrupt(
                question, _ANSWER, name="decision", deadline=until, details=evidence_text(verdict)
            )
        except ReplyTimeout:
            return _NOBODY
        answer = {"action": said["decision"], "by": "a person", "why": said.get("note") or "a person said so"}
        ctx.step("tell", self._book.tell, incident.id, run.key, answer, on_change="keep")
        return answer

    def _heard(self, incident: str, asker: str, ctx: AgentContext) -> dict[str, str]:
        """Wait for the answer to somebody else's question: the same person need not answer it twice."""
        pause = _SHORTEST_PAUSE
        while True:
            is_over, answer = ctx.step("listen", self._book.heard, incident, asker, on_change="keep")
            if is_over:
                return answer or _NOBODY
            ctx.sleep_until(ctx.durable.now + pause, name="listen")
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _retried(self, verdict: Verdict, ctx: AgentContext, *, waits: bool) -> dict[str, str]:
        if waits and ctx.config.wait_seconds:
            ctx.sleep_until(ctx.durable.now + timedelta(seconds=ctx.config.wait_seconds), name="before-retry")
        incident = verdict.incident
        outcomes: dict[str, str] = {}
        for each in incident.failures:
            name = f"retry {each.dag_id}.{each.task}"
            outcomes[each.id] = ctx.step(name, self._try_again, incident.id, each, on_change="keep")
        return outcomes

    def _try_again(self, incident: str, failure: Failure) -> str:
        """Let Airflow try a task again, if it still stands where it failed: done before, it does nothing."""
        if not self._api.is_still_failed(failure):
            return "not failed any more"
        count = self._book.count_retry(incident, failure)
        self._api.clear(failure, f"Incident {incident}: retry {count}, by the incident triage.")
        return "tried again"


def report(decisions: list[Decision], ctx: AgentContext, book: IncidentBook) -> dict[str, Any]:
    """Say what came to this run of the triage and what was decided, once more from what was written down as it came."""
    assert ctx.run is not None
    run = ctx.run.correlation_id
    intake = book.intake(run)
    summary = report_of(run, intake, decisions)
    if not summary["came"]:
        return {**summary, "files": {}}
    if not summary["adds_up"]:
        ctx.degrade("what came, and what was decided, differ")
    return {**summary, "files": book.write_report(run, summary, report_text(intake, decisions, summary))}
