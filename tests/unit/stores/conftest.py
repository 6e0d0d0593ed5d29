"""A schema of its own on the PostgreSQL server, and a Redis server of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import postgres
import pytest
import redis_server

from airflow_agentic.stores import Store, open_store

if TYPE_CHECKING:
    import redis


@pytest.fixture
def name() -> Iterator[str]:
    with postgres.schema() as made:
        yield made


@pytest.fixture
def url(name: str) -> str:
    return postgres.url_of(name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_server.Private]:
    with redis_server.private(tmp_path_factory.mktemp("redis")) as private:
        yield private


@pytest.fixture
def emptied(server: redis_server.Private) -> Iterator[redis.Redis]:
    """A connection to the server, on which nothing is."""
    with redis_server.client(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def on_redis(server: redis_server.Private, emptied: redis.Redis) -> Iterator[Store]:
    with open_store(server.url) as opened:
        yield opened
