"""Runs as people see them: how far, doing what, waiting for whom and since when, what went wrong, what people did.

Read from heads and journals; nothing is changed, and seals are not checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_agentic.errors import NotRecordable
from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.glances import Glance, Glances, Together, moment
from airflow_agentic.persistence.history import Event, head_of
from airflow_agentic.persistence.ports import IndexEntry, Record, RunHead, RunQuery, RunStatus, RunStores
from airflow_agentic.persistence.progress import Past, last_beginning
from airflow_agentic.persistence.reading import all_heads
from airflow_agentic.persistence.records import BEGINNINGS, RecordType, is_known

_MOST_READ = 500
# Records that lie so near each other are read at once.
_NEAR = 20
_WAITS = (RecordType.ASKED, RecordType.WAITING)
_FAILURES = (RecordType.BROKE, RecordType.FAILED)
_BY_PEOPLE = (RecordType.SKIPPED, RecordType.STATE_SET, RecordType.INTERVENED, RecordType.ANSWERED)
_TOLD = frozenset({*_WAITS, *_FAILURES, *_BY_PEOPLE, RecordType.AMBIGUOUS})


@dataclass(frozen=True)
class Failure:
    """Something that went wrong.

    Attributes:
        version: Of the event.
        at: When.
        step: Which step; empty for the run as a whole.
        category: Of the error.
        error: What it said.
    """

    version: int
    at: datetime
    step: str
    category: str
    error: str


@dataclass(frozen=True)
class Doubt:
    """A step of which nobody knows whether its effect took place.

    Attributes:
        step: Which.
        since: When it began.
        tries: How often it was begun.
        declared: What its code says to do: ``retry``, ``skip`` or ``ask``; empty if nobody knows.
    """

    step: str
    since: datetime
    tries: int
    declared: str


@dataclass(frozen=True)
class Settled:
    """An effect that may have taken place twice, or not at all.

    Attributes:
        version: Of the event.
        at: When that was decided.
        step: Which step.
        decision: ``retry`` or ``skip``.
        by: Who decided: ``declared``, or a person.
    """

    version: int
    at: datetime
    step: str
    decision: str
    by: str


@dataclass(frozen=True)
class Question:
    """What a run asks a person.

    Attributes:
        name: In the journal.
        question: What is asked.
        schema: JSON Schema of the answer; ``None`` for any.
        deadline: When nobody needs to answer any more, in ISO 8601; ``None`` for never.
        since: When it was asked.
        details: What whoever answers should see, as Markdown; may be empty.
    """

    name: str
    question: str
    schema: Mapping[str, Any] | None
    deadline: str | None
    since: datetime
    details: str = ""


@dataclass(frozen=True)
class Intervention:
    """What a person did.

    Attributes:
        version: Of the event.
        at: When.
        what: ``skipped``, ``state set``, ``answered``, ``retry``, ``released``, ``forked``, ``imported``.
        name: Of the step or question; empty for the run as a whole.
        actor: Who.
        reason: Why.
    """

    version: int
    at: datetime
    what: str
    name: str
    actor: str
    reason: str


@dataclass(frozen=True)
class RunView:
    """A run in full, but for its events.

    Attributes:
        glance: How it stands.
        tries: How often it was worked on, so that something was written: also each time that it went on after a wait. Of a
            fork those since it was made.
        is_begun_before: Whether its first records are forgotten, and it was worked on before, too.
        step_became: Type of the last record of the current step; empty if there is none.
        step_since: When the current step began; ``None`` if none goes on.
        waiting_since: When it began to wait; ``None`` if it does not.
        ambiguous: Steps that died between intent and result, and about which nobody decided.
        settled: Those about which it was decided, oldest first.
        questions: What it asks, and nobody answered.
        errors: How often something went wrong, by category.
        failures: What went wrong, oldest first.
        interventions: What people did, oldest first.
        checkpoints: Names of moments, with their versions.
        unknown: Types of records that only a newer version knows.
    """

    glance: Glance
    tries: int = 0
    is_begun_before: bool = False
    step_became: str = ""
    step_since: datetime | None = None
    waiting_since: datetime | None = None
    ambiguous: tuple[Doubt, ...] = ()
    settled: tuple[Settled, ...] = ()
    questions: tuple[Question, ...] = ()
    errors: Mapping[str, int] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    interventions: tuple[Intervention, ...] = ()
    checkpoints: tuple[tuple[str, int], ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def head(self) -> RunHead:
        """How the run stands."""
        return self.glance.head


class RunViews:
    """Looks at runs.

    Args:
        stores: Where they are.
        claims: Reads data that lies elsewhere.
    """

    def __init__(self, stores: RunStores, claims: Claims) -> None:
        self._stores = stores
        self._claims = claims

    def glances(self, query: RunQuery, now: datetime) -> list[Glance]:
        """Return how runs stand, at most as many as the query says; what changed last comes first."""
        looking = Glances(self._stores.runs, now)
        return [looking.of(head) for head in self._stores.runs.heads(query)]

    def each(self, query: RunQuery, now: datetime) -> Iterator[Glance]:
        """Yield how runs stand, however many there are: they are read page by page, and the query's limit does not count."""
        looking = Glances(self._stores.runs, now)
        return (looking.of(head) for head in all_heads(self._stores.runs, query))

    def together(self, correlations: Iterable[str], now: datetime) -> Together:
        """Return all runs of DAG runs or conversations, the oldest first."""
        found = [
            glance
            for correlation in dict.fromkeys(correlations)
            for glance in self.each(RunQuery(correlation=correlation), now)
        ]
        return Together(tuple(sorted(found, key=lambda each: (each.began_at, each.head.stream))))

    def of(self, key: str, now: datetime) -> RunView:
        """Return a run in full.

        Raises:
            RunNotFound: There is none of that key.
        """
        head = head_of(self._stores, key)
        index = self._stores.journals.index(key)
        past = Past(key, [entry for entry in index if is_known(entry.type)])
        glance = Glances(self._stores.runs, now).of(head)
        doubted = _doubted(past, index, is_held=glance.is_held)
        going_on = past.steps[head.step].version if _goes_on(past, head.step) and glance.is_held else 0
        wanted = [entry.version for entry in index if entry.type in _TOLD][-_MOST_READ:]
        wanted += [past.steps[step].version for step in doubted]
        events = {event.version: event for event in self._read(key, {*wanted, going_on} - {0})}
        failures = tuple(_failures(events))
        return RunView(
            glance,
            tries=_tries(index, events),
            is_begun_before=head.version > 0 and (not index or index[0].version > 1),
            step_became=past.steps[head.step].type if head.step in past.steps else "",
            step_since=events[going_on].at if going_on in events else None,
            waiting_since=_waiting_since(head, index, events),
            ambiguous=tuple(_doubts(past, doubted, events)),
            settled=tuple(_settled(events)),
            questions=tuple(_questions(past, index, events)),
            errors=dict(Counter(each.category for each in failures)),
            failures=failures,
            interventions=tuple(_interventions(events)),
            checkpoints=tuple((e.name, e.version) for e in index if e.type == RecordType.CHECKPOINT),
            unknown=tuple(sorted({entry.type for entry in index if not is_known(entry.type)})),
        )

    # -- inside ----------------------------------------------------------------------------------------

    def _read(self, key: str, versions: Iterable[int]) -> Iterator[Event]:
        wanted = set(versions)
        for first, last in _ranges(sorted(wanted)):
            for record in self._stores.journals.read(key, first - 1, last - first + 1):
                if record.version in wanted:
                    yield self._event(record)

    def _event(self, record: Record) -> Event:
        try:
            data = self._claims.unpacked(record.data)
        except (NotRecordable, ValueError):
            data = None
        # Of a damaged record anything may have become.
        said = data if isinstance(data, dict) else {}
        return Event(record.version, str(record.type), record.at, record.name, said, record.digest.hex())


def _tries(index: Sequence[IndexEntry], events: Mapping[int, Event]) -> int:
    forked = (
        e.version for e in events.values() if e.type == RecordType.INTERVENED and _text(e, "what") == "forked"
    )
    since = max(forked, default=0)
    return sum(entry.type in BEGINNINGS and entry.version > since for entry in index)


def _goes_on(past: Past, step: str) -> bool:
    trace = past.steps.get(step)
    return trace is not None and trace.is_ambiguous


def _doubted(past: Past, index: Sequence[IndexEntry], *, is_held: bool) -> list[str]:
    """Return the steps that are ambiguous: while somebody works on the run, those that were begun before that."""
    began = last_beginning(index)
    return [
        step
        for step in past.unresolved
        if not past.steps[step].decided and (not is_held or past.steps[step].version < began)
    ]


def _doubts(past: Past, steps: Sequence[str], events: Mapping[int, Event]) -> Iterator[Doubt]:
    for step in steps:
        trace = past.steps[step]
        if (intent := events.get(trace.version)) is not None:
            yield Doubt(step, intent.at, trace.tries, _text(intent, "on_ambiguous"))


def _settled(events: Mapping[int, Event]) -> Iterator[Settled]:
    for event in events.values():
        # What a person decided beforehand is an intervention, and is told again when it was done.
        if event.type == RecordType.AMBIGUOUS and "reason" not in event.data:
            yield Settled(
                event.version,
                event.at,
                event.name,
                _text(event, "decision"),
                _text(event, "by") or "declared",
            )


def _waiting_since(
    head: RunHead, index: Sequence[IndexEntry], events: Mapping[int, Event]
) -> datetime | None:
    if head.status != RunStatus.WAITING:
        return None
    last = max((entry.version for entry in index if entry.type in _WAITS), default=0)
    return events[last].at if last in events else moment(head.updated_at_ms)


def _questions(past: Past, index: Sequence[IndexEntry], events: Mapping[int, Event]) -> Iterator[Question]:
    for entry in index:
        event = events.get(entry.version)
        if entry.type != RecordType.ASKED or event is None:
            continue
        if not past.version_of(RecordType.ANSWERED, entry.name):
            schema, deadline = event.data.get("schema"), event.data.get("deadline")
            yield Question(
                entry.name,
                _text(event, "question"),
                schema if isinstance(schema, dict) else None,
                None if deadline is None else str(deadline),
                event.at,
                _text(event, "details"),
            )


def _failures(events: Mapping[int, Event]) -> Iterator[Failure]:
    before: Failure | None = None
    for event in sorted(events.values(), key=lambda each: each.version):
        if event.type not in _FAILURES:
            continue
        step = event.name if event.type == RecordType.BROKE else ""
        failure = Failure(event.version, event.at, step, _text(event, "category"), _text(event, "error"))
        # What ended a step and then the run is one failure.
        is_same = before is not None and before.error == failure.error and before.version + 1 == event.version
        before = failure
        if not (is_same and not step):
            yield failure


def _interventions(events: Mapping[int, Event]) -> Iterator[Intervention]:
    for event in sorted(events.values(), key=lambda each: each.version):
        if what := _deed(event):
            actor = _text(event, "actor") or _text(event, "by")
            name = "" if event.type in (RecordType.STATE_SET, RecordType.INTERVENED) else event.name
            yield Intervention(event.version, event.at, what, name, actor, _text(event, "reason"))


def _deed(event: Event) -> str:
    """Return what a person did, in a word; nothing if no person did it."""
    if event.type == RecordType.AMBIGUOUS:
        return _text(event, "decision") if "reason" in event.data else ""
    if event.type == RecordType.SKIPPED:
        return "skipped" if _text(event, "actor") else ""
    if event.type == RecordType.INTERVENED:
        return _text(event, "what") or "intervened"
    return {RecordType.STATE_SET.value: "state set", RecordType.ANSWERED.value: "answered"}.get(
        event.type, ""
    )


def _text(event: Event, name: str) -> str:
    value = event.data.get(name)
    return "" if value is None else str(value)


def _ranges(versions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of what lies near each other."""
    first = last = 0
    for version in versions:
        if first and version - last > _NEAR:
            yield first, last
            first = 0
        first, last = first or version, version
    if first:
        yield first, last
