"""What can be had at most: one ``INSERT`` of the same bytes, on disk when it returns."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from benchmarks.steps.contender import Contender

RAW_SQLITE, RAW_POSTGRESQL = "raw sqlite3", "raw psycopg"


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
