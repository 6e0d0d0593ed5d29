"""PostgreSQL: a held connection for each thread, and a new one when it is lost."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, ProgrammingError

from airflow_agentic.errors import AgenticError, InvalidOption, StoreError, StoreNotWritable, StoreUnavailable
from airflow_agentic.stores.sql.database import Deadlock, Held, Parameters, SqlDatabase
from airflow_agentic.stores.sql.dialects import POSTGRESQL, Dialect
from airflow_agentic.stores.sql.waking import Throttle
from airflow_agentic.stores.urls import masked

_FORM = "Use postgresql://user@host:5432/database."
_DEFAULTS = {
    "application_name": "airflow_agentic",
    "connect_timeout": "10",
    # A server that is gone without a word is noticed within half a minute, not after two hours.
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_SETTINGS = """
    SELECT set_config('lock_timeout', '30s', false) WHERE current_setting('lock_timeout') = '0'
    UNION ALL
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
    UNION ALL
    SELECT set_config('enable_seqscan', 'off', false)
    UNION ALL
    SELECT set_config('jit', 'off', false)"""
"""No wait without an end; and a commit is on disk when it returns, whatever the server's default is.

Statements are planned once, and perhaps while the tables are small: a plan that reads all of a table would stay, and
take longer with every message until something analyzes the table. Nor is any of them worth compiling.
"""

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_NOT_WRITABLE = {
    "25006": "Name the primary server, or let this user write.",
    "42501": "Grant this user what it needs on the schema and its tables.",
    "3F000": "Create the schema that search_path names.",
    "53100": "Make room on the server's disk.",
}
_HINT = "SELECT set_config('synchronous_commit', 'off', true), pg_notify('agentic', :mailbox)"
"""A hint may be lost: its commit does not wait for the disk."""

_HINT_SECONDS = 0.05
_DEADLOCK = "40P01"
_TERMINATED = "57P01"
_OPTIONS_WITH_SECRETS = ("password", "sslpassword")


class PostgresDatabase(SqlDatabase):
    """Runs statements on a held connection for each thread.

    A forked child has connections of its own: its parent's would answer both of them.

    Args:
        engine: Where to. In autocommit.
    """

    dialect: ClassVar[Dialect] = POSTGRESQL

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int, str], Held] = {}
        self._local = threading.local()
        self._throttle = Throttle(_HINT_SECONDS)

    @classmethod
    def open(cls, url: str) -> PostgresDatabase:
        """Connect; the schema is not looked at (see ``schema.open_database``).

        Args:
            url: ``postgresql://…`` with any options that libpq knows.

        Raises:
            InvalidOption: The URL names no database or has an unknown option, or the driver is not installed.
            StoreUnavailable: The server cannot be reached.
        """
        database = cls(_engine(_parsed(url)))
        database._take()
        return database

    @property
    def url(self) -> str:
        """Where it is, without its password."""
        return masked(self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False))

    @property
    def connection(self) -> Connection:
        """The held connection, for migrations."""
        return self._take().connection

    def close(self) -> None:
        """End the connections."""
        with self._lock:
            for (process, *_), held in self._held.items():
                if process == os.getpid():
                    held.connection.close()
            self._held.clear()
        self._engine.dispose(close=True)

    def _take(self) -> Held:
        return self._connected("work")

    def _give(self) -> None:
        pass  # It is of this thread alone.

    def _connected(self, purpose: str) -> Held:
        """Return the connection that this thread has for a purpose."""
        key = os.getpid(), threading.get_ident(), purpose
        held = self._held.get(key)
        if held is None:
            held = self._connect()
            with self._lock:
                self._held[key] = held
            self._end_those_of_ended_threads()
        return held

    def _connect(self, *, again: bool = True) -> Held:
        try:
            return Held(self._engine.connect())
        except DBAPIError as error:
            if again and getattr(error.orig, "sqlstate", None) == _TERMINATED:
                # It was cut while it was made, and nothing was done with it yet.
                return self._connect(again=False)
            raise self._translate(error) from error

    def wake(self, mailboxes: Collection[str]) -> None:
        """See the base class. Never in the transaction that sends: a commit with a hint locks the whole server."""
        for mailbox in self._throttle.due(mailboxes):
            with contextlib.suppress(StoreError):
                self.fetch(_HINT, {"mailbox": mailbox})

    def wait(self, mailbox: str, seconds: float) -> None:
        """See the base class."""
        deadline = time.monotonic() + seconds
        # What is asked is not mixed with what is heard.
        held = self._connected("hints")
        try:
            if held.driver is None:
                self._revive(held)
                self._ask(held.driver, "LISTEN agentic", {})
            driver: Any = held.driver
            while (left := deadline - time.monotonic()) > 0:
                for hint in driver.notifies(timeout=left, stop_after=1):
                    if hint.payload == mailbox:
                        return
        except (self._driver_error, DBAPIError):
            held.invalidate()
            time.sleep(max(0.0, deadline - time.monotonic()))
        except BaseException:
            held.invalidate()
            raise

    def _end_those_of_ended_threads(self) -> None:
        alive = {(os.getpid(), thread.ident) for thread in threading.enumerate()}
        with self._lock:
            ended = [key for key in self._held if key[0] == os.getpid() and key[:2] not in alive]
            connections = [self._held.pop(key).connection for key in ended]
        for connection in connections:
            connection.close()

    def _send(self, held: Held, statement: str, parameters: Parameters | None) -> tuple[list[Any], int]:
        if getattr(self._local, "busy", False):
            # Its driver waits in this thread: whoever waits for the driver here would wait for ever.
            raise StoreUnavailable("the store is busy: a statement of this thread was interrupted")
        self._local.busy = True
        try:
            return super()._send(held, statement, parameters)
        finally:
            self._local.busy = False

    def _ask(self, driver: Any, statement: str, parameters: Parameters) -> tuple[list[Any], int]:
        if isinstance(parameters, Mapping):
            # Answers as they are in memory: bytes as text are twice as long, and slow to read.
            cursor = driver.execute(statement, _storable_all(parameters), binary=True)
        else:
            cursor = driver.cursor()
            cursor.executemany(statement, [_storable_all(row) for row in parameters])
        # To ask for the description makes it, which takes as long as reading a row.
        if statement not in self._makers and cursor.description is None:
            return [], cursor.rowcount
        make = self._maker(statement, cursor)
        return [make(row) for row in cursor.fetchall()], cursor.rowcount

    def _has_ended(self, held: Held) -> bool:
        if held.in_transaction or not _has_ended(held.driver):
            return False
        held.invalidate()
        return True

    def _has_transaction(self, connection: Connection) -> bool:
        driver: Any = connection.connection.dbapi_connection
        return not driver.closed and driver.info.transaction_status != 0

    def _translate(self, error: DBAPIError) -> AgenticError:
        text, where = _text_of(error, self._engine.url), f"the store {self.url}"
        code = str(getattr(error.orig, "sqlstate", None) or "")
        if code == _DEADLOCK:
            return Deadlock(f"{where} undid a transaction: {text}")
        if way_out := _NOT_WRITABLE.get(code):
            return StoreNotWritable(f"{where} cannot be written: {text}. {way_out}")
        if error.connection_invalidated or isinstance(error, OperationalError):
            return StoreUnavailable(f"cannot use {where}: {text}")
        if isinstance(error, ProgrammingError) and not code:
            # The server never saw it: the driver does not know an option.
            return InvalidOption(f"{where} cannot be opened: {text}. {_FORM}")
        return StoreError(f"{where} refused a statement: {text}")


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Neither SQLAlchemy's text nor the URL: there may be a password in them.
        raise InvalidOption(f"the store URL cannot be read. {_FORM}") from None
    if not parsed.database:
        raise InvalidOption(f"the store URL {masked(url)} names no database. {_FORM}")
    return parsed.set(drivername="postgresql+psycopg")


def _engine(url: URL) -> Engine:
    defaults = {name: value for name, value in _DEFAULTS.items() if name not in url.query}
    try:
        engine = create_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            use_native_hstore=False,
            connect_args=defaults,
        )
    except ImportError:
        raise InvalidOption(
            "a store on PostgreSQL needs a driver: pip install 'airflow-provider-agentic[postgres]'"
        ) from None
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "connect", _prepare)
    return engine


def _connect(_dialect: Any, _record: Any, arguments: Any, values: Any) -> Any:
    # Late: without the driver, it is for the caller above to say so.
    from airflow_agentic.stores.sql.silence import WatchfulConnection

    return WatchfulConnection.connect(*arguments, **values)


def _prepare(connection: Any, _record: Any) -> None:
    before, connection.autocommit = connection.autocommit, True
    connection.execute(_SETTINGS)
    connection.autocommit = before


def _has_ended(driver: Any) -> bool:
    """Whether the server said something to a connection that asked nothing: as a rule, that it ended it."""
    if driver.closed:
        return True
    waiting = select.poll()
    waiting.register(driver.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def _storable_all(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    # Nearly always they can stay as they are.
    if any(_has_nul(value) for value in parameters.values()):
        return {name: _storable(value) for name, value in parameters.items()}
    return parameters


def _has_nul(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(item, str) and "\0" in item for item in value)
    return isinstance(value, str) and "\0" in value


def _storable(value: Any) -> Any:
    # PostgreSQL keeps no NUL in a text, and a reason with one must not keep a message from being settled.
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in value else value
    return [_storable(item) for item in value] if isinstance(value, list) else value


def _text_of(error: DBAPIError, url: URL) -> str:
    text = " ".join(str(error.orig).split())
    for secret in (url.password, *(url.query.get(name) for name in _OPTIONS_WITH_SECRETS)):
        if secret:
            text = text.replace(str(secret), "***")
    return text
