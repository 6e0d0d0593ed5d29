"""Durable runs as the commands show them: rows, lines, and everything for programs."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_agentic.cli.access import store_options
from airflow_agentic.cli.output import compact, count, exact, fields, iso, shorten, shorten_middle, span
from airflow_agentic.config.masking import mask_text
from airflow_agentic.persistence import RunStatus
from airflow_agentic.persistence.glances import Glance, Together, moment
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.persistence.views import Doubt, Failure, Question, RunView

KEY_WIDTH = 120
_NAME_WIDTH = 60
_WHY_WIDTH = 80
_LONG_WIDTH = 500
_SHOWN = 20
_BECAME: Mapping[str, str] = {
    RecordType.INTENDED: "was left in the middle",
    RecordType.BROKE: "failed",
    RecordType.SKIPPED: "was skipped",
}


def glance_data(glance: Glance) -> dict[str, Any]:
    """Return how a run stands, for programs."""
    head = glance.head
    return {
        "key": head.stream,
        "agent": head.agent,
        "persistence": head.mode,
        "status": head.status,
        "stale": glance.is_stale,
        "correlation": head.correlation,
        "task": head.task,
        "version": head.version,
        "digest": head.digest.hex(),
        "step": head.step,
        "done": head.done,
        "total": head.total or None,
        "seconds_left": None if glance.left is None else round(glance.left.total_seconds(), 3),
        "waiting_for": mask_text(head.waiting),
        "error": mask_text(head.error),
        "category": head.category,
        "owner": head.owner if glance.is_held else None,
        "lease_until": exact(moment(head.lease_until_ms)) if glance.is_held else None,
        "began_at": exact(glance.began_at),
        "changed_at": exact(glance.changed_at),
    }


def glance_row(glance: Glance) -> dict[str, object]:
    """Return a run as a row of ``runs list``."""
    head = glance.head
    return {
        "key": shorten(head.stream, KEY_WIDTH),
        "agent": shorten(head.agent, _NAME_WIDTH),
        "status": status_of(glance),
        "steps": progress_of(glance),
        "step": shorten(head.step, _NAME_WIDTH),
        "left": "" if glance.left is None else f"~ {span(glance.left.total_seconds())}",
        "changed": f"{span((glance.now - glance.changed_at).total_seconds())} ago",
        "why": shorten_middle(why(glance), _WHY_WIDTH),
    }


def status_of(glance: Glance) -> str:
    """Return how a run stands, for people."""
    return "running, nobody on it" if glance.is_stale else glance.head.status


def progress_of(glance: Glance) -> str:
    """Return how far a run is: ``3/7``, or ``3`` if nobody said how many there will be."""
    head = glance.head
    return f"{head.done:,}/{head.total:,}" if head.total else f"{head.done:,}"


def why(glance: Glance) -> str:
    """Return what a run waits for, or why it does not go on."""
    head = glance.head
    return mask_text(head.waiting or head.error)


def view_data(view: RunView) -> dict[str, Any]:
    """Return a run in full, for programs."""
    return {
        **glance_data(view.glance),
        "step_since": _maybe(view.step_since),
        "waiting_since": _maybe(view.waiting_since),
        "tries": view.tries,
        "tries_before": view.is_begun_before,
        "paced_by_runs": view.glance.paced_by,
        "ambiguous": [
            {"step": each.step, "since": exact(each.since), "tries": each.tries, "declared": each.declared}
            for each in view.ambiguous
        ],
        "settled": [
            {"version": e.version, "at": exact(e.at), "step": e.step, "decision": e.decision, "by": e.by}
            for e in view.settled
        ],
        "questions": [_question_data(each) for each in view.questions],
        "errors": dict(view.errors),
        "failures": [_failure_data(each) for each in view.failures],
        "interventions": [
            {
                "version": each.version,
                "at": exact(each.at),
                "what": each.what,
                "name": each.name,
                "actor": each.actor,
                "reason": each.reason,
            }
            for each in view.interventions
        ],
        "checkpoints": [{"name": name, "version": version} for name, version in view.checkpoints],
        "unknown_types": list(view.unknown),
    }


def together_data(together: Together) -> dict[str, Any]:
    """Return runs that belong together, for programs."""
    left = together.left
    return {
        "statuses": dict(together.statuses),
        "done": together.done,
        "total": together.total,
        "seconds_left": None if left is None else round(left.total_seconds(), 3),
        "errors": dict(together.errors),
        "runs": [glance_data(each) for each in together.runs],
    }


def together_line(together: Together) -> str:
    """Return a line on runs that belong together."""
    steps = f"{together.done:,}" if together.total is None else f"{together.done:,} of {together.total:,}"
    said = [
        f"{count(len(together.runs), 'run')}: {', '.join(f'{n} {name}' for name, n in together.statuses.items())}",
        f"{steps} steps done",
    ]
    if together.left is not None:
        said.append(f"about {span(together.left.total_seconds())} left")
    if together.errors:
        said.append("errors: " + _counted(together.errors))
    return "; ".join(said)


def view_lines(view: RunView, args: Namespace | None) -> Iterator[str]:
    """Yield a run in full, for people, and what can be done about it.

    Args:
        view: The run.
        args: Of the command; ``None`` for an archive, with which nothing can be done.
    """
    yield from fields(_facts(view))
    for title, lines in (
        ("Nobody knows whether the effect of these steps took place", _doubts(view.ambiguous, view, args)),
        ("Asks a person", _questions(view, args)),
        (f"What went wrong ({_counted(view.errors)})", _failures(view.failures)),
        ("Effects that may have taken place twice, or not at all", _settled(view)),
        ("What people did", _interventions(view)),
        ("Checkpoints", [f"{name}  version {version}" for name, version in view.checkpoints]),
        ("Records that only a newer version of this provider knows", list(view.unknown)),
        ("What to do", _ways_on(view, args)),
    ):
        told = list(lines)
        if told:
            yield title
            yield from (f"  {line}" for line in told)


def suggestion(verb: str, key: str, args: Namespace, rest: str = "") -> str:
    """Return a command about a run, ready to be copied."""
    return f"airflow agentic runs {verb} {shlex.quote(key)}{rest and ' ' + rest}{store_options(args)}"


# -- inside --------------------------------------------------------------------------------------------------


def _facts(view: RunView) -> dict[str, object]:
    glance, head = view.glance, view.head
    facts: dict[str, object] = {
        "Run": head.stream,
        "Agent": f"{head.agent} (persistence {head.mode})",
        "Status": f"{status_of(glance)}, {_since(glance.changed_at, glance.now)}",
        "Task": head.task or "(none of Airflow)",
        "Belongs to": head.correlation or "(nothing)",
        "Steps": _steps(view),
        "Tries": _tries(view),
    }
    if not glance.is_ended:
        facts["Time left"] = _left(glance)
    if head.waiting:
        since = f", {_since(view.waiting_since, glance.now)}" if view.waiting_since else ""
        facts["Waits for"] = f"{shorten(head.waiting, _LONG_WIDTH)}{since}"
    if head.error:
        facts["Error"] = f"[{head.category}] {shorten_middle(mask_text(head.error), _LONG_WIDTH)}"
    if glance.is_held:
        facts["Worked on by"] = f"{head.owner}, lease until {iso(moment(head.lease_until_ms))}"
    elif glance.is_stale:
        facts["Worked on by"] = f"nobody; {head.owner} did"
    facts["Began"] = iso(glance.began_at)
    facts["Journal"] = f"{count(head.version, 'event')}, sealed as {head.digest.hex()[:16]}"
    return facts


def _steps(view: RunView) -> str:
    head = view.head
    said = f"{head.done:,} of {head.total:,} done" if head.total else f"{head.done:,} done"
    if view.step_since is not None:
        return f"{said}; {head.step!r} is being done, {_since(view.step_since, view.glance.now)}"
    became = _BECAME.get(view.step_became, "was the last one")
    return f"{said}; {head.step!r} {became}" if head.step else said


def _tries(view: RunView) -> str:
    if view.is_begun_before:
        known = f"at least {view.tries:,}" if view.tries else "nobody knows how many"
        return f"({known}: its first records are forgotten)"
    return f"{view.tries:,}" if view.tries else "(none since it was made)"


def _left(glance: Glance) -> str:
    if glance.left is not None:
        runs = count(glance.paced_by, "finished run")
        return f"about {span(glance.left.total_seconds())}, going by {runs} of this agent"
    if glance.head.status == RunStatus.WAITING:
        return "(nobody knows: it waits)"
    if glance.is_stale:
        return "(nobody knows: nobody works on it)"
    return "(nobody knows: no run of this agent has finished, or none had so many steps)"


def _doubts(doubts: Sequence[Doubt], view: RunView, args: Namespace | None) -> Iterator[str]:
    key = view.head.stream
    for each in doubts:
        declared = f", its code says {each.declared}" if each.declared else ""
        yield f"{each.step}  begun {iso(each.since)}, {count(each.tries, 'try', 'tries')}{declared}"
    if doubts and args is not None:
        step = shlex.quote(doubts[0].step)
        yield "it took place:  " + suggestion("skip-step", key, args, f"{step} --result JSON --reason 'why'")
        yield "it did not:     " + suggestion("retry-step", key, args, f"{step} --reason 'why'")


def _questions(view: RunView, args: Namespace | None) -> Iterator[str]:
    for each in view.questions:
        until = f", until {_read(each.deadline)}" if each.deadline else ""
        yield f"{each.name}  {shorten(each.question, _LONG_WIDTH)}  ({_since(each.since, view.glance.now)}{until})"
        if each.schema:
            yield f"  as {compact(dict(each.schema), _LONG_WIDTH)}"
        # Whole, and marked: what a log says must not look like what this command says.
        yield from (f"  | {line}" for line in mask_text(each.details).splitlines())
        if args is not None:
            yield f"  {suggestion('answer', view.head.stream, args, f'{shlex.quote(each.name)} JSON')}"


def _failures(failures: Sequence[Failure]) -> Iterator[str]:
    if len(failures) > _SHOWN:
        yield f"(the last {_SHOWN} of {len(failures):,})"
    for each in failures[-_SHOWN:]:
        where = f"step {each.step}" if each.step else "the run"
        error = shorten_middle(mask_text(each.error), _LONG_WIDTH) or "(left out)"
        yield f"{each.version}  {iso(each.at)}  {where}  [{each.category}] {error}"


def _settled(view: RunView) -> Iterator[str]:
    told = {"retry": "was done again", "skip": "was skipped"}
    for each in view.settled:
        by = "as its code says" if each.by == "declared" else f"decided by {each.by}"
        yield f"{each.version}  {iso(each.at)}  {each.step} {told.get(each.decision, each.decision)}, {by}"


def _interventions(view: RunView) -> Iterator[str]:
    for each in view.interventions:
        what = f"{each.what} {each.name}".strip()
        yield f"{each.version}  {iso(each.at)}  {what}  {each.actor}  {shorten(each.reason, _LONG_WIDTH)}"


def _ways_on(view: RunView, args: Namespace | None) -> Iterator[str]:
    key, glance = view.head.stream, view.glance
    if args is None:
        return
    if glance.head.status == RunStatus.QUARANTINED:
        yield suggestion("verify", key, args)
        yield "if it was mended:  " + suggestion("resume", key, args, "--reason 'why'")
        yield "if not:            " + suggestion("fork", key, args, "--at VERSION --reason 'why'")
    elif glance.head.status == RunStatus.FAILED or glance.is_stale:
        clear = "--clear " if view.head.task else ""
        yield suggestion("resume", key, args, f"{clear}--reason 'why'")


def _question_data(question: Question) -> dict[str, Any]:
    return {
        "name": question.name,
        "question": question.question,
        "schema": question.schema and dict(question.schema),
        "deadline": question.deadline,
        "since": exact(question.since),
        "details": mask_text(question.details),
    }


def _failure_data(failure: Failure) -> dict[str, Any]:
    return {
        "version": failure.version,
        "at": exact(failure.at),
        "step": failure.step,
        "category": failure.category,
        "error": mask_text(failure.error),
    }


def _counted(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {category or 'of no category'}" for category, number in errors.items())


def _read(recorded: str) -> str:
    """Return a recorded time for people; as it is if it is none: what was left out of a file has something in its place."""
    try:
        return iso(datetime.fromisoformat(recorded))
    except ValueError:
        return recorded


def _since(then: datetime, now: datetime) -> str:
    return f"since {iso(then)} ({span((now - then).total_seconds())})"


def _maybe(then: datetime | None) -> str | None:
    return None if then is None else exact(then)
