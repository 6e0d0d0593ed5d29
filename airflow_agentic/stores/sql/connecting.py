"""Which database a URL is of."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow_agentic.stores.sql.database import SqlDatabase


def connect(url: str) -> SqlDatabase:
    """Connect to a database; the schema is not looked at (see ``schema.open_database``).

    Args:
        url: ``sqlite:///…`` or ``postgresql://…``.

    Raises:
        InvalidOption: The URL names no database, or its driver is not installed.
        StoreUnavailable: It cannot be opened or reached.
        StoreNotWritable: It can be reached and not written.
    """
    if urlsplit(url).scheme == "sqlite":
        from airflow_agentic.stores.sql.sqlite import SqliteDatabase

        return SqliteDatabase.open(url)
    from airflow_agentic.stores.sql.postgresql import PostgresDatabase

    return PostgresDatabase.open(url)
