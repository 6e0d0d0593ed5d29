"""Stores and runs with one promise broken each: the books of the runs must show it."""

from __future__ import annotations

import dataclasses
from typing import Any

from mutants import Inside

from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.persistence.progress import Past
from airflow_agentic.stores import Store, open_store

NO_INTENTS, WRITES_BEHIND, NO_VERSIONS = "no intents", "writes behind", "no versions"
SENDS_AT_ONCE, SAYS_AGAIN = "sends at once", "says again"
MUTANTS = (NO_INTENTS, WRITES_BEHIND, NO_VERSIONS, SENDS_AT_ONCE, SAYS_AGAIN)
"""The first and the fourth are a worker that is told to; the others are made here."""


class WritesBehind(Inside):
    """Says that a record is kept, and keeps it when the next one comes."""

    def __init__(self, inner: Any):
        self._kept_back: list[Any] = []
        super().__init__(inner)

    def append(self, write: Any) -> bool:
        self.flush()
        self._kept_back.append(write)
        return write.records[-1].type != "run.finished" or self.flush()

    def __getattr__(self, name: str) -> Any:
        # Whoever reads sees everything: only a crash shows what is missing.
        self.flush()
        return super().__getattr__(name)

    def flush(self) -> bool:
        waiting, self._kept_back = self._kept_back, []
        return all(self._inner.append(each) for each in waiting)


def opened(url: str, mutant: str = "") -> Store:
    """Open a store; with a mutant's name, one that breaks that promise."""
    assert not mutant or mutant in MUTANTS
    store = open_store(url)
    if mutant == WRITES_BEHIND:
        stores = RunStores(WritesBehind(store.run_stores.journals), store.run_stores.runs)
        return dataclasses.replace(store, run_stores=stores)
    if mutant == NO_VERSIONS:
        _without_versions(store.run_stores.journals)
    if mutant == SAYS_AGAIN:
        assert hasattr(Past, "said_at")
        Past.said_at = lambda _self, _place: 0
    return store


def _without_versions(journals: Any) -> None:
    """Let everybody write to every run at any time (SQLite)."""
    said = journals._sql
    anybody = said.advance.replace(" AND version = :expected AND owner = :owner", "")
    anyhow = said.record.replace("INSERT INTO", "INSERT OR REPLACE INTO")
    assert (anybody, anyhow) != (said.advance, said.record)
    never = f"{said.advance_quietly} AND 0"  # so that it is the other one that is asked
    journals._sql = dataclasses.replace(said, advance=anybody, advance_quietly=never, record=anyhow)
