"""All that is on one Redis server."""

from __future__ import annotations

from airflow_agentic.agents.status import AgentStore
from airflow_agentic.messaging.ports import BusStore
from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.resilience.ports import GuardStore
from airflow_agentic.stores.redis.agents import RedisAgentStore
from airflow_agentic.stores.redis.books import RedisBooks
from airflow_agentic.stores.redis.guards import RedisGuards
from airflow_agentic.stores.redis.journals import RedisJournals
from airflow_agentic.stores.redis.messages import RedisMessages
from airflow_agentic.stores.redis.server import RedisServer
from airflow_agentic.stores.redis.values import RedisHeartbeats, RedisState, RedisSubscriptions


class WholeRedis(RedisServer):
    """A server, and the ports on it."""

    def bus_store(self) -> BusStore:
        """Return the ports of the bus."""
        return BusStore(
            RedisMessages(self),
            RedisBooks(self),
            RedisSubscriptions(self),
            RedisHeartbeats(self),
            RedisState(self),
        )

    def agents(self) -> AgentStore:
        """Return the port of named agents."""
        return RedisAgentStore(self)

    def runs(self) -> RunStores:
        """Return the port of durable runs."""
        journals = RedisJournals(self)
        return RunStores(journals, journals)

    def guards(self) -> GuardStore:
        """Return the port of guards."""
        return RedisGuards(self)
