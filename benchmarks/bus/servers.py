"""Servers to measure on: a database of our own in a PostgreSQL that runs, and a private Redis."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.bus.rounds import Unavailable

_USUAL = "postgresql://postgres@127.0.0.1:5432/test"
_SETTINGS = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers",
    "autovacuum", "max_wal_size", "jit",
)  # fmt: skip


class Postgres:
    """A database that is there for this run only.

    Args:
        url: Of the database; the user may make schemas in it.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def schema(self, name: str) -> str:
        """Make an empty schema; return a URL that leads there."""
        self.run(f"DROP SCHEMA IF EXISTS {name} CASCADE")
        self.run(f"CREATE SCHEMA {name}")
        return f"{self.url}{'&' if '?' in self.url else '?'}options=-csearch_path%3D{name}"

    def run(self, statement: Any) -> list[Any]:
        """Run one statement past everybody."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def tidy(self) -> None:
        """Do what autovacuum would do now and then, at a moment that is not timed."""
        self.run("VACUUM (ANALYZE)")

    def settings(self) -> dict[str, str]:
        """Return those that decide how fast and how safe it is."""
        return {name: self.run(f"SHOW {name}")[0][0] for name in _SETTINGS}


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Make a database on the server of ``AGENTIC_TEST_POSTGRES_URL``, or the usual one; drop it at the end.

    Raises:
        Unavailable: No server answers, or it lets us make no database.
    """
    server = os.environ.get("AGENTIC_TEST_POSTGRES_URL", _USUAL)
    name = f"agentic_bench_{uuid.uuid4().hex[:12]}"
    try:
        import psycopg

        psycopg.connect(server, connect_timeout=3).close()
        Postgres(server).run(f"CREATE DATABASE {name}")
    except (ImportError, psycopg.Error) as error:
        # Not the URL: there may be a password in it.
        raise Unavailable(f"no PostgreSQL to measure on: {error}".partition("\n")[0]) from error
    try:
        yield Postgres(urlsplit(server)._replace(path=f"/{name}").geturl())
    finally:
        Postgres(server).run(f"DROP DATABASE {name} WITH (FORCE)")


@dataclass(frozen=True)
class Place:
    """Where stores of one kind can be made.

    Attributes:
        name: Of the kind.
        url: Makes room for a store, by name; returns its URL.
        tidy: Does what the server would do now and then.
    """

    name: str
    url: Callable[[str], str]
    tidy: Callable[[], None] = lambda: None


@contextlib.contextmanager
def places(folder: Path, skipped: dict[str, str]) -> Iterator[list[Place]]:
    """Have all kinds of stores that there are here.

    Args:
        folder: For files.
        skipped: Gets the others, and why.
    """
    with contextlib.ExitStack() as stack:
        found = [Place("SQLite", lambda name: f"sqlite:///{folder / name}.db")]
        try:
            database = stack.enter_context(postgres())
            found.append(Place("PostgreSQL", database.schema, database.tidy))
        except Unavailable as reason:
            skipped["PostgreSQL"] = str(reason)
        try:
            server, numbers = stack.enter_context(redis(folder)), itertools.count(1)
            found.append(Place("Redis", lambda _: f"{server.removesuffix('/0')}/{next(numbers)}"))
        except Unavailable as reason:
            skipped["Redis"] = str(reason)
        yield found


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Start a Redis that syncs its file before it answers; yield its URL.

    Raises:
        Unavailable: There is no ``redis-server``, or it does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise Unavailable("there is no redis-server on this machine")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder / "redis"
    home.mkdir()
    log = home / "log"
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--logfile", str(log)]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _answering(server, port, log)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(30)


def _answering(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as line:
            line.sendall(b"PING\r\n")
            if line.recv(16).startswith(b"+PONG"):
                return
        time.sleep(0.05)
    said = log.read_text()[-300:] if log.exists() else "nothing"
    raise Unavailable(f"redis-server does not answer; its log says: {said}")
