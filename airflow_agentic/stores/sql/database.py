"""Runs statements on held connections, with our errors instead of the driver's.

Statements go to the driver itself: for what a queue does, SQLAlchemy's own layer costs as much as the database.
SQLAlchemy gives what is hard to write: connecting, knowing a lost connection, and one tree of errors.
"""

from __future__ import annotations

import abc
import contextlib
import random
import time
from collections import namedtuple
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from airflow_agentic.errors import AgenticError, Category, StoreError, StoreUnavailable
from airflow_agentic.stores.sql.dialects import Dialect

T = TypeVar("T")

# Two transactions that wait for each other are rare, and the loser's is undone whole: it may begin again.
_DEADLOCK_TRIES = 5
_INTERRUPTED = "the store is busy: a transaction of this thread was interrupted"


class Deadlock(StoreError):
    """Two transactions waited for each other, and this one was undone. It may begin again."""

    category = Category.TRANSIENT


@dataclass
class Held:
    """A connection, and what its thread is in the middle of."""

    connection: Connection
    in_transaction: bool = False
    driver: Any = None

    def invalidate(self, error: BaseException | None = None) -> None:
        """Drop the driver's connection; the next statement has a new one."""
        self.driver = None
        self.connection.invalidate(error)


Parameters = Mapping[str, Any] | tuple[Any, ...] | Sequence[Any]
"""Of one row by name or, as a tuple, by position; or a list of many rows."""

Said = tuple[str, Parameters]
"""A statement with its parameters."""


def _row(*names: str) -> Callable[[Iterable[Any]], Any]:
    made: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # noqa: PYI024  # names of a running query
    return made._make


class SqlDatabase(abc.ABC):
    """Runs statements on held connections; safe to share between threads.

    Single statements run in autocommit: that is twice as fast as a transaction around each.

    Args:
        engine: Where to. In autocommit.
    """

    dialect: ClassVar[Dialect]

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        assert engine.dialect.dbapi is not None
        self._makers: dict[str, Callable[[Iterable[Any]], Any]] = {}
        self._driver_error: Any = engine.dialect.dbapi.Error

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """Where it is, without its password."""

    @property
    @abc.abstractmethod
    def connection(self) -> Connection:
        """The held connection, for migrations."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the connections."""

    @abc.abstractmethod
    def _take(self) -> Held:
        """Have a connection for this thread alone, connected or not, until :meth:`_give`."""

    @abc.abstractmethod
    def _give(self) -> None:
        """Let other threads have the connection."""

    @abc.abstractmethod
    def _translate(self, error: DBAPIError) -> AgenticError:
        """Return our error for the driver's."""

    @abc.abstractmethod
    def _has_transaction(self, connection: Connection) -> bool:
        """Whether the server knows of a transaction of this connection."""

    def execute(self, statement: str, parameters: Parameters | None = None) -> int:
        """Run a statement; return how many rows it changed.

        Raises:
            StoreError: It was refused.
            StoreUnavailable: The connection was lost: whether it ran is not known. The next call has a new one.
        """
        return self._run(statement, parameters)[1]

    def execute_many(self, statement: str, rows: Sequence[Any]) -> int:
        """Run a statement for each of some rows; return how many rows all of them changed.

        Raises:
            StoreError: It was refused.
            StoreUnavailable: The connection was lost.
        """
        return self._run(statement, rows)[1]

    def fetch(
        self, statement: str, parameters: Mapping[str, Any] | None = None, *, again: bool = False
    ) -> Sequence[Any]:
        """Run a statement; return all its rows.

        Args:
            statement: What to run.
            parameters: By name.
            again: Run it once more if the connection was lost: it does no harm to run it twice.

        Raises:
            StoreError: It was refused.
            StoreUnavailable: The connection was lost.
        """
        return self._run(statement, parameters, again=again)[0]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the statements inside one commit.

        Raises:
            StoreError: A statement was refused; nothing was changed.
            StoreUnavailable: The connection was lost: if that was while committing, it is not known whether
                anything was changed. Or this thread is in a transaction already, which only a signal handler
                can bring about: whatever it wants must not end the transaction that it interrupted.
        """
        with self._begun():
            yield
            self._run("COMMIT", None)

    def change(self, first: Said, rest: Sequence[Said]) -> bool:
        """Run statements in one commit if the first one changes a row; else nothing is changed.

        It is what :meth:`transaction` does, with less around each statement: for what is done with every step of a run.

        Raises:
            StoreError: As for :meth:`transaction`.
        """
        with self._begun() as held:
            send = self._send
            is_done = send(held, *first)[1] > 0
            if is_done:
                for statement, parameters in rest:
                    send(held, statement, parameters)
            send(held, "COMMIT" if is_done else "ROLLBACK", None)
        return is_done

    def committed(self, work: Callable[[], T]) -> T:
        """Do work in a transaction; do it again if it and another one waited for each other.

        Raises:
            StoreError: As for :meth:`transaction`.
        """
        for left in reversed(range(_DEADLOCK_TRIES)):
            try:
                with self.transaction():
                    return work()
            except Deadlock:
                if not left:
                    raise
            time.sleep(random.uniform(0, 0.02))  # noqa: S311  # so that the two do not meet again
        raise AssertionError("the last try returns or raises")

    def wake(self, mailboxes: Collection[str]) -> None:
        """Tell those who wait that something came; after the commit, and only a hint: whoever misses it polls."""
        del mailboxes  # for databases that can tell

    def wait(self, mailbox: str, seconds: float) -> None:  # noqa: ARG002  # for databases that can tell
        """Return when something may have come to a mailbox, at the latest after some seconds."""
        time.sleep(seconds)

    def lock_schema(self) -> None:
        """In a transaction: make others wait with their migration until it ends."""
        if self.dialect.lock_schema:
            self.fetch(self.dialect.lock_schema)

    @contextlib.contextmanager
    def _begun(self) -> Iterator[Held]:
        """Have the connection in a transaction, which is rolled back if anything goes wrong."""
        held = self._take()
        try:
            if held.in_transaction:
                raise StoreUnavailable(_INTERRUPTED)
            try:
                # Nothing was done yet: it may be begun again on another connection.
                self._run(self.dialect.begin, None, again=True)
                held.in_transaction = True
                yield held
            except BaseException:
                self._roll_back(held)
                raise
            finally:
                held.in_transaction = False
        except DBAPIError as error:
            # As raised below this class, or by a migration, which speaks to SQLAlchemy.
            raise self._translate(error) from error
        finally:
            self._give()

    def _roll_back(self, held: Held) -> None:
        # The server may have done it by itself, as on a full disk.
        if not held.connection.invalidated and self._has_transaction(held.connection):
            with contextlib.suppress(DBAPIError):
                self._send(held, "ROLLBACK", None)

    def _run(
        self, statement: str, parameters: Parameters | None, *, again: bool = False
    ) -> tuple[list[Any], int]:
        """Run a statement; return its rows, and how many it changed."""
        held = self._take()
        try:
            if held.driver is None or self._has_ended(held):
                self._revive(held)
            try:
                return self._send(held, statement, parameters)
            except DBAPIError as error:
                if not (again and error.connection_invalidated and not held.in_transaction):
                    raise
            self._revive(held)
            return self._send(held, statement, parameters)
        except DBAPIError as error:
            raise self._translate(error) from error
        finally:
            self._give()

    def _send(self, held: Held, statement: str, parameters: Parameters | None) -> tuple[list[Any], int]:
        try:
            said = self.dialect.bound(statement) if self.dialect.percent else statement
            return self._ask(held.driver, said, parameters or {})
        except self._driver_error as error:
            dialect = self._engine.dialect
            lost = dialect.is_disconnect(error, held.driver, None)
            if lost:
                held.invalidate(error)
            raise DBAPIError.instance(
                statement, None, error, self._driver_error, connection_invalidated=lost, dialect=dialect
            ) from error
        except Exception:
            raise
        except BaseException:
            # Ctrl-C or a task's timeout: the answer may still come, and must not be taken for that of the next one.
            held.invalidate()
            raise

    @abc.abstractmethod
    def _ask(self, driver: Any, statement: str, parameters: Parameters) -> tuple[list[Any], int]:
        """Run a statement on the driver's connection; once for each of several rows of parameters."""

    def _maker(self, statement: str, cursor: Any) -> Callable[[Iterable[Any]], Any]:
        """Return what makes rows whose values can be asked for by name; one without a good name only by position."""
        if (make := self._makers.get(statement)) is None:
            names = [column[0] for column in cursor.description]
            make = self._makers[statement] = _row(*names)
        return make

    def _has_ended(self, held: Held) -> bool:  # noqa: ARG002  # for databases that are servers
        """Whether a connection that nobody asked anything of was ended by the other side."""
        return False

    def _revive(self, held: Held) -> None:
        """Take a new connection if the last one was dropped: it was lost, or interrupted (Ctrl-C, a task's timeout)."""
        if held.connection.invalidated:
            if held.in_transaction:
                raise StoreUnavailable("the connection to the store was lost in the middle of a transaction")
            held.connection.rollback()
        held.driver = held.connection.connection.dbapi_connection
