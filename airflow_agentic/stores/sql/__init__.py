"""The ports on a SQL database."""

from __future__ import annotations

from airflow_agentic.stores.sql.agents import SqlAgentStore
from airflow_agentic.stores.sql.connecting import connect
from airflow_agentic.stores.sql.database import SqlDatabase
from airflow_agentic.stores.sql.messages import SqlMessageStore

__all__ = ["SqlAgentStore", "SqlDatabase", "SqlMessageStore", "connect"]
