"""What a run says: events and names for moments. What is said again when an interrupted run is replayed is known."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from airflow_agentic.errors import NotRecordable, StateConflict
from airflow_agentic.persistence.flows import Flows
from airflow_agentic.persistence.naming import plain
from airflow_agentic.persistence.progress import KEYED
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.persistence.session import Session
from airflow_agentic.persistence.stepping import current_step

_log = logging.getLogger(__name__)


class Sayings:
    """Records events and checkpoints, those of a replayed run once.

    An event is known by its place: after which step of its flow it was said (or within which), as the how-manieth there, and
    what it says.

    Args:
        session: The run.
        flows: Where its code is.
    """

    def __init__(self, session: Session, flows: Flows) -> None:
        self._session = session
        self._flows = flows
        self._before = session.version
        self._spoken: Counter[str] = Counter()
        self._marked: Counter[str] = Counter()
        self._is_elsewhere = False

    def emit(self, event: Any, key: str | None, expected: int | None) -> int:
        """Record an event; see :meth:`airflow_agentic.persistence.run.Run.emit`."""
        session = self._session
        about = {"event": plain(event), "schema": session.options.schema.version}
        said = session.content(about, "event")
        with session.lock:
            if key is not None:
                known, place = session.past.version_of(RecordType.EMITTED, KEYED + key), KEYED + key
            else:
                known, place = self._known(said)
            if known:
                return known
            if expected is not None and expected != session.version:
                raise StateConflict(
                    f"run {session.key!r} has version {session.version}, not {expected}: it changed since it was read. "
                    "Nothing was recorded; read its state again"
                )
            data = session.packed(said, "event")
            return session.write(RecordType.EMITTED, place, data, content=said)

    def checkpoint(self, name: str) -> int:
        """Name a moment; see :meth:`airflow_agentic.persistence.run.Run.checkpoint`."""
        if not isinstance(name, str) or not name.strip():
            raise NotRecordable("a checkpoint needs a name")
        session = self._session
        with session.lock:
            self._marked[name] += 1
            marked = session.past.marked(name)
            is_known = session.is_replayed and not self._is_elsewhere and self._marked[name] <= len(marked)
            if is_known and (known := marked[self._marked[name] - 1]) <= self._before:
                return known
            return session.write(RecordType.CHECKPOINT, name, b"{}", at_rest=True)

    # -- inside ----------------------------------------------------------------------------------------

    def _known(self, said: bytes) -> tuple[int, str]:
        """Return the version of the same event at the same place the last time, 0 if there is none, and the place."""
        at = self._where()
        self._spoken[at] += 1
        first = count = self._spoken[at]
        past = self._session.past
        if self._session.is_replayed and not self._is_elsewhere:
            # What was said before it may be left out now: the state says that it was said.
            while 0 < (known := past.said_at(f"{at}/{count}")) <= self._before:
                if self._is_same(known, said):
                    self._spoken[at] = count
                    return known, f"{at}/{count}"
                count += 1
        if count > first:
            # Else what was said first the last time could undo what is said now.
            self._is_elsewhere = True
            _log.warning(
                "run %r: %s it says something else than the last time: what it says from here on is recorded as new",
                self._session.key,
                f"{'in' if at.startswith('in:') else 'after'} step {at[3:]!r}"
                if at[3:]
                else "at its beginning",
            )
        return 0, f"{at}/{first}"

    def _where(self) -> str:
        step = current_step()
        if step is not None and step.run == self._session.key:
            return f"in:{step.name}"
        return f"at:{self._flows.last}"

    def _is_same(self, version: int, said: bytes) -> bool:
        session = self._session
        schema = session.options.schema
        before = session.data(version)
        about = {"event": schema.lifted(before["event"], before["schema"]), "schema": schema.version}
        # As bytes: to Python 1, 1.0 and True are the same.
        return session.content(about, "event") == said
