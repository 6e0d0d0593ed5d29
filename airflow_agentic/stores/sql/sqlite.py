"""One held connection to a SQLite file."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from airflow_agentic.errors import InvalidOption, StoreError, StoreNotWritable, StoreUnavailable
from airflow_agentic.stores.sql.database import Held, Parameters, SqlDatabase
from airflow_agentic.stores.sql.dialects import SQLITE, Dialect
from airflow_agentic.stores.sql.waking import FileWatch

_BUSY_SECONDS = 30

_PRAGMAS = (
    # With the write-ahead log a reader never blocks the writer; with FULL a commit is on disk when it returns.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
)


class SqliteDatabase(SqlDatabase):
    """Runs statements on one held connection, which all threads take turns at.

    Args:
        engine: Where to.
        connection: Held until :meth:`close`.
    """

    dialect: ClassVar[Dialect] = SQLITE

    def __init__(self, engine: Engine, connection: Connection) -> None:
        super().__init__(engine)
        self._held = Held(connection)
        # Reentrant: a signal handler may come in the middle of a statement of its own thread.
        self._lock = threading.RLock()
        self._watch = FileWatch(self._version)

    @classmethod
    def open(cls, url: str) -> SqliteDatabase:
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
        except DBAPIError as error:
            raise _translate(error, path) from error

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._engine.url)

    @property
    def connection(self) -> Connection:
        """The held connection, for migrations."""
        return self._held.connection

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self._held.connection.close()
            self._engine.dispose()

    def _ask(self, driver: Any, statement: str, parameters: Parameters) -> tuple[list[Any], int]:
        many = isinstance(parameters, list)
        cursor = driver.executemany(statement, parameters) if many else driver.execute(statement, parameters)
        if cursor.description is None:
            return [], cursor.rowcount
        make = self._maker(statement, cursor)
        return [make(row) for row in cursor], cursor.rowcount

    def _take(self) -> Held:
        self._lock.acquire()
        return self._held

    def _give(self) -> None:
        self._lock.release()

    def wake(self, mailboxes: Collection[str]) -> None:  # noqa: ARG002  # a file does not say which
        """See the base class."""
        self._watch.wake()

    def wait(self, mailbox: str, seconds: float) -> None:
        """See the base class."""
        self._watch.wait(mailbox, seconds)

    def _version(self) -> int:
        return int(self.fetch("PRAGMA data_version", again=True)[0][0])

    def _has_transaction(self, connection: Connection) -> bool:
        driver: Any = connection.connection.dbapi_connection
        return bool(driver.in_transaction)

    def _translate(self, error: DBAPIError) -> StoreError:
        return _translate(error, _file_of(self.url))


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


def _translate(error: DBAPIError, path: Path) -> StoreError:
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
