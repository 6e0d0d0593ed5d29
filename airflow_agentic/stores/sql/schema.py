"""Which schema a database has, and which one this version needs. The steps are in ``stores/migrations``."""

from __future__ import annotations

from airflow_agentic.errors import SchemaTooNew, SchemaTooOld
from airflow_agentic.stores.sql.connecting import connect
from airflow_agentic.stores.sql.database import SqlDatabase

HEAD = "0005"
"""Revision of this version. Revisions are numbers in order, so that older and newer can be told apart."""

VERSION_TABLE = "agentic_schema_version"


def open_database(url: str) -> SqlDatabase:
    """Connect to a database of this version's schema; give an empty one that schema.

    Raises:
        InvalidOption: The URL names no database, or its driver is not installed.
        StoreUnavailable: It cannot be opened or reached.
        StoreNotWritable: It can be reached and not written.
        SchemaTooOld: The database is older.
        SchemaTooNew: The database is newer.
    """
    database = connect(url)
    try:
        ensure(database)
    except BaseException:
        database.close()
        raise
    return database


def probe(database: SqlDatabase) -> str:
    """Prove that a store can be read and written, without leaving a trace.

    Returns:
        The schema revision.

    Raises:
        StoreError: It cannot.
    """
    with database.transaction():
        database.execute("UPDATE agentic_delivery SET attempts = attempts WHERE delivery_id = -1")
    return current(database) or "none"


def current(database: SqlDatabase) -> str | None:
    """Return the database's revision; ``None`` for a database without our tables."""
    if not database.fetch(database.dialect.has_table, {"name": VERSION_TABLE}, again=True):
        return None
    rows = database.fetch(f"SELECT version_num FROM {VERSION_TABLE}", again=True)
    return str(rows[0][0]) if rows else None


def ensure(database: SqlDatabase) -> None:
    """Give an empty database its schema; refuse one of another version.

    Raises:
        SchemaTooOld: The database is older: its owner decides when it is upgraded.
        SchemaTooNew: The database is newer.
    """
    revision = current(database)
    if revision is None:
        upgrade(database)
    else:
        check(revision, database.url)


def check(revision: str, url: str) -> None:
    """Refuse a revision that is not this version's.

    Raises:
        SchemaTooOld: It is older.
        SchemaTooNew: It is newer.
    """
    if revision < HEAD:
        raise SchemaTooOld(
            f"the store {url} has schema {revision}, this version needs {HEAD}. Back it up, stop what uses it, "
            "and run `airflow agentic db upgrade`."
        )
    if revision > HEAD:
        raise SchemaTooNew(
            f"the store {url} has schema {revision}, this version knows up to {HEAD}. "
            "Upgrade airflow-provider-agentic here."
        )


def upgrade(database: SqlDatabase, revision: str = HEAD) -> None:
    """Bring a database to ``revision``, all steps or none. Safe when several processes do it at once.

    Raises:
        SchemaTooNew: The database is newer already.
    """
    # Alembic is heavy, and needed once in the life of a database.
    from airflow_agentic.stores.migrations import run_upgrade

    with database.transaction():
        database.lock_schema()
        present = current(database)
        if present is not None and present > revision:
            check(present, database.url)
        if present != revision:
            if not database.connection.in_transaction():
                # Or Alembic would begin one of its own, and commit: the transaction is the database's.
                database.connection.begin()
            run_upgrade(database.connection, revision, VERSION_TABLE)
