"""Whether durable runs go on: none damaged, none that needs a person or that nobody took over."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import filterfalse, islice

from airflow_agentic.cli.checks.finding import Finding, Result
from airflow_agentic.cli.checks.work import ABANDONED_SECONDS
from airflow_agentic.cli.output import count, span
from airflow_agentic.persistence import RunQuery, RunStatus
from airflow_agentic.persistence.glances import Glance, moment
from airflow_agentic.persistence.views import Doubt
from airflow_agentic.stores import Store

CHECK = "runs"

_LEFT = (RunStatus.WAITING, RunStatus.FAILED, RunStatus.RUNNING)
_NAMED = 5
# Of so many the journals are read.
_READ = 200


def journals(store: Store) -> Finding:
    """Look for runs in quarantine."""
    damaged = [*_each(store, RunStatus.QUARANTINED)]
    if not damaged:
        return Finding("journals", Result.OK, "no run is in quarantine")
    first = damaged[0].head
    key = shlex.quote(first.stream)
    return Finding(
        "journals",
        Result.WARNING,
        f"{count(len(damaged), 'run')} in quarantine: {_named(damaged)}; {first.error}",
        f"`airflow agentic runs verify {key}` names what is damaged; `airflow agentic runs fork {key} --at VERSION "
        "--reason TEXT` goes on from a version before, or restore the store from a backup",
    )


def ambiguous(store: Store) -> Finding:
    """Look for steps about which a person has to decide."""
    asking = [
        (glance, doubt)
        for glance in islice(filterfalse(_is_held, _each(store, *_LEFT)), _READ)
        for doubt in store.runs.views.of(glance.head.stream, glance.now).ambiguous
        if doubt.declared == "ask"
    ]
    if not asking:
        return Finding("steps", Result.OK, "no step waits for a person's decision")
    glance, doubt = asking[0]
    words = f"{shlex.quote(glance.head.stream)} {shlex.quote(doubt.step)}"
    return Finding(
        "steps",
        Result.WARNING,
        "nobody knows whether these took place, and they are not to be repeated unasked: " + _doubts(asking),
        f"look whether its effect took place; if so `airflow agentic runs skip-step {words} --reason TEXT`, if not "
        f"`airflow agentic runs retry-step {words} --reason TEXT`",
    )


def stale(store: Store) -> Finding:
    """Look for runs whose worker is gone, and that nobody took over."""
    running = [*_each(store, RunStatus.RUNNING)]
    left = [each for each in running if each.is_stale and _seconds(each) > ABANDONED_SECONDS]
    if not left:
        return Finding(CHECK, Result.OK, f"{count(len(running), 'run')} being worked on, none left behind")
    first = left[0].head
    clear = "--clear " if first.task else ""
    return Finding(
        CHECK,
        Result.WARNING,
        f"whoever worked on these is gone, and nobody took over, for up to {span(max(map(_seconds, left)))}: {_named(left)}",
        f"`airflow agentic runs show {shlex.quote(first.stream)}` says how it stands; `airflow agentic runs resume "
        f"{shlex.quote(first.stream)} {clear}--reason TEXT` lets it go on",
    )


def _each(store: Store, *statuses: RunStatus) -> Iterator[Glance]:
    return store.runs.views.each(RunQuery(statuses=statuses), datetime.now(UTC))


def _is_held(glance: Glance) -> bool:
    return glance.is_held


def _seconds(glance: Glance) -> float:
    since = max(glance.changed_at, moment(glance.head.lease_until_ms))
    return (glance.now - since).total_seconds()


def _named(glances: Sequence[Glance]) -> str:
    more = f" and {len(glances) - _NAMED} more" if len(glances) > _NAMED else ""
    return ", ".join(each.head.stream for each in glances[:_NAMED]) + more


def _doubts(asking: Sequence[tuple[Glance, Doubt]]) -> str:
    more = f" and {len(asking) - _NAMED} more" if len(asking) > _NAMED else ""
    return ", ".join(f"{doubt.step} of {glance.head.stream}" for glance, doubt in asking[:_NAMED]) + more
