"""A store as its users see it: the bus, the agents and the guards of one URL."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from airflow_agentic.agents.status import AgentStore
from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import InvalidOption
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.options import BusOptions
from airflow_agentic.messaging.ports import Blobs, BusStore
from airflow_agentic.observability.metrics import Metrics, NoMetrics
from airflow_agentic.resilience.admission import NOBODY, Subject
from airflow_agentic.resilience.breakers import BreakerHandle
from airflow_agentic.resilience.guard import Guard
from airflow_agentic.resilience.guards import GuardOptions, Guards
from airflow_agentic.resilience.ports import GuardStore
from airflow_agentic.stores.telling import TellingEvents

if TYPE_CHECKING:
    from airflow_agentic.config.faults import FaultRule
    from airflow_agentic.resilience.faults import Faults

_SQL = ("sqlite", "postgresql", "postgresql+psycopg")
_REDIS = ("redis", "rediss")


@dataclass
class Store:
    """What one URL holds. A context manager; closing it ends its connections.

    Attributes:
        url: Where it is, without its password.
        bus: Sends and receives messages.
        agents: State and numbers of named agents.
        guards: What guards know, for all workers.
        guard_options: What the guards of this store go by.
        faults: What is injected; ``None`` for nothing.
    """

    url: str
    bus: MessageBus
    agents: AgentStore
    guards: GuardStore
    probe: Callable[[], str] = field(repr=False)
    disconnect: Callable[[], None] = field(repr=False)
    guard_options: GuardOptions = field(default_factory=GuardOptions, repr=False)
    faults: Faults | None = field(default=None, repr=False)

    @functools.cached_property
    def guarding(self) -> Guards:
        """The guards at work, on what is kept in ``guards``."""
        events = TellingEvents(self.bus, self.guard_options.metrics)
        return Guards(self.guards, events, self.guard_options, self.faults)

    def guard(self, policy: Policy, key: str, subject: Subject = NOBODY) -> Guard:
        """Make a guard that all workers share; see :meth:`Guards.guard`.

        Raises:
            ConfigurationError: The key cannot be one, or the policy names a budget that is not declared.
        """
        return self.guarding.guard(policy, key, subject)

    def breaker(self, key: str) -> BreakerHandle:
        """Return the breaker of a key, to look at it or set it by hand."""
        return self.guarding.breaker(key)

    def close(self) -> None:
        """Tell of what was kept back, and end the connections."""
        try:
            if "guarding" in vars(self):
                self.guarding.close()
        finally:
            self.disconnect()

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
    guard_options: GuardOptions | None = None,
    faults: Mapping[str, FaultRule] | None = None,
) -> Store:
    """Open a store; an empty database gets its schema.

    Args:
        url: ``sqlite:////absolute/path.db``, ``postgresql://user@host:5432/database``,
            ``redis://user:password@host:6379/0``, or ``memory://`` for a store that ends with the process.
        options: Limits and times of the bus.
        owner: Name of this process in leases and histories; default ``host:pid``.
        metrics: Where numbers of the bus go.
        blobs: Where data goes that is too large to travel.
        guard_options: What guards go by: the meaning of failures, named budgets.
        faults: Rules of fault injection, by name; those that were added to the store count too. ``None``: nothing is
            injected.

    Raises:
        InvalidOption: The URL is not one of the above, or its driver is not installed.
        StoreUnavailable: The file cannot be opened, or the server not be reached.
        StoreNotWritable: It can be read but not written.
        SchemaTooOld: Made by an older version: ``airflow agentic db upgrade``.
        SchemaTooNew: Made by a newer version: upgrade the package.
    """
    parts = _parts(url)
    guards, bus_store, injected = parts.guards, parts.bus, None
    if faults is not None:
        from airflow_agentic.resilience.faults import Faults
        from airflow_agentic.stores.faulty import FaultyGuards, faulty_bus

        # Rules are kept, and told of, on the store as it is; what works on it suffers.
        calm = MessageBus(parts.bus, options=options, owner=owner)
        injected = Faults(parts.guards, faults, TellingEvents(calm, metrics or NoMetrics()))
        guards, bus_store = FaultyGuards(parts.guards, injected), faulty_bus(parts.bus, injected)
    bus = MessageBus(bus_store, options=options, owner=owner, metrics=metrics, blobs=blobs)
    going_by = guard_options or GuardOptions(metrics=metrics or NoMetrics())
    return Store(parts.url, bus, parts.agents, guards, parts.probe, parts.disconnect, going_by, injected)


@dataclass(frozen=True)
class _Parts:
    url: str
    bus: BusStore
    agents: AgentStore
    guards: GuardStore
    probe: Callable[[], str]
    disconnect: Callable[[], None]


def _parts(url: str) -> _Parts:
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        from airflow_agentic.stores.memory import MemoryAgentStore, MemoryGuards, memory_bus_store

        return _Parts(
            url, memory_bus_store(), MemoryAgentStore(), MemoryGuards(), lambda: "memory", lambda: None
        )
    if scheme in _SQL:
        from airflow_agentic.stores.sql import SqlAgentStore, SqlGuards, schema, sql_bus_store

        database = schema.open_database(url)
        probe = functools.partial(schema.probe, database)
        agents, guards = SqlAgentStore(database), SqlGuards(database)
        return _Parts(database.url, sql_bus_store(database), agents, guards, probe, database.close)
    if scheme in _REDIS:
        from airflow_agentic.stores.redis import open_redis

        server = open_redis(url)
        return _Parts(
            server.url, server.bus_store(), server.agents(), server.guards(), server.probe, server.close
        )
    # Not the URL itself: there may be a password in it.
    raise InvalidOption(
        f"there is no store of kind {scheme!r}. Use sqlite:////absolute/path/agentic.db "
        "(three slashes for a relative path, four for an absolute one), postgresql://user@host:5432/database, "
        "redis://host:6379/0, "
        "or memory:// in tests."
    )
