"""A store as its users see it: the bus, the agents and the guards of one URL."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from airflow_agentic.agents.status import AgentStore
from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import InvalidOption
from airflow_agentic.messaging.bus import MessageBus, is_gone
from airflow_agentic.messaging.options import BusOptions
from airflow_agentic.messaging.ports import Blobs, BusStore
from airflow_agentic.observability.metrics import Metrics, NoMetrics
from airflow_agentic.persistence.history import Event, Moment, When
from airflow_agentic.persistence.integrity import Damage
from airflow_agentic.persistence.ports import Facilities, RunStores
from airflow_agentic.persistence.run import Run
from airflow_agentic.persistence.runs import Runs
from airflow_agentic.persistence.session import RunOptions
from airflow_agentic.persistence.state import StateSchema
from airflow_agentic.resilience.admission import NOBODY, Subject
from airflow_agentic.resilience.breakers import BreakerHandle
from airflow_agentic.resilience.guard import Guard
from airflow_agentic.resilience.guards import GuardOptions, Guards
from airflow_agentic.resilience.keeping import KEEPER
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
        run_stores: Durable runs, as they are kept.
        guard_options: What the guards of this store go by.
        faults: What is injected; ``None`` for nothing.
    """

    url: str
    bus: MessageBus
    agents: AgentStore
    guards: GuardStore
    run_stores: RunStores = field(repr=False)
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

    @functools.cached_property
    def runs(self) -> Runs:
        """The durable runs, to open, look at and change by hand."""
        return self.runs_with()

    def runs_with(
        self,
        options: RunOptions | None = None,
        is_gone: Callable[[str], bool] = is_gone,
        owner: str | None = None,
    ) -> Runs:
        """Return the durable runs, kept in another way or for somebody who knows more of who is gone.

        Args:
            options: How those are kept of which nothing else is said.
            is_gone: Whether an owner of leases is known to be gone.
            owner: Who works on them; default: as in the leases of messages.
        """
        blobs = self.bus.blobs
        facilities = Facilities(
            lambda: owner or self.bus.owner,
            self.bus.outgoing,
            blobs.put if blobs else None,
            blobs.get if blobs else None,
            is_gone,
            KEEPER,
            lambda error: self.guard_options.classifier.failure(error).category,
            blobs.delete if blobs else None,
        )
        return Runs(self.run_stores, facilities, options)

    def run(self, agent: str, key: str | None = None, persistence: str | None = None, **options: Any) -> Run:
        """Open a durable run: ``with store.run("triage", key="ticket-7") as run: run.step("read", read, ticket)``.

        Args:
            agent: Whose run it is.
            key: Names it: opened again by the same key, it goes on. Default a new name.
            persistence: ``hybrid`` (the default), ``events``, ``snapshot`` or ``checkpoint``.
            options: Other fields of :class:`airflow_agentic.persistence.RunOptions`.

        Raises:
            ConfigurationError: The key, the agent or the persistence cannot be one.
            RunTaken: Somebody else works on it.
            JournalCorrupt: It is damaged.
        """
        return self.runs.open(agent, key, persistence=persistence, **options)

    def history(self, key: str) -> list[Event]:
        """Return what happened in a run; see :meth:`Runs.history`."""
        return self.runs.history(key)

    def at(self, key: str, when: When, schema: StateSchema | None = None) -> Moment:
        """Return a run as it was at a version, a checkpoint or a time; see :meth:`Runs.at`."""
        return self.runs.at(key, when, schema)

    def fork(self, key: str, at: When | None = None, **options: Any) -> str:
        """Begin a new run from a past moment of another one; see :meth:`Interventions.fork`."""
        return self.runs.by_hand.fork(key, at=at, **options)

    def verify(self, key: str) -> Sequence[Damage]:
        """Return all that is wrong with a run's journal; see :meth:`Runs.verify`."""
        return self.runs.verify(key)

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
    return Store(
        parts.url, bus, parts.agents, guards, parts.runs, parts.probe, parts.disconnect, going_by, injected
    )


@dataclass(frozen=True)
class _Parts:
    url: str
    bus: BusStore
    agents: AgentStore
    guards: GuardStore
    runs: RunStores
    probe: Callable[[], str]
    disconnect: Callable[[], None]


def _parts(url: str) -> _Parts:
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        from airflow_agentic.stores.memory import (
            MemoryAgentStore,
            MemoryGuards,
            MemoryJournals,
            memory_bus_store,
        )

        bus_store = memory_bus_store()
        journals = MemoryJournals(send=bus_store.messages.append)
        runs = RunStores(journals, journals)
        return _Parts(
            url, bus_store, MemoryAgentStore(), MemoryGuards(), runs, lambda: "memory", lambda: None
        )
    if scheme in _SQL:
        from airflow_agentic.stores.sql import SqlAgentStore, SqlGuards, schema, sql_bus_store, sql_run_stores

        database = schema.open_database(url)
        probe = functools.partial(schema.probe, database)
        agents, guards = SqlAgentStore(database), SqlGuards(database)
        runs = sql_run_stores(database)
        return _Parts(database.url, sql_bus_store(database), agents, guards, runs, probe, database.close)
    if scheme in _REDIS:
        from airflow_agentic.stores.redis import open_redis

        server = open_redis(url)
        return _Parts(
            server.url,
            server.bus_store(),
            server.agents(),
            server.guards(),
            server.runs(),
            server.probe,
            server.close,
        )
    # Not the URL itself: there may be a password in it.
    raise InvalidOption(
        f"there is no store of kind {scheme!r}. Use sqlite:////absolute/path/agentic.db "
        "(three slashes for a relative path, four for an absolute one), postgresql://user@host:5432/database, "
        "redis://host:6379/0, "
        "or memory:// in tests."
    )
