"""Journals and heads of durable runs on a SQL database."""

from __future__ import annotations

import functools
from collections.abc import Iterator
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
from airflow_agentic.stores.sql.database import Said, SqlDatabase
from airflow_agentic.stores.sql.messages import SqlMessages
from airflow_agentic.stores.sql.runs import MINUTE_MS, MOST_VERSION, listing, statements_of


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
        if not write.outgoing:
            at_once = self._db.dialect.takes_arrays
            return self._append_at_once(write) if at_once else self._append_in_turn(write)
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
        rows = [
            (each.version, str(each.type), each.at_ms, each.name, each.digest, each.data)
            for each in write.records
        ]
        several = len(rows) > 1
        # An array takes the driver ten times as long as the one value that is in it.
        columns = map(list, zip(*rows, strict=True)) if several else rows[0]
        values = {**_values(write), **dict(zip("vtandx", columns, strict=True))}
        if write.snapshot is not None:
            values |= {f"s_{name}": value for name, value in _snapshot(write.snapshot).items()}
        statement = self._sql.at_once[bool(write.expected), write.snapshot is not None, several]
        return bool(self._db.fetch(statement, values))

    def _append_in_turn(self, write: Append) -> bool:
        rest = self._behind_head(write)
        return any(self._db.change(head, rest) for head in self._heads(write))

    def _append(self, write: Append) -> None:
        if self._db.dialect.takes_arrays:
            is_done = self._append_at_once(write)
        else:
            is_done = any(self._db.execute(*head) for head in self._heads(write))
            for said in self._behind_head(write) if is_done else ():
                self._db.execute(*said)
        if not is_done:
            raise _ElsewhereError
        self._messages.insert(write.outgoing)

    def _heads(self, write: Append) -> Iterator[Said]:
        """Yield what changes the head: the first that changes a row has done it."""
        if not write.expected:
            yield self._sql.begin, _values(write)
            return
        # Nearly always the indexes stay as they are.
        yield self._sql.advance_quietly, _changed(write)
        yield self._sql.advance, _values(write)

    def _behind_head(self, write: Append) -> list[Said]:
        stream, said = write.head.stream, list[Said]()
        for each in write.records:
            values = stream, each.version, str(each.type), each.at_ms, each.name, each.digest, each.data
            said.append((self._sql.record, values))
        if write.snapshot is not None:
            about = {"stream": stream, **_snapshot(write.snapshot)}
            said += [(self._sql.drop_snapshots, about), (self._sql.keep_snapshot, about)]
        return said

    def _prune(self, stream: str, through: int) -> int:
        rows = self._db.fetch(self._sql.number, {"stream": stream})
        values = {"stream": stream, "version": through}
        if not rows or not self._db.execute(self._sql.keep_base, values):
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
        "updated_minute": head.updated_at_ms // MINUTE_MS,
        "expected": write.expected,
    }


def _changed(write: Append) -> tuple[Any, ...]:
    head = write.head
    return (
        head.mode, head.task and _kept(head.task), head.version, head.digest, _kept(head.step), head.done, head.total,
        head.waiting and _kept(head.waiting), head.error and _kept(head.error), head.category, head.lease_until_ms,
        head.updated_at_ms, head.stream, write.expected, head.owner, str(head.status), head.updated_at_ms // MINUTE_MS,
    )  # fmt: skip


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
    # What is no UTF-8 any more must not look like what it was. A journal is long: what nearly all values are comes first.
    if type(value) is bytes:
        return value.decode(errors="surrogateescape")
    return value if isinstance(value, str) else _bytes(value).decode(errors="surrogateescape")


def _bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    # Columns of SQLite keep whatever somebody puts there.
    return b"" if value is None else str(value).encode(errors="replace")
