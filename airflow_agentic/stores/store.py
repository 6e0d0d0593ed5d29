"""A store as its users see it: the bus and the agents of one URL."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from airflow_agentic.agents.status import AgentStore
from airflow_agentic.errors import InvalidOption
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.options import BusOptions
from airflow_agentic.messaging.ports import Blobs
from airflow_agentic.observability.metrics import Metrics

_SQL = ("sqlite", "postgresql", "postgresql+psycopg")
_REDIS = ("redis", "rediss")


@dataclass
class Store:
    """What one URL holds. A context manager; closing it ends its connections.

    Attributes:
        url: Where it is, without its password.
        bus: Sends and receives messages.
        agents: State and numbers of named agents.
    """

    url: str
    bus: MessageBus
    agents: AgentStore
    probe: Callable[[], str] = field(repr=False)
    close: Callable[[], None] = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(
    url: str,
    *,
    options: BusOptions | None = None,
    owner: str | None = None,
    metrics: Metrics | None = None,
    blobs: Blobs | None = None,
) -> Store:
    """Open a store; an empty database gets its schema.

    Args:
        url: ``sqlite:////absolute/path.db``, ``postgresql://user@host:5432/database``,
            ``redis://user:password@host:6379/0``, or ``memory://`` for a store that ends with the process.
        options: Limits and times of the bus.
        owner: Name of this process in leases and histories; default ``host:pid``.
        metrics: Where numbers of the bus go.
        blobs: Where data goes that is too large to travel.

    Raises:
        InvalidOption: The URL is not one of the above, or its driver is not installed.
        StoreUnavailable: The file cannot be opened, or the server not be reached.
        StoreNotWritable: It can be read but not written.
        SchemaTooOld: Made by an older version: ``airflow agentic db upgrade``.
        SchemaTooNew: Made by a newer version: upgrade the package.
    """
    scheme = urlsplit(url).scheme
    bus = functools.partial(MessageBus, options=options, owner=owner, metrics=metrics, blobs=blobs)
    if scheme == "memory":
        from airflow_agentic.stores.memory import MemoryAgentStore, memory_bus_store

        store = bus(memory_bus_store())
        return Store(url, store, MemoryAgentStore(), probe=lambda: "memory", close=lambda: None)
    if scheme in _SQL:
        from airflow_agentic.stores.sql import SqlAgentStore, schema, sql_bus_store

        database = schema.open_database(url)
        probe = functools.partial(schema.probe, database)
        store = bus(sql_bus_store(database))
        return Store(database.url, store, SqlAgentStore(database), probe=probe, close=database.close)
    if scheme in _REDIS:
        from airflow_agentic.stores.redis import open_redis

        server = open_redis(url)
        return Store(
            server.url, bus(server.bus_store()), server.agents(), probe=server.probe, close=server.close
        )
    # Not the URL itself: there may be a password in it.
    raise InvalidOption(
        f"there is no store of kind {scheme!r}. Use sqlite:////absolute/path/agentic.db "
        "(three slashes for a relative path, four for an absolute one), postgresql://user@host:5432/database, "
        "redis://host:6379/0, "
        "or memory:// in tests."
    )
