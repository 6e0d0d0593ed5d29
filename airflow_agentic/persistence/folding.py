"""The state of an open run: read once, and folded on with each event."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from airflow_agentic.errors import NotRecordable
from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.journal import Journal
from airflow_agentic.persistence.records import BEGINNINGS
from airflow_agentic.persistence.restoring import CHANGES_STATE, check_format, folded, newest
from airflow_agentic.persistence.state import StateSchema, merge
from airflow_agentic.persistence.strategies import Written
from airflow_agentic.security.canonical import canonical

_CHECKS = 3


@dataclass(frozen=True)
class Fold:
    """The state after all records that there are."""

    value: Any


class Folding:
    """Reads and folds the state of a run.

    Args:
        key: Names the run.
        claims: Unpacks.
        schema: How events become the state.

    Attributes:
        current: The state after the last record; ``None`` if it is to be read.
    """

    def __init__(self, key: str, claims: Claims, schema: StateSchema) -> None:
        self._key = key
        self._claims = claims
        self._schema = schema
        self._checks = _CHECKS
        self.current: Fold | None = Fold(copy.deepcopy(schema.initial))

    def forget(self) -> None:
        """Read it anew the next time."""
        self.current = None

    def restore(self, journal: Journal, begins: int) -> Written:
        """Read the state after the last record, and check the seals of all records that must be read for that.

        Args:
            journal: The run's.
            begins: Version of the last record that is forgotten; 0 for none.

        Returns:
            What was written since the last snapshot.

        Raises:
            JournalCorrupt: A record is damaged or missing.
            JournalTooNew: The state or an event was written by a newer version of the agent, or of this provider.
            ConfigurationError: Nothing makes an older state or event one of this version.
            NotRecordable: What is kept elsewhere is gone.
        """
        if not journal.version:
            self.current = Fold(copy.deepcopy(self._schema.initial))
            return Written()
        base, fault = newest(self._key, journal.snapshot, self._claims, self._schema)
        if fault is not None and base.version < begins:
            raise fault
        value, written = base.value, Written(last_snapshot_bytes=base.size)
        for record in journal.tail(base.version, base.chain):
            if record.type in CHANGES_STATE:
                value = folded(self._schema, value, record.type, self._claims.unpacked(record.data))
            elif record.type in BEGINNINGS:
                check_format(self._key, self._claims.unpacked(record.data))
            written.add(record.data)
        self.current = Fold(value)
        return written

    def after(self, value: Any, type_: str, said: Mapping[str, Any]) -> Fold:
        """Return the state after what a record says.

        Raises:
            NotRecordable: The schema's own ``reduce`` returns what is not JSON.
        """
        changed = folded(self._schema, value, type_, said)
        if self._schema.reduce is not merge and self._checks:
            # Not each time: it costs as much as a snapshot. What a snapshot is made of is checked in any case.
            self._checks -= 1
            self._check_is_json(changed)
        return Fold(changed)

    def _check_is_json(self, value: Any) -> None:
        """Refuse a state that would be another one after it was read from a snapshot: so it would depend on the mode."""
        what = "the state that the schema's reduce returns"
        try:
            is_same = from_json(canonical(value, what)) == value
        except ValueError as error:
            raise NotRecordable(f"run {self._key!r}: {error}; only JSON can be kept") from None
        if not is_same:
            raise NotRecordable(
                f"run {self._key!r}: {what} is not plain JSON (there is a tuple in it, or a key that is no text): it would "
                "be another one when it is read again"
            )
