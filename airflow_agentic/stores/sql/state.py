"""Values that consumers keep, on a SQL database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_agentic.messaging.ports import StateChange, StateEntry
from airflow_agentic.messaging.state import state_conflict
from airflow_agentic.stores.sql.clock import from_ms
from airflow_agentic.stores.sql.database import SqlDatabase

_READ = "SELECT scope, key, value, version, updated_at FROM agentic_state WHERE scope = :scope"
_PUT = """
    INSERT INTO agentic_state (scope, key, value, version, updated_at) VALUES (:scope, :key, :value, 1, {now})
    ON CONFLICT (scope, key) DO UPDATE
        SET value = excluded.value, version = agentic_state.version + 1, updated_at = excluded.updated_at"""
_MAKE = """
    INSERT INTO agentic_state (scope, key, value, version, updated_at) VALUES (:scope, :key, :value, 1, {now})
    ON CONFLICT (scope, key) DO NOTHING"""
_CHANGE = """
    UPDATE agentic_state SET value = :value, version = version + 1, updated_at = {now}
    WHERE scope = :scope AND key = :key AND version = :expected"""
_FORGET = "DELETE FROM agentic_state WHERE scope = :scope AND key = :key"


class SqlState:
    """Implements :class:`airflow_agentic.messaging.ports.StateStore`.

    Args:
        database: Where.
    """

    def __init__(self, database: SqlDatabase) -> None:
        self._db = database
        self._put, self._make, self._change = (
            statement.format(now=database.dialect.now) for statement in (_PUT, _MAKE, _CHANGE)
        )

    def read(self, scope: str, key: str) -> StateEntry | None:
        """See the port."""
        rows = self._db.fetch(f"{_READ} AND key = :key", {"scope": scope, "key": key}, again=True)
        return _entry(rows[0]) if rows else None

    def entries(self, scope: str, limit: int = 100) -> list[StateEntry]:
        """See the port."""
        rows = self._db.fetch(
            f"{_READ} ORDER BY key {self._db.dialect.bytewise} LIMIT :limit",
            {"scope": scope, "limit": limit},
            again=True,
        )
        return [_entry(row) for row in rows]

    def write(self, changes: Sequence[StateChange]) -> None:
        """See the port."""
        self._db.committed(lambda: self.apply(changes))

    def apply(self, changes: Sequence[StateChange]) -> None:
        """Change values in the caller's transaction.

        Raises:
            StateConflict: A value is not of the expected version.
        """
        # In one order for everybody: two who change the same ones must not wait for each other.
        for change in sorted(changes, key=lambda change: (change.scope, change.key)):
            statement, values = self._said(change)
            changed = self._db.execute(statement, values) if statement else 0
            if not changed and change.expected is not None:
                place = {"scope": change.scope, "key": change.key}
                found = self._db.fetch(f"{_READ} AND key = :key", place)
                version = found[0].version if found else 0
                if statement or version:
                    raise state_conflict(change, version)

    def _said(self, change: StateChange) -> tuple[str, dict[str, Any]]:
        values: dict[str, Any] = {"scope": change.scope, "key": change.key}
        if change.expected:
            values["expected"] = change.expected
        if change.value is None:
            if change.expected == 0:
                return "", values  # There must be nothing, and nothing is to be done.
            return _FORGET if change.expected is None else f"{_FORGET} AND version = :expected", values
        values["value"] = change.value
        if change.expected is None:
            return self._put, values
        return self._make if change.expected == 0 else self._change, values


def _entry(row: Any) -> StateEntry:
    return StateEntry(row.scope, row.key, bytes(row.value), row.version, from_ms(row.updated_at))
