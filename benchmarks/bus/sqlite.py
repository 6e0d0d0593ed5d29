"""On SQLite: WAL and ``synchronous=FULL`` for everybody, so that every commit waits for the disk."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Any

from benchmarks.bus.contender import BODY, CONTENT, LEASE_SECONDS, MAILBOX, Contender, new_key
from benchmarks.bus.peers import package

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE message (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY, message INTEGER NOT NULL, mailbox TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0,
  visible_at REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, token TEXT, lease_until REAL
);
CREATE INDEX open_delivery ON delivery (mailbox, visible_at, id) WHERE state < 2;
"""
_DELIVER = "INSERT INTO delivery (message, mailbox, visible_at) SELECT id, ?, ? FROM message WHERE id > ? ORDER BY id"
_CLAIM = """
UPDATE delivery SET state = 1, attempts = attempts + 1, token = ?, lease_until = ?, visible_at = ?
WHERE id IN (
  SELECT id FROM delivery WHERE mailbox = ? AND state < 2 AND visible_at <= ? ORDER BY visible_at, id LIMIT ?
)
RETURNING id, token, (SELECT data FROM message WHERE message.id = delivery.message)
"""
_ACK = "UPDATE delivery SET state = 2 WHERE id = ? AND token = ?"


class RawSqlite(Contender):
    """What can be had: sqlite3, two tables, one connection, prepared statements.

    Args:
        folder: For its file.
    """

    name = "raw sqlite3"
    note = "the least that can: no envelope, no dedup, no routing, no priorities, no order, no dead letters"

    _schema = _SCHEMA
    _send = "INSERT INTO message (data) VALUES (?)"

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{self.name}.db"
        self._connection: sqlite3.Connection | None = None
        self._last = 0

    def setup(self) -> None:
        """Make the tables."""
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection.executescript(self._schema)

    def cycle(self, batch: int, count: int) -> int:
        """Three transactions a batch."""
        return sum(self._once(batch) for _ in range(count // batch))

    def _once(self, batch: int) -> int:
        assert self._connection is not None
        run, now = self._connection.execute, time.time()
        run("BEGIN IMMEDIATE")
        self._connection.executemany(self._send, [self._values() for _ in range(batch)])
        run(_DELIVER, (MAILBOX, now, self._last))
        run("COMMIT")
        self._last += batch
        until = now + LEASE_SECONDS
        claimed = run(_CLAIM, (secrets.token_hex(8), until, until, MAILBOX, now, batch)).fetchall()
        run("BEGIN IMMEDIATE")
        self._connection.executemany(_ACK, [(number, token) for number, token, _ in claimed])
        run("COMMIT")
        return sum(1 for _, _, data in claimed if self._is_whole(data))

    def _values(self) -> tuple[Any, ...]:
        return (CONTENT,)

    def _is_whole(self, data: bytes) -> bool:
        return len(data) == len(CONTENT)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()


class RawSqliteWithId(RawSqlite):
    """The same, and nearer to what a bus must do.

    Args:
        folder: For its file.
    """

    name = "raw sqlite3, with id"
    note = "the same; JSON is made and read, and duplicates are known by an id"

    _schema = _SCHEMA.replace("data BLOB", "key TEXT NOT NULL UNIQUE, data BLOB")
    _send = "INSERT INTO message (key, data) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"

    def _values(self) -> tuple[Any, ...]:
        return new_key(), json.dumps(BODY).encode()

    def _is_whole(self, data: bytes) -> bool:
        return bool(json.loads(data) == BODY)


class PersistQueue(Contender):
    """persist-queue's ``SQLiteAckQueue``.

    Args:
        folder: For its file.
    """

    name = "persist-queue"
    batches = False
    note = "one table; no lease (who opens the file takes back what others hold), no batches, no dedup"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / self.name
        self._queue: Any = None

    def setup(self) -> None:
        """Open it; WAL is its own choice, FULL what Python's SQLite begins with."""
        self._queue = package("persistqueue").SQLiteAckQueue(str(self._folder), auto_commit=True)

    def refresh(self) -> None:
        """Forget what was acked, as its manual says; by default the last thousand stay."""
        self._queue.clear_acked_data()

    def cycle(self, batch: int, count: int) -> int:
        """Put, get and ack one after the other; there are no batches."""
        queue, ended = self._queue, 0
        for _ in range(count // batch):
            for _ in range(batch):
                queue.put(BODY)
            held = [queue.get(block=False, raw=True) for _ in range(batch)]
            for item in held:
                queue.ack(id=item["pqid"])
                ended += 1
        return ended

    def close(self) -> None:
        """Close its file."""
        if self._queue is not None:
            self._queue.close()


class PersistQueueEmptied(PersistQueue):
    """The same at its best: nothing that was acked is left when a trial begins."""

    name = "persist-queue, emptied"
    note = "the same, without the acked messages that it reads past with each get"

    def refresh(self) -> None:
        """Forget all that was acked."""
        self._queue.clear_acked_data(max_delete=0, keep_latest=0)


class LiteQueue(Contender):
    """litequeue, with FULL instead of its NORMAL.

    Args:
        folder: For its file.
    """

    name = "litequeue"
    batches = False
    note = "one table; no lease and no attempts, no batches, no dedup; text only"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "litequeue.db"
        self._queue: Any = None

    def setup(self) -> None:
        """Open it."""
        self._queue = package("litequeue").LiteQueue(self._path)
        self._queue.conn.execute("PRAGMA synchronous = FULL")

    def cycle(self, batch: int, count: int) -> int:
        """Put, pop and done one after the other; there are no batches."""
        queue, ended, text = self._queue, 0, CONTENT.decode()
        for _ in range(count // batch):
            for _ in range(batch):
                queue.put(text)
            for item in [queue.pop() for _ in range(batch)]:
                queue.done(item.message_id)
                ended += 1
        return ended

    def close(self) -> None:
        """Close its file."""
        if self._queue is not None:
            self._queue.close()
