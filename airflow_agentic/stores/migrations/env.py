"""Alembic's entry: runs the steps on the connection that it was given."""

from __future__ import annotations

from alembic import context

from airflow_agentic.stores.sql.schema import VERSION_TABLE

# The caller holds the transaction: a database of several steps is upgraded whole or not at all.
context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=False,
)
context.run_migrations()
