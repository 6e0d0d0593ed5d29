"""Reads what is kept of runs, page by page, as it lies there: whoever reads checks the seals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from airflow_agentic.persistence.ports import (
    JournalStore,
    Record,
    RunHead,
    RunQuery,
    RunStore,
    SnapshotRecord,
)

_PAGE = 500


def head_at(runs: RunStore, key: str) -> RunHead | None:
    """Return how a run stands; ``None`` if there is none of that key."""
    return next(iter(runs.heads(RunQuery(streams=(key,), limit=1))), None)


def all_heads(runs: RunStore, query: RunQuery) -> Iterator[RunHead]:
    """Yield all heads that a query asks for, page by page; its limit does not count.

    What is written meanwhile moves to the front of the order: it may have been there before, and be passed over.
    """
    page = [*runs.heads(replace(query, limit=_PAGE))]
    while page:
        yield from page
        page = runs.heads(replace(query, limit=_PAGE, after=page[-1].place)) if len(page) == _PAGE else []


def all_records(store: JournalStore, key: str, after: int = 0, limit: int | None = None) -> Iterator[Record]:
    """Yield the records of a run in their order.

    Args:
        store: Where.
        key: The run.
        after: Begin after this version.
        limit: At most so many; default all.
    """
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        page = store.read(key, after, size)
        yield from page
        if len(page) < size:
            return
        after = page[-1].version
        left = None if left is None else left - len(page)


def all_snapshots(store: JournalStore, key: str, at: int | None = None) -> Iterator[SnapshotRecord]:
    """Yield the snapshots of a run up to a version, the newest first; default all."""
    found = store.latest_snapshot(key, at)
    while found is not None:
        yield found
        found = store.latest_snapshot(key, found.version - 1)
