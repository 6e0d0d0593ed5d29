"""Stores on a clock that a test can move, so that leases end when the test says so."""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import TYPE_CHECKING, Any

import postgres
import redis_server

from airflow_agentic.messaging import BusOptions, MessageBus
from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.stores import Store
from airflow_agentic.stores.memory import MemoryAgentStore, MemoryGuards, MemoryJournals, memory_bus_store
from airflow_agentic.stores.redis import open_redis
from airflow_agentic.stores.sql import (
    SqlAgentStore,
    SqlDatabase,
    SqlGuards,
    schema,
    sql_bus_store,
    sql_run_stores,
)
from airflow_agentic.stores.sql.postgresql import PostgresDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_agentic.testing import FakeClock

OWNER = "worker-1:42"
_UNIX_EPOCH_JULIAN = 2440587.5
_DAY_MS = 86_400_000

STORES = ("memory", "sqlite", "postgresql", "redis")
"""Every kind of store: a test of what any store must do runs on each of them."""


@contextlib.contextmanager
def opened(kind: str, folder: Path, clock: FakeClock, options: BusOptions | None = None) -> Iterator[Store]:
    """Open a new store of a kind on a clock."""
    if kind == "postgresql":
        with postgres.schema() as name, postgresql(name, clock, options) as store:
            yield store
    elif kind == "redis":
        with redis_server.prefix() as name, redis(name, clock, options) as store:
            yield store
    else:
        with (
            memory(clock, options) if kind == "memory" else sqlite(folder / "agentic.db", clock, options)
        ) as store:
            yield store


def memory(clock: FakeClock, options: BusOptions | None = None) -> Store:
    bus_store = memory_bus_store(clock)
    journals = MemoryJournals(clock, bus_store.messages.append)
    bus, runs = MessageBus(bus_store, options, OWNER), RunStores(journals, journals)
    agents, guards = MemoryAgentStore(clock), MemoryGuards(clock)
    return Store("memory://", bus, agents, guards, runs, lambda: "memory", lambda: None)


def sqlite(path: Path, clock: FakeClock, options: BusOptions | None = None) -> Store:
    """Open a real SQLite store whose ``julianday('now')`` is the clock's."""

    def julianday(_now: str) -> float:
        # Half a millisecond more: the store cuts off, and a day number has no exact milliseconds.
        return (clock().timestamp() * 1000 + 0.5) / _DAY_MS + _UNIX_EPOCH_JULIAN

    database = schema.open_database(f"sqlite:///{path}")
    driver: Any = database.connection.connection.dbapi_connection
    driver.create_function("julianday", 1, julianday)
    return _store(database, options)


class ClockedPostgres(PostgresDatabase):
    """A real PostgreSQL store whose ``clock_timestamp()`` is the clock's: each connection is told before it asks."""

    clock: FakeClock

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self._told: weakref.WeakKeyDictionary[Any, object] = weakref.WeakKeyDictionary()

    def _send(self, held: Any, statement: str, parameters: Any) -> Any:
        driver, now = held.driver, self.clock()
        if self._told.get(driver) != now:
            text = str(round(now.timestamp() * 1_000_000))
            driver.execute("SELECT set_config('agentic.now', %s, false)", [text])
            self._told[driver] = now
        return super()._send(held, statement, parameters)


def postgresql(name: str, clock: FakeClock, options: BusOptions | None = None) -> Store:
    """Open a real PostgreSQL store in a schema that has a clock of its own."""
    # Two processes that replace it at the same time would disturb each other.
    postgres.query(f"""
        SELECT pg_advisory_xact_lock(20300101);
        CREATE OR REPLACE FUNCTION {name}.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
        $$ SELECT timestamptz 'epoch'
            + CAST(current_setting('agentic.now') AS BIGINT) * interval '1 microsecond' $$""")
    # What is named in the path is searched in that order, the functions of PostgreSQL itself too.
    database = ClockedPostgres.open(postgres.url_of(name, "pg_catalog"))
    database.clock = clock
    schema.ensure(database)
    return _store(database, options)


def redis(prefix: str, clock: FakeClock, options: BusOptions | None = None) -> Store:
    """Open a real Redis store whose scripts are told the clock's time."""
    server = open_redis(redis_server.url_of(prefix), clock=clock)
    bus = MessageBus(server.bus_store(), options, OWNER)
    return Store(server.url, bus, server.agents(), server.guards(), server.runs(), server.probe, server.close)


def _store(database: SqlDatabase, options: BusOptions | None) -> Store:
    bus = MessageBus(sql_bus_store(database), options, OWNER)
    return Store(
        database.url,
        bus,
        SqlAgentStore(database),
        SqlGuards(database),
        sql_run_stores(database),
        functools.partial(schema.probe, database),
        database.close,
    )
