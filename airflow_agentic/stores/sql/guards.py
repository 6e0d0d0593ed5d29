"""Documents of guards on a SQL database."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from airflow_agentic.resilience.ports import KEEP, GuardChange, GuardEntry, GuardKey, GuardReading, Kind
from airflow_agentic.stores.documents import check_changes, check_keys, check_name
from airflow_agentic.stores.sql.clock import from_ms, to_ms
from airflow_agentic.stores.sql.database import SqlDatabase
from airflow_agentic.stores.sql.dialects import Dialect
from airflow_agentic.stores.sql.prefixes import behind

_KEEP_MS: Mapping[str, int] = {kind: to_ms(span) for kind, span in KEEP.items()}


class _ConflictError(Exception):
    """A document has another version; the transaction is to be undone."""


@dataclass(frozen=True)
class _Statements:
    make: str
    change: str
    forget: str
    entries: str
    purge: str


@functools.cache
def _statements_of(dialect: Dialect) -> _Statements:
    now = dialect.now
    old = " OR ".join(f"kind = '{kind}' AND updated_at < {now} - {span}" for kind, span in _KEEP_MS.items())
    return _Statements(
        make=f"""
    INSERT INTO agentic_guard (kind, name, value, version, updated_at) VALUES (:kind, :name, :value, 1, {now})
    ON CONFLICT (kind, name) DO UPDATE
        SET value = excluded.value, version = 1, updated_at = excluded.updated_at
        WHERE agentic_guard.updated_at < excluded.updated_at - :keep
    RETURNING updated_at AS at""",
        change=f"""
    UPDATE agentic_guard SET value = :value, version = version + 1, updated_at = {now}
    WHERE kind = :kind AND name = :name AND version = :expected AND updated_at >= {now} - :keep
    RETURNING updated_at AS at""",
        forget=f"""
    DELETE FROM agentic_guard
    WHERE kind = :kind AND name = :name AND version = :expected AND updated_at >= {now} - :keep
    RETURNING {now} AS at""",
        entries=f"""
    SELECT name, value, version, updated_at FROM agentic_guard
    WHERE kind = :kind AND name >= :prefix {{end}} AND updated_at >= {now} - :keep ORDER BY name LIMIT :limit""",
        purge=f"DELETE FROM agentic_guard WHERE {old}",
    )


@functools.cache
def _read(dialect: Dialect, count: int) -> str:
    """Return the statement that reads so many documents: a row for each, with or without a value, and the time."""
    if not count:
        return f"SELECT {dialect.now} AS now"
    wanted = ", ".join(f"(:kind{i}, :name{i})" for i in range(count))
    return f"""
    WITH wanted (kind, name) AS (VALUES {wanted})
    SELECT w.kind, w.name, g.value, g.version, g.updated_at, {dialect.now} AS now
    FROM wanted w LEFT JOIN agentic_guard g ON g.kind = w.kind AND g.name = w.name"""


@functools.cache
def _change_all(dialect: Dialect, count: int) -> str:
    """Return the statement that changes so many documents that there are: all of them, or none.

    Those of the right version are locked first, in one order for everybody; what is locked here cannot be of another
    version when it is changed.
    """
    wanted = ", ".join(
        f"(:kind{i}, :name{i}, :value{i}, CAST(:expected{i} AS BIGINT), CAST(:keep{i} AS BIGINT))"
        for i in range(count)
    )
    lock = f"{dialect.for_update} OF g" if dialect.for_update else ""
    return f"""
    WITH wanted (kind, name, value, expected, keep) AS (VALUES {wanted}),
    held AS (
        SELECT g.version FROM agentic_guard g JOIN wanted w ON g.kind = w.kind AND g.name = w.name
        WHERE g.version = w.expected AND g.updated_at >= {dialect.now} - w.keep
        ORDER BY g.kind, g.name {lock})
    UPDATE agentic_guard SET value = w.value, version = agentic_guard.version + 1, updated_at = {dialect.now}
    FROM wanted w
    WHERE agentic_guard.kind = w.kind AND agentic_guard.name = w.name AND (SELECT count(*) FROM held) = {count}
    RETURNING updated_at AS at"""


class SqlGuards:
    """Implements :class:`airflow_agentic.resilience.ports.GuardStore`.

    Args:
        database: Where.
    """

    def __init__(self, database: SqlDatabase) -> None:
        self._db = database
        self._sql = _statements_of(database.dialect)

    def read(self, keys: Sequence[GuardKey]) -> GuardReading:
        """See the port."""
        check_keys(keys)
        values: dict[str, Any] = {}
        for i, key in enumerate(keys):
            values[f"kind{i}"], values[f"name{i}"] = key.kind, key.name
        rows = self._db.fetch(_read(self._db.dialect, len(keys)), values, again=True)
        now = rows[0].now
        found = [
            row
            for row in (rows if keys else ())
            if row.version is not None and now - row.updated_at <= _KEEP_MS[row.kind]
        ]
        return GuardReading(from_ms(now), {GuardKey(row.kind, row.name): _entry(row) for row in found})

    def change(self, changes: Sequence[GuardChange]) -> datetime | None:
        """See the port."""
        check_changes(changes)
        if not changes:
            return self.read(()).now
        if len(changes) == 1 and (changes[0].expected or changes[0].value is not None):
            at = self._change(changes[0])
        elif all(change.expected and change.value is not None for change in changes):
            at = self._change_all(changes)
        else:
            # In one order for everybody: two who change the same ones must not wait for each other.
            ordered = sorted(changes, key=lambda change: change.key)
            try:
                at = self._db.committed(functools.partial(self._change_each, ordered))
            except _ConflictError:
                return None
        return None if at is None else from_ms(at)

    def entries(self, kind: Kind, prefix: str = "", limit: int = 1000) -> list[tuple[str, GuardEntry]]:
        """See the port."""
        check_name(kind, prefix)
        values = {"kind": kind, "prefix": prefix, "keep": _KEEP_MS[kind], "limit": limit}
        if end := behind(prefix):
            values["end"] = end
        statement = self._sql.entries.format(end="AND name < :end" if end else "")
        return [(row.name, _entry(row)) for row in self._db.fetch(statement, values, again=True)]

    def purge(self) -> int:
        """See the port."""
        return self._db.committed(lambda: self._db.execute(self._sql.purge))

    def _change(self, change: GuardChange) -> int | None:
        values: dict[str, Any] = {
            "kind": change.key.kind,
            "name": change.key.name,
            "keep": _KEEP_MS[change.key.kind],
        }
        if change.expected:
            values["expected"] = change.expected
        if change.value is not None:
            values["value"] = change.value
        # Not again, if the connection is lost: what was done the first time would look like the work of somebody else.
        rows = self._db.fetch(self._statement(change), values)
        return cast("int", rows[0].at) if rows else None

    def _statement(self, change: GuardChange) -> str:
        if not change.expected:
            return self._sql.make
        return self._sql.forget if change.value is None else self._sql.change

    def _change_all(self, changes: Sequence[GuardChange]) -> int | None:
        """Change documents that there are in one statement: a server is asked once."""
        values: dict[str, Any] = {}
        for i, change in enumerate(changes):
            values |= {
                f"kind{i}": change.key.kind,
                f"name{i}": change.key.name,
                f"value{i}": change.value,
                f"expected{i}": change.expected,
                f"keep{i}": _KEEP_MS[change.key.kind],
            }
        rows = self._db.fetch(_change_all(self._db.dialect, len(changes)), values)
        return cast("int", rows[0].at) if rows else None

    def _change_each(self, changes: Sequence[GuardChange]) -> int:
        at = None
        for change in changes:
            if change.expected or change.value is not None:
                steps = [change]
            else:
                # It must not be there, and is not to be: held until the commit, so that nobody makes it meanwhile.
                steps = [GuardChange(change.key, b"", 0), GuardChange(change.key, None, 1)]
            for step in steps:
                at = self._change(step)
                if at is None:
                    raise _ConflictError
        assert at is not None
        return at


def _entry(row: Any) -> GuardEntry:
    return GuardEntry(bytes(row.value), row.version, from_ms(row.updated_at))
