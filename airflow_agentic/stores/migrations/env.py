"""Alembic's entry: runs the steps on the connection that it was given."""

from __future__ import annotations

from alembic import context

# The caller holds the transaction: a database of several steps is upgraded whole or not at all.
context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    transactional_ddl=False,
)
context.run_migrations()
