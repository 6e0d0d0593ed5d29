"""Stores for storms, each with what can be done to it from outside."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import clusters
import postgres
import proxy
import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator


class Server:
    """Where a store is. What a kind cannot do is not asked of it."""

    url: str

    def restart(self) -> None:
        """Take its power away, and give it back."""
        raise NotImplementedError

    def cut_one(self) -> None:
        """End one of its connections, chosen at random."""
        raise NotImplementedError

    def behind(self) -> contextlib.AbstractContextManager[proxy.Proxy]:
        """Put a proxy before it; :attr:`url` leads through it from then on."""
        raise NotImplementedError

    def integrity(self) -> str:
        """What it says of itself: ``ok``, or what is wrong."""
        return "ok"


class SqliteFile(Server):
    def __init__(self, folder: Path):
        self._path = folder / "agentic.db"
        self.url = f"sqlite:///{self._path}"

    def integrity(self) -> str:
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


class SharedPostgres(Server):
    """A schema on the tests' server."""

    def __init__(self, schema: str):
        self._name = schema
        self.url = f"{postgres.url_of(schema)}&application_name={schema}"

    def cut_one(self) -> None:
        postgres.query(
            """SELECT count(pg_terminate_backend(pid)) FROM (
                SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY random() LIMIT 1) AS victim""",
            self._name,
        )


class PrivatePostgres(Server):
    def __init__(self, cluster: clusters.Cluster, *, forgetful: bool):
        self.cluster, self.url, self._forgetful = cluster, cluster.url, forgetful
        if forgetful:
            cluster.stop_writing()

    def restart(self) -> None:
        if self._forgetful:
            self.cluster.kill()
        else:
            self.cluster.stop()
        self.cluster.start()
        if self._forgetful:
            self.cluster.stop_writing()

    @contextlib.contextmanager
    def behind(self) -> Iterator[proxy.Proxy]:
        address = proxy.Address("127.0.0.1", self.cluster.port)
        with proxy.running(address, proxy.is_complete_postgresql) as between:
            self.url = self.url.replace(f":{self.cluster.port}/", f":{between.port}/")
            yield between

    def integrity(self) -> str:
        """Every page of every table can be read."""
        import psycopg

        with psycopg.connect(self.cluster.url, autocommit=True) as connection:
            for (name,) in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            ).fetchall():
                connection.execute(f'SELECT count(*) FROM "{name}"')
        return "ok"


class PrivateRedis(Server):
    def __init__(self, private: redis_server.Private):
        self.private, self.url = private, private.url

    def restart(self) -> None:
        self.private.kill()
        self.private.start()

    def cut_one(self) -> None:
        with redis_server.client(self.private.url) as direct:
            others = [each["id"] for each in direct.client_list() if each["cmd"] != "client|list"]
            if others:
                direct.client_kill_filter(_id=random.choice(others))

    @contextlib.contextmanager
    def behind(self) -> Iterator[proxy.Proxy]:
        address = proxy.Address("127.0.0.1", self.private.port)
        with proxy.running(address, proxy.is_complete_redis) as between:
            self.url = self.url.replace(f":{self.private.port}/", f":{between.port}/")
            yield between


@contextlib.contextmanager
def of_kind(kind: str, folder: Path, *, own: bool = False, forgetful: bool = False) -> Iterator[Server]:
    """Start a server, or make room on one.

    Args:
        kind: Of the store.
        folder: For a file.
        own: Whether something will be done to the whole server.
        forgetful: Whether it is to keep nothing on disk (Redis), or only what is waited for (PostgreSQL).
    """
    if kind == "sqlite":
        yield SqliteFile(folder)
    elif kind == "redis":
        options = ("--appendonly", "no") if forgetful else ()
        with (
            tempfile.TemporaryDirectory(prefix="agentic-redis-") as place,
            redis_server.private(Path(place), *options) as private,
        ):
            yield PrivateRedis(private)
    elif own:
        with clusters.private() as cluster:
            yield PrivatePostgres(cluster, forgetful=forgetful)
            if forgetful:
                cluster.kill()  # It could not end otherwise.
    else:
        with postgres.schema() as schema:
            yield SharedPostgres(schema)
