"""The ports in the memory of one process."""

from __future__ import annotations

from airflow_agentic.stores.memory.agents import MemoryAgentStore
from airflow_agentic.stores.memory.clock import Clock, utc_now
from airflow_agentic.stores.memory.guards import MemoryGuards
from airflow_agentic.stores.memory.journals import MemoryJournals
from airflow_agentic.stores.memory.messages import MemoryMessages, memory_bus_store

__all__ = [
    "Clock",
    "MemoryAgentStore",
    "MemoryGuards",
    "MemoryJournals",
    "MemoryMessages",
    "memory_bus_store",
    "utc_now",
]
