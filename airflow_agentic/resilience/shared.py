"""Documents that all workers share: read, decide, write if nobody else did; and what is done without the store."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

from airflow_agentic.errors import GuardsUnavailable, StoreError, StoreUnavailable
from airflow_agentic.resilience.ports import (
    KEEP,
    GuardChange,
    GuardEntry,
    GuardEvent,
    GuardEvents,
    GuardKey,
    GuardReading,
    GuardStore,
    Kind,
)

T = TypeVar("T")
Doc = Mapping[str, Any]
Docs = Mapping[GuardKey, Doc]

_log = logging.getLogger(__name__)

# Longer than this nobody goes on without having asked the store again, whatever is said of staleness.
_OLDEST_GUESS_SECONDS = 5.0
_LONGEST_CONTENTION_SECONDS = 10.0
# So long a store that could not be reached is left alone.
_PAUSE_SECONDS = 5.0
# A document that others changed so lately is read before it is written: a guess would only be refused.
_RIVALRY_SECONDS = 1.0
_MOST_REMEMBERED = 1_000


@dataclass(frozen=True)
class Decision(Generic[T]):
    """What came of looking at documents.

    Attributes:
        answer: For whoever asked.
        docs: Documents as they are to be from now on; those that stay as they are need not be here.
        events: What is told once the documents are written.
    """

    answer: T
    docs: Docs = field(default_factory=dict)
    events: tuple[GuardEvent, ...] = ()


Decide = Callable[[Docs, float], Decision[T]]
"""Takes the documents that there are and the store's time in seconds since 1970; knows nothing else, and may be
called again if somebody else was faster."""


@dataclass(frozen=True)
class _Seen:
    doc: Doc | None
    version: int
    at: float


class SharedState:
    """What all workers know, with a memory of what this process saw last.

    Args:
        store: Where the documents are.
        events: Who is told of what happens; default nobody.
        staleness_seconds: :meth:`peek` answers from memory for so long.

    Attributes:
        staleness_seconds: See above.
    """

    def __init__(
        self, store: GuardStore, events: GuardEvents | None = None, staleness_seconds: float = 1.0
    ) -> None:
        self._store = store
        self._events = events
        self._alone = LocalGuards()
        self.staleness_seconds = staleness_seconds
        self._lock = threading.Lock()
        self._seen: dict[GuardKey, _Seen] = {}
        self._rivals: dict[GuardKey, float] = {}
        self._clock: tuple[float, float] | None = None  # the store's, and this process's own at that time
        self._down_until = 0.0
        self._is_down = False

    def update(
        self,
        keys: Sequence[GuardKey],
        decide: Decide[T],
        *,
        without_store: Literal["closed", "open"] = "closed",
        fresh: bool = False,
    ) -> T:
        """Decide about documents, and write what was decided in one change.

        Without contention that is one round trip where this process saw them just before, two otherwise.

        Args:
            keys: Which documents.
            decide: What to make of them.
            fresh: Ask the store before deciding, even if that is to change nothing.
            without_store: ``closed``: while the store cannot be reached, decide with what this process alone knows;
                ``open``: refuse.

        Raises:
            GuardsUnavailable: The store cannot be reached, and ``without_store`` is ``open``.
        """
        if not self._left_alone():
            try:
                answer, events = self._update(keys, decide, fresh=fresh)
            except Exception as error:  # noqa: BLE001  # whatever ails the store must not become the failure of the work
                self._is_lost(error)
            else:
                self._is_back()
                self._tell(events)
                return answer
        if without_store == "open":
            raise GuardsUnavailable(
                "the store of the guards cannot be reached, and the policy says `without_store: open`",
                keys[0].name,
                datetime.fromtimestamp(time.time() + _PAUSE_SECONDS, UTC),
            )
        answer, events = self._decide_alone(keys, decide)
        self._tell(events)
        return answer

    def insist(self, keys: Sequence[GuardKey], decide: Decide[T]) -> T:
        """Do what :meth:`update` does, with the store or not at all: for what people do.

        Raises:
            StoreError: The store cannot be reached.
        """
        answer, events = self._update(keys, decide)
        self._tell(events)
        return answer

    def peek(self, key: GuardKey) -> tuple[Doc, float] | None:
        """Return a document as it was at most ``staleness_seconds`` ago, and the store's time; ``None`` if not known.

        Asks nobody: this is the short way of calls of what is well.
        """
        seen, clock = self._seen.get(key), self._clock
        here = time.monotonic()
        if seen is None or clock is None or here - seen.at > self.staleness_seconds:
            return None
        return seen.doc or {}, clock[0] + here - clock[1]

    def now(self) -> float:
        """Return the store's time in seconds since 1970, as far as it is known: never ahead of it."""
        clock = self._clock
        return time.time() if clock is None or self._is_down else clock[0] + time.monotonic() - clock[1]

    def read(self, keys: Sequence[GuardKey]) -> tuple[Docs, float]:
        """Return documents as they are, and the store's time; nothing is written.

        Raises:
            StoreError: The store cannot be reached.
        """
        seen, now = self._read(keys)
        return _there(seen), now

    def known(self, keys: Sequence[GuardKey]) -> tuple[Docs, float]:
        """Do what :meth:`read` does; without the store return what this process alone knows."""
        if not self._left_alone():
            try:
                found = self.read(keys)
            except Exception as error:  # noqa: BLE001  # as above
                self._is_lost(error)
            else:
                self._is_back()
                return found
        reading = self._alone.read(keys)
        return {
            key: json.loads(entry.value) for key, entry in reading.entries.items()
        }, reading.now.timestamp()

    def listed(self, kind: Kind, prefix: str = "", limit: int = 1000) -> list[tuple[str, Doc, GuardEntry]]:
        """Return name, document and entry of what there is of a kind, ordered by name.

        Raises:
            StoreError: The store cannot be reached.
        """
        return [
            (name, json.loads(entry.value), entry) for name, entry in self._store.entries(kind, prefix, limit)
        ]

    @property
    def is_alone(self) -> bool:
        """Whether the store could not be reached when it was asked last."""
        return self._is_down

    # -- with the store --------------------------------------------------------------------------------

    def _update(
        self, keys: Sequence[GuardKey], decide: Decide[T], *, fresh: bool = False
    ) -> tuple[T, tuple[GuardEvent, ...]]:
        remembered = None if fresh else self._remembered(keys)
        found = remembered or self._read(keys)
        began, tries = time.monotonic(), 0
        while True:
            seen, now = found
            decision = decide(_there(seen), now)
            changes = _changes(seen, decision.docs)
            if not changes and found is remembered and self._is_stale(seen):
                # A write would be refused if this were not so any more; without one it must be looked at.
                found = self._read(keys)
                continue
            if not changes or self._write(changes, decision.docs):
                return decision.answer, decision.events
            if time.monotonic() - began > _LONGEST_CONTENTION_SECONDS:
                raise StoreUnavailable(
                    f"{keys[0].name!r} is changed by others all the time: gave up after {tries} tries"
                )
            tries += 1
            time.sleep(random.uniform(0, min(0.05, 0.001 * 2 ** min(tries, 10))))  # noqa: S311  # to part the rivals
            found = self._read(keys)

    def _is_stale(self, seen: Mapping[GuardKey, _Seen]) -> bool:
        oldest = min((each.at for each in seen.values()), default=math.inf)
        return time.monotonic() - oldest > self.staleness_seconds

    def _remembered(self, keys: Sequence[GuardKey]) -> tuple[dict[GuardKey, _Seen], float] | None:
        here = time.monotonic()
        with self._lock:
            if self._clock is None:
                return None
            found: dict[GuardKey, _Seen] = {}
            for key in keys:
                seen = self._seen.get(key)
                if seen is None or here - seen.at > _OLDEST_GUESS_SECONDS:
                    return None
                if here - self._rivals.get(key, -math.inf) < _RIVALRY_SECONDS:
                    return None
                found[key] = seen
            # The answer came after the store looked at its clock: this is never ahead of it.
            return found, self._clock[0] + here - self._clock[1]

    def _read(self, keys: Sequence[GuardKey]) -> tuple[dict[GuardKey, _Seen], float]:
        reading = self._store.read(keys)
        now, here = reading.now.timestamp(), time.monotonic()
        found: dict[GuardKey, _Seen] = {}
        for key in keys:
            entry = reading.entries.get(key)
            found[key] = (
                _Seen(None, 0, here) if entry is None else _Seen(json.loads(entry.value), entry.version, here)
            )
        with self._lock:
            self._clock = (now, here)
            self._seen.update(found)
            self._tidy(here)
        return found, now

    def _tidy(self, here: float) -> None:
        """Forget what is too old to guess by; budgets and answers make ever new names."""
        if len(self._seen) > _MOST_REMEMBERED:
            self._seen = {
                key: seen for key, seen in self._seen.items() if here - seen.at <= _OLDEST_GUESS_SECONDS
            }
        if len(self._rivals) > _MOST_REMEMBERED:
            self._rivals = {key: at for key, at in self._rivals.items() if here - at < _RIVALRY_SECONDS}

    def _write(self, changes: Sequence[GuardChange], docs: Docs) -> bool:
        try:
            now = self._store.change(changes)
        except BaseException:
            self._forget(changes)
            raise
        if now is None:
            self._forget(changes)
            with self._lock:
                self._rivals.update(dict.fromkeys([change.key for change in changes], time.monotonic()))
            return False
        here = time.monotonic()
        with self._lock:
            self._clock = (now.timestamp(), here)
            for change in changes:
                self._seen[change.key] = _Seen(docs[change.key], change.expected + 1, here)
        return True

    def _forget(self, changes: Sequence[GuardChange]) -> None:
        with self._lock:
            for change in changes:
                self._seen.pop(change.key, None)

    # -- without ---------------------------------------------------------------------------------------

    def _left_alone(self) -> bool:
        if not self._is_down:
            return False
        with self._lock:
            here = time.monotonic()
            if here < self._down_until:
                return True
            # One call asks whether it is back. It may have to wait for the answer; the others need not.
            self._down_until = here + _PAUSE_SECONDS
            return False

    def _is_lost(self, error: Exception) -> None:
        with self._lock:
            self._down_until = time.monotonic() + _PAUSE_SECONDS
            known, self._is_down = self._is_down, True
        if not known:
            _log.warning(
                "[%s] the store of the guards cannot be used, and this process guards alone until it can: %s",
                error.category if isinstance(error, StoreError) else type(error).__name__,
                error,
                exc_info=None if isinstance(error, StoreError) else error,
            )
            self._tell((GuardEvent("guards.unavailable", "", datetime.now(UTC), {"error": str(error)}),))

    def _is_back(self) -> None:
        if self._is_down:
            with self._lock:
                known, self._is_down = not self._is_down, False
                self._alone = LocalGuards()
                # What was seen before may be long past: the store is asked first.
                self._seen.clear()
            if not known:
                _log.warning("the store of the guards is back")
                self._tell((GuardEvent("guards.available", "", datetime.now(UTC)),))

    def _decide_alone(self, keys: Sequence[GuardKey], decide: Decide[T]) -> tuple[T, tuple[GuardEvent, ...]]:
        with self._lock:
            reading = self._alone.read(keys)
            docs = {key: json.loads(entry.value) for key, entry in reading.entries.items()}
            decision = decide(docs, reading.now.timestamp())
            self._alone.change(
                [
                    GuardChange(
                        key,
                        json.dumps(doc).encode(),
                        reading.entries[key].version if key in reading.entries else 0,
                    )
                    for key, doc in decision.docs.items()
                ]
            )
        return decision.answer, decision.events

    def _tell(self, events: Sequence[GuardEvent]) -> None:
        for event in events if self._events is not None else ():
            assert self._events is not None
            # Telling is no part of guarding: whatever it raises, the work goes on.
            with contextlib.suppress(Exception):
                self._events.tell(event)


def _there(seen: Mapping[GuardKey, _Seen]) -> dict[GuardKey, Doc]:
    return {key: each.doc for key, each in seen.items() if each.doc is not None}


def _changes(before: Mapping[GuardKey, _Seen], after: Docs) -> list[GuardChange]:
    return [
        GuardChange(key, json.dumps(doc, separators=(",", ":")).encode(), before[key].version)
        for key, doc in after.items()
        if doc != before[key].doc
    ]


class LocalGuards:
    """Implements :class:`airflow_agentic.resilience.ports.GuardStore` in this process's memory.

    Args:
        clock: What time it is.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[GuardKey, GuardEntry] = {}

    def read(self, keys: Sequence[GuardKey]) -> GuardReading:
        """See the port."""
        with self._lock:
            now = self._clock()
            return GuardReading(now, {key: found for key in keys if (found := self._kept(key, now))})

    def change(self, changes: Sequence[GuardChange]) -> datetime | None:
        """See the port."""
        with self._lock:
            now = self._clock()
            for change in changes:
                found = self._kept(change.key, now)
                if (found.version if found else 0) != change.expected:
                    return None
            for change in changes:
                self._entries.pop(change.key, None)
                if change.value is not None:
                    self._entries[change.key] = GuardEntry(change.value, change.expected + 1, now)
            return now

    def entries(self, kind: Kind, prefix: str = "", limit: int = 1000) -> list[tuple[str, GuardEntry]]:
        """See the port."""
        with self._lock:
            now = self._clock()
            names = [key.name for key in self._entries if key.kind == kind and key.name.startswith(prefix)]
            found = [
                (name, entry)
                for name in sorted(names, key=str.encode)
                if (entry := self._kept(GuardKey(kind, name), now))
            ]
            return found[:limit]

    def purge(self) -> int:
        """See the port."""
        with self._lock:
            now = self._clock()
            old = [key for key in self._entries if self._kept(key, now) is None]
            for key in old:
                del self._entries[key]
            return len(old)

    def _kept(self, key: GuardKey, now: datetime) -> GuardEntry | None:
        entry = self._entries.get(key)
        return entry if entry is not None and now - entry.updated_at <= KEEP[key.kind] else None
