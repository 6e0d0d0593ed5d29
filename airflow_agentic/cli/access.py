"""Finds and opens the store that a command is about."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from airflow_agentic import runtime
from airflow_agentic.errors import ConfigurationError, InvalidOption, ProjectInvalid, StoreUnavailable
from airflow_agentic.runtime import StoreTarget
from airflow_agentic.stores import Store
from airflow_agentic.stores.urls import masked

_HINT = re.compile(r"`airflow agentic [^`\n]+`")
_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"


def find_target(args: Namespace) -> StoreTarget:
    """Find the store that ``--conn-id`` or ``--store-url`` names, or the default one.

    Raises:
        InvalidOption: Both were given, or an option has a value that cannot be used.
        ConfigurationError: The connection does not exist, is of another type, or cannot be looked up.
    """
    if args.conn_id and args.store_url:
        raise InvalidOption("--conn-id and --store-url both name a store: give one of them")
    if args.store_url:
        return runtime.target_at(args.store_url, "--store-url")
    with _as_airflow_component():
        try:
            target = runtime.target(args.conn_id)
        except (InvalidOption, ProjectInvalid):
            raise
        except ConfigurationError:
            _require_metadata_database(args.conn_id)
            raise
    if target.conn_id is None:
        # "No such connection" is also what a lookup without a database says. A command on the wrong store
        # is worse than none.
        _require_metadata_database(args.conn_id, target)
    return target


@contextlib.contextmanager
def opened(args: Namespace, *, create: bool = False) -> Iterator[Store]:
    """Open the store of a command.

    Args:
        args: With ``conn_id`` and ``store_url``.
        create: Make the store if it does not exist. Otherwise a typing error in a path would show an empty
            store and leave a file behind.

    Raises:
        ConfigurationError: See :func:`find_target`.
        StoreError: It does not exist, cannot be opened, or its schema is of another version.
    """
    target = find_target(args)
    if not create:
        require_existing(target)
    with target.open(calm=True) as store:
        yield store


def require_existing(target: StoreTarget) -> None:
    """Refuse a store that was never made.

    Raises:
        StoreUnavailable: There is no file, it has none of our tables, or the server cannot be reached.
        InvalidOption: The URL names no file.
    """
    if not exists(target):
        raise StoreUnavailable(
            f"there is no store at {target.shown} (from {target.origin}). Either nothing was sent or run yet, or "
            "the store is another one: name it with --conn-id or --store-url. `airflow agentic db upgrade` "
            "makes it."
        )
    if has_schema(target) and revision(target) is None:
        raise StoreUnavailable(
            f"{target.shown} (from {target.origin}) has no tables of this provider. Name another store with "
            "--conn-id or --store-url, or make it one: `airflow agentic db upgrade`."
        )


def exists(target: StoreTarget) -> bool:
    """Whether there is a file, for a store that is one; on a server, whether there are tables of ours.

    Raises:
        StoreUnavailable: This user may not look, or the server cannot be reached.
    """
    path = sqlite_file(target)
    if path is None and has_schema(target):
        return revision(target) is not None
    try:
        return path is None or path.is_file()
    except OSError as error:
        raise StoreUnavailable(
            f"cannot look for the store {path}: {error.strerror}. Run this as the user that Airflow runs as, or "
            "give this user access."
        ) from None


def sqlite_file(target: StoreTarget) -> Path | None:
    """Return the file of a SQLite store; ``None`` for every other kind."""
    scheme, _, path = target.url.partition(":///")
    named = scheme == "sqlite" and path not in ("", ":memory:")
    return Path(path.partition("?")[0]) if named else None


def has_schema(target: StoreTarget) -> bool:
    """Whether the store is a SQL database, whose schema has a revision."""
    return sqlite_file(target) is not None or target.url.partition(":")[0].startswith("postgresql")


def revision(target: StoreTarget) -> str | None:
    """Return the schema revision of a SQL store, whatever it is; ``None`` without our tables.

    Raises:
        StoreError: It cannot be opened.
    """
    from airflow_agentic.stores.sql import connect, schema

    database = connect(target.url)
    try:
        return schema.current(database)
    finally:
        database.close()


def store_options(args: Namespace) -> str:
    """Return the options that name the same store again, for commands to copy; empty for the default."""
    if args.store_url:
        return f" --store-url {shlex.quote(masked(args.store_url))}"
    return f" --conn-id {shlex.quote(args.conn_id)}" if args.conn_id else ""


def completed(text: str, args: Namespace) -> str:
    """Return a text whose `` `airflow agentic …` `` commands are about the same store, ready to be copied."""
    return _HINT.sub(lambda hint: f"{hint[0][:-1]}{store_options(args)}`", text)


@contextlib.contextmanager
def _as_airflow_component() -> Iterator[None]:
    """Let connections be read from the metadata database, as ``airflow connections get`` does it."""
    before = os.environ.get(_CONTEXT)
    os.environ[_CONTEXT] = "server"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CONTEXT]
        else:
            os.environ[_CONTEXT] = before


def _require_metadata_database(conn_id: str | None, target: StoreTarget | None = None) -> None:
    wanted = conn_id or runtime.DEFAULT_CONN_ID
    problem = _metadata_problem(wanted)
    if problem is None:
        return
    url = target.shown if target else "sqlite:////path/agentic.db"
    raise ConfigurationError(
        f"cannot look up the connection {wanted!r}: Airflow's metadata database does not answer ({problem}). "
        "Repair it (`airflow db check`, `airflow db migrate`), or name the store itself: "
        f"--store-url {shlex.quote(url)}"
    )


def _metadata_problem(conn_id: str) -> str | None:
    from airflow.secrets.metastore import MetastoreBackend

    try:
        MetastoreBackend().get_connection(conn_id)
    except Exception as error:  # noqa: BLE001  # a missing driver, a refused password, a missing table: all mean no
        return str(getattr(error, "orig", None) or error).partition("\n")[0]
    return None
