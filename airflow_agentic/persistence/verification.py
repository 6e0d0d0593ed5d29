"""Reads whole journals, and says all that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_agentic.persistence.integrity import Damage, damages, genesis, is_whole
from airflow_agentic.persistence.journal import fits, only
from airflow_agentic.persistence.ports import JournalStore, RunHead, RunStores, SnapshotRecord
from airflow_agentic.persistence.strategies import MODES, strategy_of

_PAGE = 500


def verified(stores: RunStores, stream: str) -> list[Damage]:
    """Read a whole journal and its snapshots, and return all that is wrong with it. Others may write to it meanwhile."""
    newest = stores.journals.latest_snapshot(stream)
    found = [
        Damage(stream, snapshot.version, "the snapshot is not as it was made")
        for snapshot in _snapshots(stores.journals, stream, newest)
        if not fits(stores.journals, stream, snapshot)
    ]
    return sorted([*found, *_walk(stores, stream)], key=_version)


def _walk(stores: RunStores, stream: str) -> Iterator[Damage]:
    after, before = _base(stores, stream)
    while True:
        page, head = stores.journals.read(stream, after, _PAGE), None
        if not page:
            # Read after its records: it only goes on.
            head = _head(stores, stream)
            if head is not None and head.version > after:
                page = stores.journals.read(stream, after, _PAGE)
                head = None if page else head
        yield from damages(stream, page, before, after, head)
        if not page:
            return
        after, before = page[-1].version, page[-1].digest


def _base(stores: RunStores, stream: str) -> tuple[int, bytes | None]:
    """Return where a journal begins: after nothing, or after a snapshot that was made before its records were forgotten."""
    first, head = stores.journals.read(stream, 0, 1), _head(stores, stream)
    if head is None or head.mode not in MODES or not strategy_of(head.mode).forgets:
        return 0, genesis(stream)
    begins = first[0].version - 1 if first else head.version
    snapshot = stores.journals.latest_snapshot(stream, begins)
    if snapshot is None or not snapshot.kept or not is_whole(snapshot):
        return 0, genesis(stream)
    return snapshot.version, snapshot.chain


def _head(stores: RunStores, stream: str) -> RunHead | None:
    return next(iter(stores.runs.heads(only(stream))), None)


def _snapshots(store: JournalStore, stream: str, newest: SnapshotRecord | None) -> Iterator[SnapshotRecord]:
    while newest is not None:
        yield newest
        newest = store.latest_snapshot(stream, newest.version - 1)


def _version(damage: Damage) -> int:
    return damage.version
