"""Parts for tests of durable runs: runs on any store, a store that dies in the middle, and places for large data."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_agentic.errors import ClaimCheckDamaged, StoreUnavailable
from airflow_agentic.persistence import RunOptions, Runs
from airflow_agentic.persistence.ports import Facilities, RunStores
from airflow_agentic.stores.memory import MemoryJournals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from airflow_agentic.persistence import Run, RunQuery, RunStatus
    from airflow_agentic.persistence.ports import Append, Hold, IndexEntry, Record, RunHead, SnapshotRecord

MODES = ("hybrid", "events", "snapshot", "checkpoint")


class Killed(BaseException):  # it is no error that code catches
    """The process was killed at this moment."""


class Breakable:
    """A store of runs that works as another one, until it is told to fail.

    Attributes:
        appends: How many writes were asked for.
        is_dead: Whether nothing works any more.
    """

    def __init__(self, stores: RunStores) -> None:
        self._journals, self._runs = stores.journals, stores.runs
        self._fails: dict[int, tuple[str, Callable[[], BaseException]]] = {}
        self._error: Callable[[], BaseException] = Killed
        self.appends = 0
        self.is_dead = False
        self.stores = RunStores(self, self)

    def kill(self, nth: int, when: str) -> None:
        """Die in the n-th write from now on, ``before`` or ``after`` its commit."""
        self._fails[self.appends + nth] = (when, Killed)

    def lose(self, nth: int, when: str, *, for_good: bool = False) -> None:
        """Be unreachable in the n-th write from now on; with ``for_good`` also for all that follows."""
        self._fails[self.appends + nth] = (f"{when} for good" if for_good else when, _away)

    def revive(self) -> None:
        """Work again."""
        self.is_dead, self._fails = False, {}

    def append(self, write: Append) -> bool:
        self._check()
        self.appends += 1
        when, error = self._fails.pop(self.appends, ("", Killed))
        is_done = self._journals.append(write) if not when.startswith("before") else False
        if when:
            self.is_dead, self._error = error is Killed or when.endswith("for good"), error
            raise error()
        return is_done

    def read(self, stream: str, after: int = 0, limit: int = 1000) -> list[Record]:
        self._check()
        return self._journals.read(stream, after, limit)

    def index(self, stream: str) -> list[IndexEntry]:
        self._check()
        return self._journals.index(stream)

    def latest_snapshot(self, stream: str, at: int | None = None) -> SnapshotRecord | None:
        self._check()
        return self._journals.latest_snapshot(stream, at)

    def prune(self, stream: str, through: int) -> int:
        self._check()
        return self._journals.prune(stream, through)

    def heads(self, query: RunQuery) -> list[RunHead]:
        self._check()
        return self._runs.heads(query)

    def hold(self, stream: str, owner: str, lease: timedelta, instead_of: str | None = None) -> Hold:
        self._check()
        return self._runs.hold(stream, owner, lease, instead_of)

    def mark(self, stream: str, status: RunStatus, error: str, category: str) -> bool:
        self._check()
        return self._runs.mark(stream, status, error, category)

    def forget(self, stream: str) -> bool:
        self._check()
        return self._runs.forget(stream)

    def _check(self) -> None:
        if self.is_dead:
            raise self._error()


def _away() -> BaseException:
    return StoreUnavailable("the store is away")


@dataclass
class Shelf:
    """A place for large data, in memory."""

    contents: dict[str, bytes] = field(default_factory=dict)
    is_away: bool = False

    def put(self, name: str, content: bytes) -> str:
        self.contents[f"shelf/{name}"] = content
        return f"shelf/{name}"

    def get(self, where: str) -> bytes:
        if where not in self.contents:
            raise ClaimCheckDamaged(f"the data at {where} is gone")
        return self.contents[where]

    def delete(self, where: str) -> None:
        if self.is_away:
            raise StoreUnavailable("the place of large data is away")
        self.contents.pop(where, None)


class Effects:
    """What steps did in the world outside: how often each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def do(self, name: str, result: Any = None) -> Any:
        self.counts[name] += 1
        return result

    def __getitem__(self, name: str) -> int:
        return self.counts[name]


def runs_on(
    stores: RunStores, owner: str = "here:1", *, shelf: Shelf | None = None, gone: str = "", **options: Any
) -> Runs:
    """Return the runs of a store for a worker that renews no leases."""
    facilities = Facilities(
        lambda: owner,
        keep_blob=shelf.put if shelf else None,
        read_blob=shelf.get if shelf else None,
        is_gone=lambda other: other == gone,
        delete_blob=shelf.delete if shelf else None,
    )
    return Runs(stores, facilities, RunOptions(**options))


def memory_runs(owner: str = "here:1", **options: Any) -> Runs:
    """Return runs on a new store in memory."""
    journals = MemoryJournals()
    return runs_on(RunStores(journals, journals), owner, **options)


@contextlib.contextmanager
def dying(runs: Runs, key: str = "k", **options: Any) -> Iterator[Run]:
    """Open a run of agent ``a``, and die at the end of the work: the run neither finishes nor fails."""
    with contextlib.suppress(Killed), runs.open("a", key, **options) as run:
        yield run
        raise Killed


def types_of(runs: Runs, key: str) -> list[str]:
    """Return what happened in a run, in order."""
    return [each.type for each in runs.history(key)]
