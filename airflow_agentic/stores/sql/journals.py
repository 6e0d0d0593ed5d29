"""Journals and heads of durable runs on a SQL database."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow_agentic.persistence.integrity import is_storable
from airflow_agentic.persistence.ports import (
    Append,
    Hold,
    IndexEntry,
    Record,
    RunHead,
    RunQuery,
    RunStatus,
    SnapshotRecord,
)
from airflow_agentic.stores.sql.clock import to_ms
from airflow_agentic.stores.sql.database import SqlDatabase
from airflow_agentic.stores.sql.messages import SqlMessages
from airflow_agentic.stores.sql.runs import MOST_VERSION, listing, statements_of

_MINUTE_MS = 60_000


class _ElsewhereError(Exception):
    """The journal ends elsewhere; the transaction is to be undone."""


class SqlJournals:
    """Implements :class:`airflow_agentic.persistence.ports.JournalStore` and ``RunStore``.

    Args:
        database: Where.
        messages: Takes the messages that leave with a commit.
    """

    def __init__(self, database: SqlDatabase, messages: SqlMessages) -> None:
        self._db = database
        self._messages = messages
        self._sql = statements_of(database.dialect)

    # -- journals --------------------------------------------------------------------------------------

    def append(self, write: Append) -> bool:
        """See the port."""
        if self._db.dialect.takes_arrays and not write.outgoing:
            return self._append_at_once(write)
        try:
            self._db.committed(functools.partial(self._append, write))
        except _ElsewhereError:
            return False
        self._messages.wake_for(write.outgoing)
        return True

    def read(self, stream: str, after: int = 0, limit: int = 1000) -> list[Record]:
        """See the port."""
        wanted = {"stream": stream, "after": _bounded(after), "limit": limit}
        rows = self._db.fetch(self._sql.read, wanted, again=True)
        return [
            Record(row[0], _text(row[1]), row[2], _text(row[3]), _bytes(row[4]), _bytes(row[5]))
            for row in rows
        ]

    def index(self, stream: str) -> list[IndexEntry]:
        """See the port."""
        rows = self._db.fetch(self._sql.index, {"stream": stream}, again=True)
        return [IndexEntry(row[0], _text(row[1]), _text(row[2])) for row in rows]

    def latest_snapshot(self, stream: str, at: int | None = None) -> SnapshotRecord | None:
        """See the port."""
        wanted = {"stream": stream, "at": MOST_VERSION if at is None else _bounded(at)}
        rows = self._db.fetch(self._sql.snapshot, wanted, again=True)
        if not rows:
            return None
        version, moment, state, chain, digest, kept = rows[0]
        return SnapshotRecord(version, moment, _bytes(state), _bytes(chain), _bytes(digest), bool(kept))

    def prune(self, stream: str, through: int) -> int:
        """See the port."""
        if not 0 < through <= MOST_VERSION:
            return 0
        return self._db.committed(functools.partial(self._prune, stream, through))

    # -- heads -----------------------------------------------------------------------------------------

    def heads(self, query: RunQuery) -> list[RunHead]:
        """See the port."""
        statement, values = listing(self._db.dialect, query)
        return [_head(row) for row in self._db.fetch(statement, values, again=True)] if statement else []

    def hold(self, stream: str, owner: str, lease: timedelta, instead_of: str | None = None) -> Hold:
        """See the port."""
        wanted = {
            "stream": stream,
            "owner": owner,
            "lease": max(0, to_ms(lease)),
            "instead": owner if instead_of is None else instead_of,
        }
        rows = self._db.fetch(self._sql.hold, wanted)
        if rows:
            return Hold(rows[0].now, _head(rows[0]), taken=True)
        found = self._db.fetch(self._sql.look, {"stream": stream}, again=True)
        if not found:
            return Hold(self._db.fetch(f"SELECT {self._db.dialect.now}", again=True)[0][0], None, taken=False)
        return Hold(found[0].now, _head(found[0]), taken=False)

    def mark(self, stream: str, status: RunStatus, error: str, category: str) -> bool:
        """See the port."""
        said = {"stream": stream, "status": status.value, "error": _kept(error), "category": category}
        return bool(self._db.execute(self._sql.mark, said))

    def forget(self, stream: str) -> bool:
        """See the port."""
        return self._db.committed(functools.partial(self._forget, stream))

    # -- inside ----------------------------------------------------------------------------------------

    def _append_at_once(self, write: Append) -> bool:
        """Append in one statement, where the values of many rows come as one parameter a column: a server is asked once."""
        records = write.records
        values = {
            **_values(write),
            "v": [each.version for each in records],
            "t": [str(each.type) for each in records],
            "a": [each.at_ms for each in records],
            "n": [each.name for each in records],
            "d": [each.digest for each in records],
            "x": [each.data for each in records],
        }
        if write.snapshot is not None:
            values |= {f"s_{name}": value for name, value in _snapshot(write.snapshot).items()}
        statement = self._sql.at_once[bool(write.expected), write.snapshot is not None]
        return bool(self._db.fetch(statement, values))

    def _append(self, write: Append) -> None:
        if self._db.dialect.takes_arrays:
            if not self._append_at_once(write):
                raise _ElsewhereError
        else:
            self._append_one_by_one(write)
        if write.outgoing:
            self._messages.insert(write.outgoing)

    def _append_one_by_one(self, write: Append) -> None:
        values = _values(write)
        rows = self._db.fetch(self._sql.advance if write.expected else self._sql.begin, values)
        if not rows:
            raise _ElsewhereError
        run_id, *listed = rows[0]
        if listed != [values["status"], values["updated_minute"]]:
            # What is in the indexes is written only when it changes: each of them is a page more to write.
            self._db.execute(self._sql.relist, {**values, "run_id": run_id})
        self._insert(run_id, write.records)
        if write.snapshot is not None:
            about = {"run_id": run_id, **_snapshot(write.snapshot)}
            self._db.execute(self._sql.drop_snapshots, about)
            self._db.execute(self._sql.keep_snapshot, about)

    def _insert(self, run_id: int, records: Sequence[Record]) -> None:
        rows = [
            {
                "run_id": run_id,
                "version": each.version,
                "type": str(each.type),
                "at": each.at_ms,
                "name": each.name,
                "digest": each.digest,
                "data": each.data,
            }
            for each in records
        ]
        if len(rows) == 1:
            self._db.execute(self._sql.record, rows[0])
        else:
            self._db.execute_many(self._sql.record, rows)

    def _prune(self, stream: str, through: int) -> int:
        rows = self._db.fetch(self._sql.number, {"stream": stream})
        values = {"run_id": rows[0][0] if rows else -1, "version": through}
        if not self._db.execute(self._sql.keep_base, values):
            return 0
        self._db.execute(self._sql.drop_snapshots, values)
        return self._db.execute(self._sql.drop_records, values)

    def _forget(self, stream: str) -> bool:
        rows = self._db.fetch(
            "DELETE FROM agentic_run WHERE stream = :stream RETURNING run_id", {"stream": stream}
        )
        for row in rows:
            for statement in self._sql.forget:
                self._db.execute(statement, {"run_id": row[0]})
        return bool(rows)


def _values(write: Append) -> dict[str, Any]:
    head = write.head
    return {
        "stream": head.stream,
        "agent": head.agent,
        "mode": head.mode,
        "status": str(head.status),
        "correlation": head.correlation,
        "task": _kept(head.task),
        "version": head.version,
        "digest": head.digest,
        "step": _kept(head.step),
        "done": head.done,
        "total": head.total,
        "waiting": _kept(head.waiting),
        "error": _kept(head.error),
        "category": head.category,
        "owner": head.owner,
        "lease_until": head.lease_until_ms,
        "created_at": head.created_at_ms,
        "updated_at": head.updated_at_ms,
        "updated_minute": head.updated_at_ms // _MINUTE_MS,
        "expected": write.expected,
    }


def _snapshot(snapshot: SnapshotRecord) -> dict[str, Any]:
    return {
        "version": snapshot.version,
        "at": snapshot.at_ms,
        "kept": int(snapshot.kept),
        "chain": snapshot.chain,
        "digest": snapshot.digest,
        "state": snapshot.state,
    }


def _head(row: Any) -> RunHead:
    values = (*row[:7], _bytes(row[7]), *row[8:18])
    return RunHead(*values)


def _bounded(version: int) -> int:
    return min(max(version, 0), MOST_VERSION)


def _kept(text: str) -> str:
    """Return a text for people as a database takes it: half a character has no bytes."""
    return text if is_storable(text) else text.replace("\0", "\\0").encode(errors="replace").decode()


def _text(value: Any) -> str:
    # What is no UTF-8 any more must not look like what it was.
    return value if isinstance(value, str) else _bytes(value).decode(errors="surrogateescape")


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    # Columns of SQLite keep whatever somebody puts there.
    return b"" if value is None else str(value).encode(errors="replace")
