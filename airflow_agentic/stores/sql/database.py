"""Runs statements on held connections, with our errors instead of the driver's."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import DBAPIError

from airflow_agentic.errors import AgenticError, StoreUnavailable
from airflow_agentic.stores.sql.dialects import Dialect


@dataclass
class Held:
    """A connection, and what its thread is in the middle of."""

    connection: Connection
    in_transaction: bool = False


class SqlDatabase(abc.ABC):
    """Runs statements on held connections; safe to share between threads.

    Single statements run in autocommit: that is twice as fast as a transaction around each.

    Args:
        engine: Where to. In autocommit.
    """

    dialect: ClassVar[Dialect]

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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
    def _hold(self) -> contextlib.AbstractContextManager[Held]:
        """Have a connection for this thread alone, connected or not."""

    @abc.abstractmethod
    def _translate(self, error: DBAPIError) -> AgenticError:
        """Return our error for the driver's."""

    @abc.abstractmethod
    def _has_transaction(self, connection: Connection) -> bool:
        """Whether the server knows of a transaction of this connection."""

    def execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> int:
        """Run a statement; return how many rows it changed.

        Raises:
            StoreError: It was refused.
            StoreUnavailable: The connection was lost: whether it ran is not known. The next call has a new one.
        """
        with self._guarded() as held:
            return self._run(held, statement, parameters).rowcount

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
        with self._guarded() as held:
            return self._run(held, statement, parameters, again=again).all()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the statements inside one commit.

        Raises:
            StoreError: A statement was refused; nothing was changed.
            StoreUnavailable: The connection was lost: if that was while committing, it is not known whether
                anything was changed. Or this thread is in a transaction already, which only a signal handler
                can bring about: whatever it wants must not end the transaction that it interrupted.
        """
        with self._guarded() as held:
            if held.in_transaction:
                raise StoreUnavailable("the store is busy: a transaction of this thread was interrupted")
            try:
                # Nothing was done yet: it may be begun again on another connection.
                self._run(held, self.dialect.begin, again=True)
                held.in_transaction = True
                yield
                self._run(held, "COMMIT")
            except BaseException:
                self._roll_back(held)
                raise
            finally:
                held.in_transaction = False

    def lock_schema(self) -> None:
        """In a transaction: make others wait with their migration until it ends."""
        if self.dialect.lock_schema:
            self.fetch(self.dialect.lock_schema)

    def _roll_back(self, held: Held) -> None:
        # The server may have done it by itself, as on a full disk.
        if not held.connection.invalidated and self._has_transaction(held.connection):
            with contextlib.suppress(DBAPIError):
                held.connection.exec_driver_sql("ROLLBACK")

    def _run(
        self, held: Held, statement: str, parameters: Mapping[str, Any] | None = None, *, again: bool = False
    ) -> CursorResult[Any]:
        self._revive(held)
        try:
            return self._send(held, statement, parameters)
        except DBAPIError as error:
            if not (again and error.connection_invalidated and not held.in_transaction):
                raise
        self._revive(held)
        return self._send(held, statement, parameters)

    def _send(self, held: Held, statement: str, parameters: Mapping[str, Any] | None) -> CursorResult[Any]:
        values = {} if parameters is None else dict(parameters)
        return held.connection.exec_driver_sql(self.dialect.bound(statement), values)

    def _revive(self, held: Held) -> None:
        """Take a new connection if SQLAlchemy dropped it: it was lost, or interrupted (Ctrl-C, a task's timeout)."""
        if held.connection.invalidated:
            if held.in_transaction:
                raise StoreUnavailable("the connection to the store was lost in the middle of a transaction")
            held.connection.rollback()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[Held]:
        try:
            with self._hold() as held:
                yield held
        except DBAPIError as error:
            raise self._translate(error) from error
