"""The ports on a SQL database."""

from __future__ import annotations

from airflow_agentic.messaging.ports import BusStore
from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.stores.sql.agents import SqlAgentStore
from airflow_agentic.stores.sql.books import SqlBooks
from airflow_agentic.stores.sql.connecting import connect
from airflow_agentic.stores.sql.database import SqlDatabase
from airflow_agentic.stores.sql.guards import SqlGuards
from airflow_agentic.stores.sql.journals import SqlJournals
from airflow_agentic.stores.sql.messages import SqlMessages
from airflow_agentic.stores.sql.state import SqlState
from airflow_agentic.stores.sql.subscriptions import SqlHeartbeats, SqlSubscriptions

__all__ = ["SqlAgentStore", "SqlDatabase", "SqlGuards", "connect", "sql_bus_store", "sql_run_stores"]


def sql_run_stores(database: SqlDatabase) -> RunStores:
    """Return what a database holds of durable runs."""
    journals = SqlJournals(database, SqlMessages(database))
    return RunStores(journals, journals)


def sql_bus_store(database: SqlDatabase) -> BusStore:
    """Return what a database holds, as the bus takes it."""
    return BusStore(
        SqlMessages(database),
        SqlBooks(database),
        SqlSubscriptions(database),
        SqlHeartbeats(database),
        SqlState(database),
    )
