"""Takes a run out of a store as an archive, and puts one in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from pydantic_core import from_json

from airflow_agentic.errors import ConfigurationError, JournalCorrupt, NotRecordable, RunError
from airflow_agentic.persistence.archive import CLAIM, Archive
from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.history import head_of
from airflow_agentic.persistence.integrity import genesis, seal, seal_snapshot
from airflow_agentic.persistence.journal import taken
from airflow_agentic.persistence.naming import check_key
from airflow_agentic.persistence.ports import (
    Append,
    Facilities,
    Record,
    RunHead,
    RunStatus,
    RunStores,
    SnapshotRecord,
)
from airflow_agentic.persistence.progress import RUN
from airflow_agentic.persistence.reading import all_records, all_snapshots, head_at
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.security.canonical import canonical

_AT_ONCE = 200
_LEASE = timedelta(seconds=60)


@dataclass(frozen=True)
class _Content:
    """What is put into a store, sealed for its key."""

    head: RunHead
    records: Sequence[Record]
    snapshots: Sequence[SnapshotRecord]


class Transfer:
    """Moves runs from store to store.

    Args:
        stores: The one that is worked on.
        facilities: What runs use beside the store's tables.
        claims: Reads and keeps large data.
    """

    def __init__(self, stores: RunStores, facilities: Facilities, claims: Claims) -> None:
        self._stores = stores
        self._facilities = facilities
        self._claims = claims

    def taken_out(self, key: str, *, include_data: bool = False) -> Archive:
        """Return a run as an archive; it stays as it is.

        A run that is damaged can be taken out, too: its archive says so, and cannot be put in.

        Args:
            key: The run.
            include_data: With results, events, states, answers and texts of errors, whatever is in them.

        Raises:
            RunNotFound: There is none of that key.
            NotRecordable: Large data cannot be read.
        """
        head = head_of(self._stores, key)
        read = [each for each in all_records(self._stores.journals, key) if each.version <= head.version]
        snapped = [*all_snapshots(self._stores.journals, key, head.version)][::-1]
        # Who works on it now, and until when, is of no use elsewhere.
        head = replace(head, owner="", lease_until_ms=0)
        whole = Archive(
            head,
            read,
            [hashlib.sha256(each.data).digest() for each in read],
            snapped,
            [hashlib.sha256(each.state).digest() for each in snapped],
        )
        if not include_data:
            return whole.without_data()
        contents = [each.data for each in read] + [each.state for each in snapped]
        return replace(whole, blobs=dict(self._blobs(contents)))

    def put_in(self, archive: Archive, *, to: str | None = None, actor: str, reason: str) -> RunHead:
        """Make a run of an archive. Nobody works on it: whoever opens it goes on.

        Under its own key it has the same chain as where it came from. Under another one it is sealed anew, and says where
        it came from.

        Args:
            archive: With data.
            to: Key of the run here; default its own.
            actor: Who.
            reason: Why.

        Returns:
            How it stands.

        Raises:
            RunError: The archive has no data.
            JournalCorrupt: Its journal is damaged.
            ConfigurationError: There is a run of that key, or it cannot be one.
            NotRecordable: Its large data cannot be kept here.
        """
        key = archive.head.stream if to is None else check_key(to)
        self._check(archive, key)
        content = self._sealed(archive, key, actor, reason)
        hold = self._stores.runs.hold(key, self._facilities.owner(), timedelta(0))
        until = hold.now_ms + _LEASE // timedelta(milliseconds=1)
        status = content.head.status
        last = replace(
            content.head,
            owner=self._facilities.owner(),
            lease_until_ms=0,
            status=RunStatus.FAILED.value if status == RunStatus.RUNNING else status,
        )
        written = 0
        for records, snapshot in _batches(content):
            version, digest = records[-1].version, records[-1].digest
            head = replace(last, version=version, digest=digest, lease_until_ms=until)
            write = Append(last if version == last.version else head, written, records, snapshot)
            if not self._stores.journals.append(write):
                raise taken(head_at(self._stores.runs, key), key)
            written = version
        return last

    # -- inside ----------------------------------------------------------------------------------------

    def _blobs(self, contents: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
        for data in contents:
            if data.startswith(CLAIM):
                content = canonical(self._claims.unpacked(data), "large data")
                digest = from_json(data)["claim"]["sha256"]
                if hashlib.sha256(content).hexdigest() != digest:
                    raise NotRecordable("large data of the run is not in the form that it was kept in")
                yield digest, content

    def _check(self, archive: Archive, key: str) -> None:
        stream = archive.head.stream
        if not archive.has_data:
            raise RunError(
                f"the archive of run {stream!r} was made without data, so it cannot be resumed: look at it "
                "(`airflow agentic runs show --file FILE`), or export the run again with --include-data"
            )
        for damage in archive.damages():
            raise JournalCorrupt(
                f"the run {stream!r} was damaged when its archive was made: {damage}. Nothing was imported",
                stream,
                damage.version,
                damage.what,
            )
        if head_at(self._stores.runs, key) is not None:
            raise ConfigurationError(
                f"there is a run {key!r} in this store already: give the imported one another key with --to KEY"
            )

    def _sealed(self, archive: Archive, key: str, actor: str, reason: str) -> _Content:
        """Return records and snapshots as they are kept under a key, here."""
        before = genesis(key) if archive.first == 1 else archive.before() or b""
        chain = {archive.first - 1: before}
        records = []
        for record in archive.records:
            data = self._kept(record.data, archive, key)
            before = seal(before, record.version, record.type, record.at_ms, record.name, data)
            records.append(replace(record, data=data, digest=before))
            chain[record.version] = before
        snapshots = []
        for snapshot in archive.snapshots:
            state = self._kept(snapshot.state, archive, key)
            # Of one from before what was forgotten nothing can be said but what it says itself.
            link = chain.get(snapshot.version, snapshot.chain)
            digest = seal_snapshot(link, snapshot.version, snapshot.at_ms, state)
            snapshots.append(replace(snapshot, state=state, chain=link, digest=digest))
        head = replace(archive.head, stream=key, digest=before)
        if before == archive.head.digest and records:
            return _Content(head, records, snapshots)
        told = {
            "what": "imported",
            "from": archive.head.stream,
            "version": archive.head.version,
            "digest": archive.head.digest.hex(),
            "actor": actor,
            "reason": reason,
        }
        data, version, at = canonical(told, "what is recorded"), head.version + 1, head.updated_at_ms
        digest = seal(before, version, RecordType.INTERVENED, at, RUN, data)
        records.append(Record(version, RecordType.INTERVENED.value, at, RUN, data, digest))
        return _Content(replace(head, version=version, digest=digest), records, snapshots)

    def _kept(self, data: bytes, archive: Archive, key: str) -> bytes:
        """Return the data of a record as it is kept here: what lies elsewhere may lie at another place."""
        if not data.startswith(CLAIM):
            return data
        digest = from_json(data)["claim"]["sha256"]
        content = archive.blobs.get(digest)
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            raise JournalCorrupt(
                f"the archive of run {archive.head.stream!r} is damaged: large data with the digest {digest} is missing or "
                "changed. Nothing was imported",
                archive.head.stream,
                0,
                f"large data {digest}",
            )
        return self._claims.packed(content, key, "large data")


def _batches(content: _Content) -> Iterator[tuple[list[Record], SnapshotRecord | None]]:
    """Yield what is written at once: some records, and the snapshot of the last one of them."""
    states = {each.version: each for each in content.snapshots}
    records = list(content.records)
    # Of a run whose first records were forgotten: what the others are sealed to, and moments before that were kept. Snapshots
    # of the records that they go with are left out: those can be made again.
    before = sorted((version for version in states if version < records[0].version), reverse=True)
    for version in before[: len(records)]:
        yield [records.pop(0)], states[version]
    batch: list[Record] = []
    for record in records:
        batch.append(record)
        if record.version in states or len(batch) == _AT_ONCE:
            yield batch, states.get(record.version)
            batch = []
    if batch:
        yield batch, None
