"""Runs at a glance: how far each is, and how long it will take, going by others of its agent. Journals are not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median

from airflow_agentic.persistence.ports import RunHead, RunQuery, RunStatus, RunStore

ENDED = frozenset({RunStatus.FINISHED.value, RunStatus.FAILED.value, RunStatus.QUARANTINED.value})
"""Nobody works on such a run, and it waits for nothing; one that failed may go on later."""

_SAMPLE = 50


@dataclass(frozen=True)
class Pace:
    """How long runs of an agent take: the medians of those that finished last.

    Attributes:
        runs: How many it is made of.
        duration: From beginning to end, with all waits.
        steps: How many steps they had.
        per_step: How long one of them took.
    """

    runs: int
    duration: timedelta
    steps: int
    per_step: timedelta

    def left(self, head: RunHead, now: datetime) -> timedelta | None:
        """Return how long a run will take from now on; ``None`` if nobody can say."""
        total = head.total or self.steps
        if not total:
            rest = self.duration - (now - moment(head.created_at_ms))
            return rest if rest > timedelta(0) else None
        steps = total - head.done
        # One that has more steps than the others had ends nobody knows when.
        if steps < 0 or (not steps and not head.total):
            return None
        return self.per_step * steps


@dataclass(frozen=True)
class Glance:
    """How a run stands, without its journal.

    Attributes:
        head: As the store has it.
        now: When that was.
        left: How long it will take from now on, going by others of its agent; ``None`` if nobody can say.
        paced_by: How many finished runs that is made of.
    """

    head: RunHead
    now: datetime
    left: timedelta | None = None
    paced_by: int = 0

    @property
    def is_held(self) -> bool:
        """Whether somebody works on it now."""
        return moment(self.head.lease_until_ms) > self.now

    @property
    def is_stale(self) -> bool:
        """Whether it was being worked on, and whoever did that is gone."""
        return self.head.status == RunStatus.RUNNING and not self.is_held

    @property
    def is_ended(self) -> bool:
        """Whether nobody works on it and it waits for nothing."""
        return self.head.status in ENDED

    @property
    def changed_at(self) -> datetime:
        """When it was written last."""
        return moment(self.head.updated_at_ms)

    @property
    def began_at(self) -> datetime:
        """When it began."""
        return moment(self.head.created_at_ms)


@dataclass(frozen=True)
class Together:
    """Runs that belong together, across DAGs: those of a DAG run or a conversation.

    Attributes:
        runs: How each stands, the oldest first.
    """

    runs: tuple[Glance, ...]

    @property
    def statuses(self) -> Mapping[str, int]:
        """How many stand how."""
        found = Counter(each.head.status for each in self.runs)
        return {status.value: found[status.value] for status in RunStatus if found[status.value]}

    @property
    def done(self) -> int:
        """Steps that are finished."""
        return sum(each.head.done for each in self.runs)

    @property
    def total(self) -> int | None:
        """Steps there will be; ``None`` unless every run said."""
        totals = [max(each.head.total, each.head.done) if _says_total(each) else None for each in self.runs]
        return None if None in totals else sum(each or 0 for each in totals)

    @property
    def left(self) -> timedelta | None:
        """How long those that are worked on will take, side by side; ``None`` if nobody can say of one of them."""
        lefts = [each.left for each in self.runs if not each.is_ended]
        return None if not lefts or None in lefts else max(each for each in lefts if each is not None)

    @property
    def errors(self) -> Mapping[str, int]:
        """How many failed, by category of the error."""
        return dict(Counter(each.head.category for each in self.runs if each.head.category))

    @property
    def is_ended(self) -> bool:
        """Whether all have ended."""
        return all(each.is_ended for each in self.runs)


class Glances:
    """Looks at heads.

    Args:
        runs: Where they are.
        now: The time.
    """

    def __init__(self, runs: RunStore, now: datetime) -> None:
        self._runs = runs
        self._now = now
        self._paces: dict[str, Pace | None] = {}

    def of(self, head: RunHead) -> Glance:
        """Return how a run stands."""
        glance = Glance(head, self._now)
        if head.status != RunStatus.RUNNING or not glance.is_held:
            return glance
        pace = self.pace(head.agent)
        left = pace.left(head, self._now) if pace else None
        return glance if pace is None or left is None else Glance(head, self._now, left, pace.runs)

    def pace(self, agent: str) -> Pace | None:
        """Return how long runs of an agent take; ``None`` if none has finished."""
        if agent not in self._paces:
            self._paces[agent] = self._measured(agent)
        return self._paces[agent]

    def _measured(self, agent: str) -> Pace | None:
        heads = self._runs.heads(RunQuery(agent=agent, statuses=(RunStatus.FINISHED,), limit=_SAMPLE))
        if not heads:
            return None
        spans = [max(0, head.updated_at_ms - head.created_at_ms) for head in heads]
        each = [span / head.done for span, head in zip(spans, heads, strict=True) if head.done]
        return Pace(
            len(heads),
            timedelta(milliseconds=median(spans)),
            round(median(head.done for head in heads)),
            timedelta(milliseconds=median(each) if each else 0),
        )


def moment(ms: int) -> datetime:
    """Return milliseconds since 1970 as a time of UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def _says_total(glance: Glance) -> bool:
    return bool(glance.head.total) or glance.head.status == RunStatus.FINISHED
