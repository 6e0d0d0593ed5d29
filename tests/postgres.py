"""A PostgreSQL server for tests: each has a schema of its own there, which is dropped afterwards."""

from __future__ import annotations

import contextlib
import functools
import os
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = os.environ.get("AGENTIC_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/test")


@functools.cache
def unreachable() -> str | None:
    """Why there is no server, or ``None``."""
    try:
        import psycopg

        psycopg.connect(SERVER, connect_timeout=3).close()
    except Exception as error:  # noqa: BLE001  # a missing driver, a refused password: all mean no
        return f"no PostgreSQL at AGENTIC_TEST_POSTGRES_URL: {error}".partition("\n")[0]
    return None


def require() -> None:
    """Skip the test where there is no server; on CI there must be one."""
    reason = unreachable()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def query(statement: Any, *values: Any) -> list[Any]:
    """Ask the server, past every store."""
    import psycopg

    with psycopg.connect(SERVER, autocommit=True) as connection:
        found = connection.execute(statement, values)
        return found.fetchall() if found.description else []


@contextlib.contextmanager
def schema() -> Iterator[str]:
    """Make an empty schema; yield its name."""
    require()
    name = f"agentic_test_{uuid.uuid4().hex[:12]}"
    query(f"CREATE SCHEMA {name}")
    try:
        yield name
    finally:
        query(f"DROP SCHEMA {name} CASCADE")


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Make an empty database; yield its name."""
    require()
    name = f"agentic_test_{uuid.uuid4().hex[:12]}"
    query(f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        query(f"DROP DATABASE {name} WITH (FORCE)")


def url_of_database(name: str) -> str:
    """Return the URL of a store in a database of its own."""
    return urlsplit(SERVER)._replace(path=f"/{name}").geturl()


def url_of(name: str, *more: str) -> str:
    """Return the URL of a store in a schema; ``more`` are schemas that are searched after it."""
    path = "%2C".join((name, *more))
    return f"{SERVER}{'&' if '?' in SERVER else '?'}options=-csearch_path%3D{path}"
