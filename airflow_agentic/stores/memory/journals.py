"""Journals and heads of runs in the memory of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from airflow_agentic.persistence.ports import (
    Append,
    Hold,
    IndexEntry,
    Record,
    RunHead,
    RunQuery,
    RunStatus,
    SnapshotRecord,
)
from airflow_agentic.stores.listing import matches, newest
from airflow_agentic.stores.memory.clock import Clock, utc_now


@dataclass
class _Stream:
    head: RunHead
    records: list[Record] = field(default_factory=list)
    snapshots: dict[int, SnapshotRecord] = field(default_factory=dict)


class MemoryJournals:
    """Implements :class:`airflow_agentic.persistence.ports.JournalStore` and ``RunStore``.

    Args:
        clock: Tells the time, with a time zone.
        send: Takes the messages that leave with a commit.
    """

    def __init__(self, clock: Clock = utc_now, send: Callable[[Sequence[Any]], Any] = len) -> None:
        self._clock = clock
        self._send = send
        self._lock = threading.RLock()
        self._streams: dict[str, _Stream] = {}

    def append(self, write: Append) -> bool:
        """See the port."""
        with self._lock:
            stream = self._streams.get(write.head.stream)
            if (stream.head.version if stream else 0) != write.expected:
                return False
            if stream is not None and stream.head.owner != write.head.owner:
                return False
            if write.outgoing:
                self._send(write.outgoing)
            if stream is None:
                stream = self._streams[write.head.stream] = _Stream(write.head)
            began = stream.head
            stream.head = replace(
                write.head,
                agent=began.agent,
                correlation=began.correlation,
                created_at_ms=began.created_at_ms,
            )
            stream.records += write.records
            if write.snapshot is not None:
                kept = {version: each for version, each in stream.snapshots.items() if each.kept}
                stream.snapshots = {**kept, write.snapshot.version: write.snapshot}
            return True

    def read(self, stream: str, after: int = 0, limit: int = 1000) -> list[Record]:
        """See the port."""
        with self._lock:
            found = self._streams.get(stream)
            return [each for each in found.records if each.version > after][:limit] if found else []

    def index(self, stream: str) -> list[IndexEntry]:
        """See the port."""
        with self._lock:
            found = self._streams.get(stream)
            records = found.records if found else []
            return [IndexEntry(each.version, each.type, each.name) for each in records if each.name]

    def latest_snapshot(self, stream: str, at: int | None = None) -> SnapshotRecord | None:
        """See the port."""
        with self._lock:
            found = self._streams.get(stream)
            versions = [v for v in (found.snapshots if found else ()) if at is None or v <= at]
            return found.snapshots[max(versions)] if found and versions else None

    def prune(self, stream: str, through: int) -> int:
        """See the port."""
        with self._lock:
            found = self._streams.get(stream)
            if found is None or through not in found.snapshots:
                return 0
            before = len(found.records)
            found.records = [each for each in found.records if each.version > through]
            found.snapshots = {
                version: each for version, each in found.snapshots.items() if each.kept or version >= through
            }
            found.snapshots[through] = replace(found.snapshots[through], kept=True)
            return before - len(found.records)

    def heads(self, query: RunQuery) -> list[RunHead]:
        """See the port."""
        with self._lock:
            return newest(each.head for each in self._streams.values() if matches(each.head, query))[
                : query.limit
            ]

    def hold(self, stream: str, owner: str, lease: timedelta, instead_of: str | None = None) -> Hold:
        """See the port."""
        with self._lock:
            now = round(self._clock().timestamp() * 1000)
            found = self._streams.get(stream)
            if found is None:
                return Hold(now, None, taken=False)
            head = found.head
            is_free = head.lease_until_ms <= now or head.owner == instead_of
            taken = head.owner == owner or (lease > timedelta(0) and is_free)
            if taken:
                until = now + round(lease.total_seconds() * 1000) if lease > timedelta(0) else 0
                found.head = replace(head, owner=owner, lease_until_ms=until)
            return Hold(now, found.head, taken)

    def mark(self, stream: str, status: RunStatus, error: str, category: str) -> bool:
        """See the port."""
        with self._lock:
            found = self._streams.get(stream)
            if found is None:
                return False
            found.head = replace(found.head, status=status.value, error=error, category=category)
            return True

    def forget(self, stream: str) -> bool:
        """See the port."""
        with self._lock:
            return self._streams.pop(stream, None) is not None
