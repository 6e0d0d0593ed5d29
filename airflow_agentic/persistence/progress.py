"""What a run did before, as its journal tells it: which steps are finished, which are ambiguous, what was said where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from airflow_agentic.errors import JournalTooNew
from airflow_agentic.persistence.ports import IndexEntry
from airflow_agentic.persistence.records import BEGINNINGS, STEP_ENDS, RecordType, is_known
from airflow_agentic.persistence.restoring import Base

RUN = "run"
"""Name of the records that are about the run as a whole."""

KEYED = "key:"
"""Names of events begin so that are recorded once in the run; those of others say at which place they were said."""

_STEPS = frozenset(
    {
        RecordType.INTENDED,
        RecordType.DONE,
        RecordType.BROKE,
        RecordType.AMBIGUOUS,
        RecordType.SKIPPED,
        RecordType.CHANGED,
    }
)
_BEGUN_ANEW = frozenset({RecordType.STARTED, RecordType.CONTINUED})


def last_beginning(index: Iterable[IndexEntry]) -> int:
    """Return the version of what the last session wrote first; 0 if that is forgotten, or there was none."""
    return max((entry.version for entry in index if entry.type in BEGINNINGS), default=0)


class StepTrace(NamedTuple):
    """What is known of a step.

    Attributes:
        type: Of its last record.
        version: Of its last record.
        tries: How often it was begun.
        decided: Whether a person said what to do about it when it was ambiguous.
    """

    type: str
    version: int
    tries: int = 0
    decided: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it is not to be done again."""
        return self.type in STEP_ENDS

    @property
    def is_ambiguous(self) -> bool:
        """Whether nobody knows if its effect took place."""
        return self.type == RecordType.INTENDED


class Past:
    """The index of a journal, by what can be asked of it.

    Args:
        stream: Whose.
        entries: What there is, in order.
        base: What stands for what was forgotten.

    Attributes:
        steps: What is known of each step.
        done: How many are finished.
        base: As given.

    Raises:
        JournalTooNew: There are records of a kind that only a newer version knows.
    """

    def __init__(self, stream: str, entries: Iterable[IndexEntry] = (), base: Base | None = None) -> None:
        self.base = base or Base()
        self.steps: dict[str, StepTrace] = {}
        self._named: dict[tuple[str, str], int] = {}
        self._places: dict[str, int] = {}
        self._ambiguous: dict[str, None] = {}
        self._marks: dict[str, list[int]] = {}
        self.done = len(self.base.steps)
        for entry in entries:
            if not is_known(entry.type):
                raise JournalTooNew(
                    f"the run {stream!r} has a record of type {entry.type!r} at version {entry.version}, which this version "
                    "of airflow-provider-agentic does not know: upgrade it here, or go on with the run where it was "
                    "written"
                )
            self.note(entry)

    def version_of(self, type_: RecordType, name: str) -> int:
        """Return the version of the last record of a type and name; 0 if there is none."""
        if type_ == RecordType.EMITTED and name in self.base.keys:
            return self.base.keys[name]
        return self._named.get((type_, name), 0)

    def keys(self) -> dict[str, int]:
        """Return the versions of events that are recorded once in the run, by their names."""
        now = {name: version for (type_, name), version in self._named.items() if type_ == RecordType.EMITTED}
        return {**now, **self.base.keys}

    def said_at(self, place: str) -> int:
        """Return the version of what was emitted at a place since the run began or was continued; 0 for nothing."""
        return self._places.get(place, 0)

    def marked(self, name: str) -> Sequence[int]:
        """Return the versions of the checkpoints of a name since the run began or was continued."""
        return self._marks.get(name, ())

    def all_marks(self) -> dict[str, int]:
        """Return the versions of all checkpoints; of those of one name the last."""
        now = {
            name: version for (type_, name), version in self._named.items() if type_ == RecordType.CHECKPOINT
        }
        return {**self.base.marks, **now}

    def finished_steps(self) -> list[str]:
        """Return the names of the steps that are not to be done again, those that are forgotten too."""
        return [*self.base.steps, *(name for name, trace in self.steps.items() if trace.is_over)]

    @property
    def unresolved(self) -> list[str]:
        """Steps of which nobody knows whether their effect took place."""
        return [*self._ambiguous]

    def note(self, entry: IndexEntry) -> None:
        """Take note of the record that comes next."""
        type_, name = entry.type, entry.name
        if type_ == RecordType.EMITTED:
            self._places[name] = entry.version
            if name.startswith(KEYED):
                self._named[(type_, name)] = entry.version
        elif type_ in _STEPS:
            self._add_step(entry)
        elif type_ in _BEGUN_ANEW:
            # What is said from now on is new, whatever was said before.
            self._places.clear()
            self._marks.clear()
        else:
            if type_ == RecordType.CHECKPOINT:
                self._marks.setdefault(name, []).append(entry.version)
            self._named[(type_, name)] = entry.version

    def _add_step(self, entry: IndexEntry) -> None:
        type_, name = entry.type, entry.name
        before = self.steps.get(name)
        if before is None:
            tries, was_over = 0, False
        elif type_ == RecordType.AMBIGUOUS:
            # The intent that follows, or the end, says what became of it.
            self.steps[name] = before._replace(decided=True)
            return
        elif type_ == RecordType.CHANGED:
            return
        else:
            tries, was_over = before.tries, before.type in STEP_ENDS
        is_begun = type_ == RecordType.INTENDED
        self.steps[name] = StepTrace(type_, entry.version, tries + is_begun)
        self.done += (type_ in STEP_ENDS) - was_over
        # Asked for before each new step: what it costs must not grow with the run.
        if is_begun:
            self._ambiguous[name] = None
        else:
            self._ambiguous.pop(name, None)
