"""A journal: reads are checked against their seals, writes are sealed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

from airflow_agentic.errors import AgenticError, JournalCorrupt, NotRecordable, RunTaken, StoreUnavailable
from airflow_agentic.persistence.integrity import (
    Damage,
    damages,
    genesis,
    is_whole,
    seal,
    seal_snapshot,
)
from airflow_agentic.persistence.naming import fault_of
from airflow_agentic.persistence.ports import (
    Append,
    IndexEntry,
    JournalStore,
    Record,
    RunHead,
    RunStatus,
    RunStores,
    SnapshotRecord,
)
from airflow_agentic.persistence.reading import head_at

_log = logging.getLogger(__name__)

LONGEST_NAME = 1_000
"""Names of steps, checkpoints, questions and events have at most so many characters, with what is put around them."""

_FIELDS = tuple(field.name for field in fields(RunHead))
_values = attrgetter(*_FIELDS)

_PAGE = 500
_AHEAD = 64


class Draft(NamedTuple):
    """A record to be.

    Attributes:
        type: What happened.
        name: Of the step, checkpoint, question or place.
        data: Canonical JSON.
    """

    type: str
    name: str
    data: bytes


def corrupt(damage: Damage) -> JournalCorrupt:
    """Return the error for a damage."""
    return JournalCorrupt(
        f"the journal of run {damage.stream!r} is damaged at "
        f"{f'version {damage.version}' if damage.version else 'its head'}: {damage.what}. The run is in quarantine, and the "
        f"others go on. Look at it with `airflow agentic runs verify {damage.stream}`; fork it from a version before, or "
        "restore the store from a backup",
        damage.stream,
        damage.version,
        damage.what,
    )


def taken(head: RunHead | None, key: str) -> RunTaken:
    """Return the error for a run that somebody else works on."""
    if head is None or not head.owner:
        return RunTaken(f"somebody else writes to the run {key!r}; nothing was written", key)
    until = datetime.fromtimestamp(head.lease_until_ms / 1000, UTC) if head.lease_until_ms else None
    when = f" until {until:%H:%M:%S} UTC, unless it goes on" if until else ""
    return RunTaken(
        f"{head.owner} works on the run {key!r}{when}; nothing was written", key, head.owner, until
    )


class Journal:
    """The journal of one run, for the one who works on it.

    Args:
        stores: Where.
        head: The run's head, as the store gave it, or a new one of version 0.
        now_ms: The store's clock at this moment.
        lease: How long the run belongs to its owner after each write.

    Attributes:
        head: The head as this writer knows it.
    """

    def __init__(self, stores: RunStores, head: RunHead, now_ms: int, lease: timedelta) -> None:
        self._store = stores.journals
        self._runs = stores.runs
        self.head = head
        self._clock = now_ms, time.monotonic()
        self._lease_ms = lease // timedelta(milliseconds=1)
        self._lock = threading.Lock()
        self._read: dict[int, Record] = {}
        self._unsure: Append | None = None
        self._damage: JournalCorrupt | None = None

    @property
    def stream(self) -> str:
        """Its name."""
        return self.head.stream

    @property
    def version(self) -> int:
        """That of the last record."""
        return self.head.version

    def now_ms(self) -> int:
        """Return the store's time, as far as it is known here."""
        began, here = self._clock
        return began + int((time.monotonic() - here) * 1000)

    def write(
        self,
        drafts: Sequence[Draft],
        *,
        state: bytes | None = None,
        keep: bool = False,
        outgoing: Sequence[Any] = (),
        **head: Any,
    ) -> int:
        """Add records, in one commit with a snapshot, messages and what the head says.

        Args:
            drafts: At least one.
            state: The state after them, if a snapshot is to be made.
            keep: Whether that snapshot stays when newer ones come.
            outgoing: Messages as the store's bus takes them.
            head: Fields of :class:`RunHead` that change.

        Returns:
            The version of the last one.

        Raises:
            RunTaken: Somebody else wrote since, or took the run over; nothing was written.
            NotRecordable: A name is too long, or not every store keeps it as it is; nothing was written.
            StoreUnavailable: The store cannot be reached; whether it was written says :meth:`settled`.
            JournalCorrupt: The journal was found to be damaged before.
        """
        with self._lock:
            if self._damage is not None:
                # It stays in quarantine: what is written would say that it is well.
                raise self._damage
            write = self._sealed(drafts, state, keep, outgoing, head)
            if not self._append(write):
                raise taken(self._found(), self.stream)
            self.head = write.head
            return write.head.version

    def settled(self) -> bool:
        """Find out whether what was written last is there, of which the store could not say so; it is known then.

        Raises:
            RunTaken: Somebody else wrote since, or took the run over.
            StoreUnavailable: The store cannot be reached yet.
        """
        with self._lock:
            write = self._unsure
            if write is None:
                return False
            found = self._found()
            is_there = found is not None and found.digest == write.head.digest
            is_as_before = (found.digest if found is not None else b"") == self.head.digest
            if not is_there and not is_as_before:
                raise taken(found, self.stream)
            self._unsure = None
            if is_there:
                self.head = write.head
            return is_there

    def hold(self, until_ms: int) -> None:
        """Know that the lease was renewed."""
        with self._lock:
            self.head = replace(self.head, lease_until_ms=max(until_ms, self.head.lease_until_ms))

    def record(self, version: int) -> Record:
        """Read one record, checked against the one before it.

        Raises:
            JournalCorrupt: It is damaged or missing.
        """
        known = self._read  # Another thread may put others in its place.
        if version not in known:
            # Whoever wants one wants the next ones too: steps are asked for in their order.
            known = self._read = {each.version: each for each in self._checked(version - 1, _AHEAD)}
        if version not in known:
            raise self.quarantined(Damage(self.stream, version, "the record is missing"))
        return known[version]

    def index(self) -> list[IndexEntry]:
        """Read what is known of all records that are not forgotten; there is none without a name.

        Raises:
            JournalCorrupt: One is missing.
            RunTaken: Somebody else writes to the run.
        """
        entries = self._store.index(self.stream)
        if len(entries) != self.version - (entries[0].version - 1 if entries else self.version):
            self._check_is_own()
            if entries and entries[-1].version > self.version:
                what = f"it says that the journal ends at version {self.version}, not {entries[-1].version}"
                raise self.quarantined(Damage(self.stream, 0, what))
            wanted = entries[0].version if entries else 1
            for entry in entries:
                if entry.version != wanted:
                    break
                wanted += 1
            raise self.quarantined(Damage(self.stream, wanted, f"missing: version {wanted}"))
        return entries

    def tail(self, after: int, before: bytes | None) -> Iterator[Record]:
        """Yield all records after a version, each checked.

        Args:
            after: The version; 0 for all.
            before: Digest of the record of that version.

        Raises:
            JournalCorrupt: One is damaged or missing.
            RunTaken: Somebody else writes to the run.
        """
        known: bytes | None = genesis(self.stream) if not after else before
        version, ends = after, not self.version
        while not ends:
            page = self._store.read(self.stream, version, _PAGE)
            ends = not page or page[-1].version >= self.version
            for damage in damages(self.stream, page, known, version, self.head if ends else None):
                self._check_is_own()
                raise self.quarantined(damage)
            yield from page
            if page:
                version, known = page[-1].version, page[-1].digest

    def snapshot(self, at: int | None = None) -> SnapshotRecord | None:
        """Read the newest snapshot up to a version; a damaged one is passed over, with a warning."""
        found = self._store.latest_snapshot(self.stream, at)
        while found is not None and not fits(self._store, self.stream, found):
            _log.warning(
                "run %r: the snapshot of version %s is damaged; the state is made again from the events",
                self.stream,
                found.version,
            )
            found = self._store.latest_snapshot(self.stream, found.version - 1)
        return found

    def quarantined(self, damage: Damage) -> JournalCorrupt:
        """Put the run into quarantine, and return the error that says why."""
        error = self._damage = corrupt(damage)
        self._runs.mark(self.stream, RunStatus.QUARANTINED, str(damage), error.category.value)
        return error

    # -- inside ----------------------------------------------------------------------------------------

    def _check_is_own(self) -> None:
        """Tell records that somebody else adds meanwhile from damage."""
        found = self._found()
        if found is not None and found.version > self.version:
            raise taken(found, self.stream)

    def _found(self) -> RunHead | None:
        return head_at(self._runs, self.stream)

    def _checked(self, after: int, limit: int) -> list[Record]:
        first = max(0, after - 1)
        page = self._store.read(self.stream, first, limit)
        before = genesis(self.stream) if not first else None
        if first and page and page[0].version == after + 1:
            # The one before it is forgotten.
            base = self._store.latest_snapshot(self.stream, after)
            if base is not None and base.version == after and base.kept and is_whole(base):
                first, before = after, base.chain
        for damage in damages(self.stream, page, before, first):
            raise self.quarantined(damage)
        # The first one of a page has nothing before it to be checked against, unless it is the first of all.
        return page if before else page[1:]

    def _sealed(
        self,
        drafts: Sequence[Draft],
        state: bytes | None,
        keep: bool,
        outgoing: Sequence[Any],
        changes: dict[str, Any],
    ) -> Append:
        at, version = self.now_ms(), self.head.version
        before = self.head.digest or genesis(self.stream)
        records = []
        for draft in drafts:
            if fault := fault_of(draft.name, LONGEST_NAME):
                raise NotRecordable(f"the name {draft.name[:40]!r} in a journal {fault}: use another one")
            version += 1
            before = seal(before, version, draft.type, at, draft.name, draft.data)
            records.append(Record(version, draft.type, at, draft.name, draft.data, before))
        snapshot = None
        if state is not None:
            digest = seal_snapshot(before, version, at, state)
            snapshot = SnapshotRecord(version, at, state, before, digest, keep)
        changes.setdefault("lease_until_ms", at + self._lease_ms)
        changes |= {"version": version, "digest": before, "updated_at_ms": at}
        changes["created_at_ms"] = self.head.created_at_ms or at
        return Append(_changed(self.head, changes), self.head.version, records, snapshot, outgoing)

    def _append(self, write: Append) -> bool:
        """Add, and add once more if the store was lost and has not done it: it cannot be there twice."""
        try:
            return self._store.append(write)
        except StoreUnavailable:
            self._unsure = write
            # If the first one is still on its way, the second one finds that the journal has gone on.
            is_done = self._is_there(write) or self._store.append(write) or self._is_there(write)
            self._unsure = None
            return is_done
        except AgenticError:
            raise
        except BaseException:
            self._unsure = write  # Ctrl-C, or a task's timeout: nobody waited for the answer.
            raise

    def _is_there(self, write: Append) -> bool:
        found = self._found()
        return found is not None and found.digest == write.head.digest


def _changed(head: RunHead, changes: Mapping[str, Any]) -> RunHead:
    # What dataclasses.replace does, in two thirds of its time; every commit has one.
    return RunHead(*map(changes.get, _FIELDS, _values(head)))


def fits(store: JournalStore, stream: str, snapshot: SnapshotRecord) -> bool:
    """Whether a snapshot is as it was made, and is of the record of its version; that one may be forgotten."""
    if not is_whole(snapshot):
        return False
    sealed = store.read(stream, snapshot.version - 1, 1)
    return not sealed or sealed[0].version != snapshot.version or sealed[0].digest == snapshot.chain
