"""Stores on a clock that a test can move, so that leases end when the test says so."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow_agentic.messaging import BusOptions, MessageBus
from airflow_agentic.stores import Store
from airflow_agentic.stores.memory import MemoryAgentStore, MemoryMessageStore
from airflow_agentic.stores.sql import SqlAgentStore, SqlMessageStore, schema

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_agentic.testing import FakeClock

OWNER = "worker-1:42"
_UNIX_EPOCH_JULIAN = 2440587.5
_DAY_MS = 86_400_000


def memory(clock: FakeClock, options: BusOptions | None = None) -> Store:
    bus = MessageBus(MemoryMessageStore(clock), options, OWNER)
    return Store("memory://", bus, MemoryAgentStore(clock), lambda: "memory", lambda: None)


def sqlite(path: Path, clock: FakeClock, options: BusOptions | None = None) -> Store:
    """Open a real SQLite store whose ``julianday('now')`` is the clock's."""

    def julianday(_now: str) -> float:
        # Half a millisecond more: the store cuts off, and a day number has no exact milliseconds.
        return (clock().timestamp() * 1000 + 0.5) / _DAY_MS + _UNIX_EPOCH_JULIAN

    database = schema.open_database(f"sqlite:///{path}")
    driver: Any = database.connection.connection.dbapi_connection
    driver.create_function("julianday", 1, julianday)
    bus = MessageBus(SqlMessageStore(database), options, OWNER)
    return Store(
        database.url, bus, SqlAgentStore(database), functools.partial(schema.probe, database), database.close
    )
