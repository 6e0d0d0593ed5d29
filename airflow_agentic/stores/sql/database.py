"""One held connection to a SQLite file, with our errors instead of the driver's."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import CursorResult, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from airflow_agentic.errors import InvalidOption, StoreError, StoreNotWritable, StoreUnavailable

_BUSY_SECONDS = 30

_PRAGMAS = (
    # With the write-ahead log a reader never blocks the writer; with FULL a commit is on disk when it returns.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
)


class SqlDatabase:
    """Runs statements on one held connection; safe to share between threads.

    Single statements run in autocommit: on SQLite that is twice as fast as a transaction around each.

    Args:
        engine: Where to.
        connection: Held until :meth:`close`.
    """

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        # Reentrant: a signal handler may come in the middle of a statement of its own thread.
        self._lock = threading.RLock()
        self._in_transaction = False

    @classmethod
    def open(cls, url: str) -> SqlDatabase:
        """Connect; the schema is not looked at (see ``schema.open_database``).

        Args:
            url: ``sqlite:///…``.

        Raises:
            InvalidOption: The URL has no file.
            StoreUnavailable: The file cannot be opened.
            StoreNotWritable: The file, or the directory to make it in, cannot be written.
        """
        path = _file_of(url)
        _check_access(path)
        engine = create_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
        )
        event.listen(engine, "connect", _prepare)
        try:
            return cls(engine, engine.connect())
        except DatabaseError as error:
            raise _translate(error, path) from error

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._engine.url)

    @property
    def connection(self) -> Connection:
        """The held connection, for migrations."""
        return self._connection

    def execute(self, statement: str, parameters: Any = ()) -> int:
        """Run a statement; return how many rows it changed."""
        with self._guarded():
            return self._run(statement, parameters).rowcount

    def fetch(self, statement: str, parameters: Any = ()) -> Sequence[Any]:
        """Run a statement; return all its rows."""
        with self._guarded():
            return self._run(statement, parameters).all()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the statements inside one commit. The write lock is taken first, so it cannot fail halfway.

        Raises:
            StoreUnavailable: This thread is in a transaction already, which only a signal handler can bring
                about: whatever it wants must not end the transaction that it interrupted.
        """
        with self._guarded():
            if self._in_transaction:
                raise StoreUnavailable("the store is busy: a transaction of this thread was interrupted")
            self._in_transaction = True
            try:
                self._run("BEGIN IMMEDIATE")
                yield
                self._run("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._in_transaction = False

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self._connection.close()
            self._engine.dispose()

    def _roll_back(self) -> None:
        # SQLite may have done it by itself, as on a full disk.
        if not self._connection.invalidated:
            driver: Any = self._connection.connection.dbapi_connection
            if driver.in_transaction:
                self._run("ROLLBACK")

    def _run(self, statement: str, parameters: Any = ()) -> CursorResult[Any]:
        if self._connection.invalidated:
            # SQLAlchemy drops a connection that was interrupted (Ctrl-C, a task's timeout): take a new one.
            self._connection.rollback()
        return self._connection.exec_driver_sql(statement, parameters)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except DatabaseError as error:
                raise _translate(error, _file_of(self.url)) from error


def _prepare(connection: Any, _record: Any) -> None:
    try:
        _use_wal(connection)
        for pragma in _PRAGMAS:
            connection.execute(pragma).close()
    except BaseException:
        connection.close()
        raise


def _use_wal(connection: Any) -> None:
    """Change the journal mode. SQLite does not wait here by itself when several open a new file at once."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _file_of(url: str) -> Path:
    hint = "Use sqlite:////absolute/path/agentic.db, or memory:// in tests."
    try:
        parsed = make_url(url)
    except ArgumentError:
        # Neither SQLAlchemy's text nor the URL: there may be a password in them.
        raise InvalidOption(f"the store URL cannot be read. {hint}") from None
    database = parsed.database
    if parsed.host or parsed.username or not database or database == ":memory:":
        raise InvalidOption(f"store URL {parsed.render_as_string(hide_password=True)} names no file. {hint}")
    return Path(database)


def _check_access(path: Path) -> None:
    if not os.access(path.parent, os.X_OK):
        raise StoreUnavailable(
            f"cannot open the store {path}: the directory {path.parent} does not exist, or this user may not "
            "enter it. Create it, or change the store URL."
        )
    needed = path if os.access(path, os.F_OK) else path.parent
    if not os.access(needed, os.W_OK):
        raise _not_writable(path, f"this user may not write {needed}")


def _not_writable(path: Path, text: str) -> StoreNotWritable:
    return StoreNotWritable(
        f"the store {path} cannot be written: {text}. Give this user write access to the file and its "
        "directory (SQLite writes -wal and -shm files beside it)."
    )


def _translate(error: DatabaseError, path: Path) -> StoreError:
    text = str(error.orig)
    if "readonly" in text or "read-only" in text:
        return _not_writable(path, text)
    if "full" in text:
        return StoreNotWritable(f"the store {path} cannot be written: {text}. Make room on the disk.")
    if "not a database" in text or "malformed" in text:
        return StoreUnavailable(
            f"{path} is not a store: {text}. Restore it from a backup, or name another file."
        )
    if isinstance(error, OperationalError):
        return StoreUnavailable(f"cannot use the store {path}: {text}")
    return StoreError(f"the store {path} refused a statement: {text}")
