"""What can be had at most: one ``INSERT`` of the same bytes, on disk when it returns."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from benchmarks.steps.contender import Contender

RAW_SQLITE, RAW_POSTGRESQL = "raw sqlite3", "raw psycopg"
_STREAM = "0f6b2c1e-6c1b-4d51-9f0e-2f6a1c0b7d3a"


class RawSqlite(Contender):
    """The sqlite3 module, WAL and ``synchronous=FULL``.

    Args:
        path: Of its file.
    """

    name = RAW_SQLITE
    note = "one INSERT into one table: no JSON, no seal, nothing is known by a name"

    def __init__(self, path: Path) -> None:
        self._path = self.file = path
        self._connection: sqlite3.Connection | None = None

    def setup(self) -> None:
        """Make the table."""
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; "
            "CREATE TABLE step (id INTEGER PRIMARY KEY, data BLOB NOT NULL)"
        )

    def steps(self, text: str, count: int) -> float:
        """One commit each."""
        assert self._connection is not None
        run, data = self._connection.execute, text.encode()
        began = time.perf_counter()
        for _ in range(count):
            run("INSERT INTO step (data) VALUES (?)", (data,))
        return (time.perf_counter() - began) / count

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()


class RawHead(RawSqlite):
    """The same with a second row that says where the journal ends: what a fenced journal must write at the least.

    Args:
        path: Of its file.
        commits: How many make a step: with two of them the first one is a short record, as that of an intent.
    """

    note = "the row, and one that says where the journal ends and whose it is: BEGIN, UPDATE, INSERT, COMMIT by hand"

    def __init__(self, path: Path, commits: int) -> None:
        super().__init__(path)
        self.name = f"raw sqlite3, with a head{', twice' if commits == 2 else ''}"
        self._commits = commits

    def setup(self) -> None:
        """Make the tables."""
        super().setup()
        assert self._connection is not None
        run = self._connection.execute
        run("CREATE TABLE head (id INTEGER PRIMARY KEY, stream TEXT UNIQUE, version INTEGER, rest TEXT)")
        run("INSERT INTO head (stream, version, rest) VALUES (?, 0, ?)", (_STREAM, "x" * 200))

    def steps(self, text: str, count: int) -> float:
        """One or two commits each."""
        assert self._connection is not None
        run, data = self._connection.execute, text.encode()
        parts = (data[:200], data)[-self._commits :]
        began = time.perf_counter()
        for _ in range(count):
            for part in parts:
                run("BEGIN IMMEDIATE")
                run("UPDATE head SET version = version + 1 WHERE stream = ?", (_STREAM,))
                run("INSERT INTO step (data) VALUES (?)", (part,))
                run("COMMIT")
        return (time.perf_counter() - began) / count


class RawPostgresql(Contender):
    """psycopg in autocommit, with a prepared statement.

    Args:
        url: Of a schema that is its own.
    """

    name = RAW_POSTGRESQL
    note = RawSqlite.note

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    def setup(self) -> None:
        """Make the table."""
        import psycopg

        self._connection = psycopg.connect(self._url, autocommit=True, prepare_threshold=1)
        self._connection.execute(
            "CREATE TABLE step (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data bytea NOT NULL)"
        )

    def steps(self, text: str, count: int) -> float:
        """One commit each."""
        run, data = self._connection.execute, text.encode()
        began = time.perf_counter()
        for _ in range(count):
            run("INSERT INTO step (data) VALUES (%b)", (data,))
        return (time.perf_counter() - began) / count

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
