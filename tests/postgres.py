"""A PostgreSQL server for tests: each has a schema of its own there, which is dropped afterwards."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import uuid
import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_agentic.stores import Store

_USUAL = "postgresql://postgres@127.0.0.1:5432/test"
_kept: list[Any] = []


@functools.cache
def found() -> tuple[str, str | None]:
    """The server, and why there is none (``None`` if there is one).

    It is that of ``AGENTIC_TEST_POSTGRES_URL``, else the usual one of this machine, else one of a wheel's own.
    """
    named = os.environ.get("AGENTIC_TEST_POSTGRES_URL")
    reason = _refusal(named or _USUAL)
    if reason is None or named:
        return named or _USUAL, reason
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says where it keeps its files
            import pgserver

            _kept.append(pgserver.get_server(tempfile.mkdtemp(prefix="agentic-pg-"), cleanup_mode="delete"))
        host = parse_qs(urlsplit(_kept[0].get_uri()).query)["host"][0]
        url = f"postgresql://postgres@/postgres?host={quote(host, safe='')}"
    except Exception as error:  # noqa: BLE001  # no wheel for this machine, no user to run it as: all mean no
        return _USUAL, f"{reason}; nor does a wheel's own start: {error}"
    os.environ["AGENTIC_TEST_POSTGRES_URL"] = url  # for the processes that tests start
    return url, _refusal(url)


def server() -> str:
    """Return the URL of the server."""
    return found()[0]


def unreachable() -> str | None:
    """Why there is no server, or ``None``."""
    return found()[1]


def _refusal(url: str) -> str | None:
    try:
        import psycopg

        psycopg.connect(url, connect_timeout=3).close()
    except Exception as error:  # noqa: BLE001  # a missing driver, a refused password: all mean no
        return f"no PostgreSQL at {url}: {error}".partition("\n")[0]
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

    with psycopg.connect(server(), autocommit=True) as connection:
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
    return urlsplit(server())._replace(path=f"/{name}").geturl()


def url_of(name: str, *more: str) -> str:
    """Return the URL of a store in a schema; ``more`` are schemas that are searched after it."""
    path = "%2C".join((name, *more))
    return f"{server()}{'&' if '?' in server() else '?'}options=-csearch_path%3D{path}"


def asked(store: Store, call: Callable[[], Any]) -> int:
    """How often the server was asked: what was put on the wire to make it answer."""
    driver: Any = store.agents._db._take().driver
    with tempfile.TemporaryFile() as log:
        driver.pgconn.trace(log.fileno())
        try:
            call()
        finally:
            driver.pgconn.untrace()
        log.seek(0)
        said = [line.split(b"\t") for line in log.read().splitlines()]
    return sum(line[1:2] == [b"F"] and line[3] in (b"Sync", b"Query") for line in said)
