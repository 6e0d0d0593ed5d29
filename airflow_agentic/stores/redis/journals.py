"""Journals and heads of durable runs."""

from __future__ import annotations

import dataclasses
import heapq
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from airflow_agentic.persistence.integrity import is_storable
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
from airflow_agentic.stores.redis.connections import Argument
from airflow_agentic.stores.redis.messages import check_sent, outgoing_arguments
from airflow_agentic.stores.redis.scripts import (
    APPEND_RECORDS,
    FORGET_RUN,
    HOLD_RUN,
    INDEX_RECORDS,
    MARK_RUN,
    NEWEST_RUNS,
    PRUNE_RECORDS,
    READ_RUNS,
    READ_SNAPSHOT,
)
from airflow_agentic.stores.redis.server import RedisServer, to_bytes, to_ms

_PAGE = 500
"""So many records or heads are read at once: the server does nothing else meanwhile."""

_MOST_VERSION = 2**53
"""Numbers are exact up to here in a script."""

_BEHIND = b"\xff"
"""Is in no text."""

_NUMBERS = ("version", "done", "total", "lease_until_ms", "created_at_ms", "updated_at_ms")
_CHANGED = (
    "mode", "task", "version", "digest", "step", "done", "total", "waiting", "error", "category", "lease_until_ms",
)  # fmt: skip
_SNAPSHOT = re.compile(rb"(\d{1,16}) (\d{1,9}) (\d{1,9}) ")
_FIELDS = tuple(each.name for each in dataclasses.fields(RunHead) if each.name != "stream")


class RedisJournals:
    """Implements :class:`airflow_agentic.persistence.ports.JournalStore` and ``RunStore``.

    Args:
        server: Where.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    # -- journals --------------------------------------------------------------------------------------

    def append(self, write: Append) -> bool:
        """See the port."""
        answer = self._server.run(APPEND_RECORDS, *_append_arguments(write))
        if answer[0] == b"elsewhere":
            return False
        check_sent(answer)
        return True

    def read(self, stream: str, after: int = 0, limit: int = 1000) -> list[Record]:
        """See the port."""
        if not is_storable(stream) or limit < 1:
            return []
        rows = self._server.command(
            "XRANGE", self._server.key(f"log:{stream}"), _behind(after), "+", "COUNT", limit
        )
        return [_record(*row) for row in rows]

    def index(self, stream: str) -> list[IndexEntry]:
        """See the port."""
        found: list[IndexEntry] = []
        start, more = _behind(0), is_storable(stream)
        while more:
            rows = self._server.run(INDEX_RECORDS, stream, start, _PAGE)
            entries = [
                IndexEntry(_version(number), _text(type_), _text(name)) for number, type_, name in rows
            ]
            found += [each for each in entries if each.name]
            more = len(rows) == _PAGE
            start = _behind(entries[-1].version) if entries else start
        return found

    def latest_snapshot(self, stream: str, at: int | None = None) -> SnapshotRecord | None:
        """See the port."""
        if not is_storable(stream):
            return None
        found = self._server.run(READ_SNAPSHOT, stream, "+inf" if at is None else min(at, _MOST_VERSION))
        if found is None:
            return None
        return _snapshot(*found)

    def prune(self, stream: str, through: int) -> int:
        """See the port."""
        if not is_storable(stream):
            return 0
        return int(self._server.run(PRUNE_RECORDS, stream, min(through, _MOST_VERSION)))

    # -- heads -----------------------------------------------------------------------------------------

    def heads(self, query: RunQuery) -> list[RunHead]:
        """See the port."""
        asked = (
            query.prefix,
            query.agent or "",
            query.correlation or "",
            query.after[1] if query.after else "",
        )
        if query.limit < 1 or not all(map(is_storable, asked)):
            return []
        pages = self._named(query)
        if pages is None:
            pages = iter([self._newest(query)])
        # Only so many are kept as are wanted, however many there are.
        found: list[RunHead] = []
        for names in pages:
            found = newest([*found, *self._heads(names, query)])[: query.limit]
        return found

    def hold(self, stream: str, owner: str, lease: timedelta, instead_of: str | None = None) -> Hold:
        """See the port."""
        gone = to_bytes(owner if instead_of is None else instead_of)
        asked = (to_bytes(stream), to_bytes(owner), max(0, to_ms(lease)), gone)
        now, taken, head = self._server.run(HOLD_RUN, *asked)
        return Hold(int(now), _head(stream, head) if head else None, bool(taken))

    def mark(self, stream: str, status: RunStatus, error: str, category: str) -> bool:
        """See the port."""
        said = (str(status), to_bytes(error), category)
        return is_storable(stream) and bool(self._server.run(MARK_RUN, stream, *said))

    def forget(self, stream: str) -> bool:
        """See the port."""
        return is_storable(stream) and bool(self._server.run(FORGET_RUN, stream))

    # -- inside ----------------------------------------------------------------------------------------

    def _heads(self, names: Sequence[Argument], query: RunQuery) -> Iterator[RunHead]:
        for first in range(0, len(names), _PAGE):
            page = names[first : first + _PAGE]
            for name, flat in zip(page, self._server.run(READ_RUNS, len(page), *page), strict=True):
                head = _head(_text(name), flat) if flat else None
                if head is not None and matches(head, query):
                    yield head

    def _named(self, query: RunQuery) -> Iterator[Sequence[Argument]] | None:
        """Return the names among which those are that are asked for, in pages; ``None`` if any may be one of them."""
        if query.streams is not None:
            return iter([[each.encode() for each in dict.fromkeys(query.streams) if is_storable(each)]])
        if query.correlation is not None:
            return self._ordered(f"of:{query.correlation}", query.prefix)
        return self._ordered("streams", query.prefix) if query.prefix else None

    def _ordered(self, key: str, prefix: str) -> Iterator[Sequence[Argument]]:
        begin = prefix.encode()
        start, end = b"[" + begin, b"(" + begin + _BEHIND
        more = True
        while more:
            names = self._server.command("ZRANGEBYLEX", self._server.key(key), start, end, "LIMIT", 0, _PAGE)
            yield names
            more = len(names) == _PAGE
            start = b"(" + names[-1] if names else start

    def _newest(self, query: RunQuery) -> Sequence[Argument]:
        """Return the names of the runs that come first among those of an agent and of some statuses."""
        of = "" if query.agent is None else f":{query.agent}"
        sets = [f"{status}{of}" for status in dict.fromkeys(map(str, query.statuses or RunStatus))]
        after = (1, -query.after[0], query.after[1]) if query.after else (0,)
        rows = self._server.run(NEWEST_RUNS, query.limit, *after, len(sets), *sets)
        timed = [zip(map(int, row[1::2]), row[::2], strict=True) for row in rows]
        return [name for _, name in heapq.nsmallest(query.limit, heapq.merge(*timed))]


def _append_arguments(write: Append) -> Iterator[Argument]:
    head = write.head
    yield from (head.stream, write.expected, to_bytes(head.owner))
    yield from (head.agent, head.correlation, head.created_at_ms, str(head.status), head.updated_at_ms)
    yield 2 * len(_CHANGED)
    for name in _CHANGED:
        yield name
        value = getattr(head, name)
        yield to_bytes(value) if isinstance(value, str) else value
    yield len(write.records)
    for each in write.records:
        yield from (each.version, str(each.type), each.at_ms, each.name, each.digest, each.data)
    yield from _snapshot_arguments(write.snapshot)
    yield from outgoing_arguments(write.outgoing)


def _snapshot_arguments(snapshot: SnapshotRecord | None) -> Iterator[Argument]:
    yield int(snapshot is not None)
    if snapshot is not None:
        yield from (snapshot.version, int(snapshot.kept))
        about = f"{snapshot.at_ms} {len(snapshot.chain)} {len(snapshot.digest)} ".encode()
        yield about + snapshot.chain + snapshot.digest + snapshot.state


def _snapshot(version: bytes, kept: int, value: bytes | None) -> SnapshotRecord:
    known = _SNAPSHOT.match(value or b"")
    if known is None:
        # Whoever reads it sees that it is not as it was made.
        return SnapshotRecord(int(version), -1, b"", b"", b"", bool(kept))
    at, chain, digest = (int(number) for number in known.groups())
    content = (value or b"")[known.end() :]
    ends = chain, chain + digest
    return SnapshotRecord(
        int(version), at, content[ends[1] :], content[: ends[0]], content[ends[0] : ends[1]], bool(kept)
    )


def _behind(version: int) -> str:
    return f"{min(max(version, 0), _MOST_VERSION) + 1}-0"


def _version(number: bytes) -> int:
    return int(number.partition(b"-")[0])


def _record(number: bytes, flat: Any) -> Record:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    at = fields.get(b"a", b"")
    return Record(
        _version(number),
        _text(fields.get(b"t", b"")),
        # What is no number any more must not look like what it was.
        int(at) if at.isdigit() and str(int(at)).encode() == at else -1,
        _text(fields.get(b"n", b"")),
        fields.get(b"x", b""),
        fields.get(b"d", b""),
    )


def _head(stream: str, flat: Any) -> RunHead:
    known = dict(zip(flat[::2], flat[1::2], strict=True))
    return RunHead(stream, **{name: _value(name, known[name.encode()]) for name in _FIELDS})


def _value(name: str, kept: bytes) -> Any:
    if name in _NUMBERS:
        return int(kept)
    return kept if name == "digest" else kept.decode(errors="replace")


def _text(value: Any) -> str:
    return bytes(value).decode(errors="surrogateescape")
