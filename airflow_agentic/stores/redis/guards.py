"""Documents of guards."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from airflow_agentic.resilience.ports import KEEP, GuardChange, GuardEntry, GuardKey, GuardReading, Kind
from airflow_agentic.stores.documents import check_changes, check_keys, check_name
from airflow_agentic.stores.redis.connections import Argument
from airflow_agentic.stores.redis.scripts import (
    CHANGE_DOCUMENTS,
    LIST_DOCUMENTS,
    PURGE_DOCUMENTS,
    READ_DOCUMENTS,
)
from airflow_agentic.stores.redis.server import RedisServer, from_time, to_ms

_PAGE = 500
"""So many documents are looked at at once: the server does nothing else meanwhile."""

_KEEP_MS = {kind: to_ms(span) for kind, span in KEEP.items()}
_BEHIND = b"\xff"
"""Is in no text."""


class RedisGuards:
    """Implements :class:`airflow_agentic.resilience.ports.GuardStore`.

    Args:
        server: Where.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def read(self, keys: Sequence[GuardKey]) -> GuardReading:
        """See the port."""
        check_keys(keys)
        asked: list[Argument] = [len(keys)]
        for key in keys:
            asked += (key.kind, key.name, _KEEP_MS[key.kind])
        now, found = self._server.run(READ_DOCUMENTS, *asked)
        entries = {key: _entry(each) for key, each in zip(keys, found, strict=True) if each}
        return GuardReading(from_time(int(now)), entries)

    def change(self, changes: Sequence[GuardChange]) -> datetime | None:
        """See the port."""
        check_changes(changes)
        asked: list[Argument] = [len(changes)]
        for each in changes:
            asked += (each.key.kind, each.key.name, _KEEP_MS[each.key.kind])
            asked += (each.expected, int(each.value is not None), each.value or b"")
        now = self._server.run(CHANGE_DOCUMENTS, *asked)
        return None if now is None else from_time(int(now))

    def entries(self, kind: Kind, prefix: str = "", limit: int = 1000) -> list[tuple[str, GuardEntry]]:
        """See the port."""
        check_name(kind, prefix)
        begin = prefix.encode()
        start, end = b"[" + begin, b"(" + begin + _BEHIND
        found: list[tuple[str, GuardEntry]] = []
        while (wanted := min(_PAGE, limit - len(found))) > 0:
            rows = self._server.run(LIST_DOCUMENTS, kind, _KEEP_MS[kind], start, end, wanted)
            found += [(name.decode(), _entry(about)) for name, *about in rows if about]
            if len(rows) < wanted:
                break
            start = b"(" + rows[-1][0]
        return found

    def purge(self) -> int:
        """See the port."""
        forgotten = 0
        for kind, keep in _KEEP_MS.items():
            start: bytes | None = b"-"
            while start is not None:
                count, last = self._server.run(PURGE_DOCUMENTS, kind, keep, start, _PAGE)
                forgotten += count
                start = None if last is None else b"(" + last
        return forgotten


def _entry(about: Any) -> GuardEntry:
    version, at, value = about
    return GuardEntry(value, int(version), from_time(int(at)))
