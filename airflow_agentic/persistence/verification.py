"""Reads whole journals, and says all that is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_agentic.persistence.integrity import Damage, damages, genesis, is_whole
from airflow_agentic.persistence.journal import fits
from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.persistence.reading import all_snapshots, head_at
from airflow_agentic.persistence.strategies import MODES, strategy_of

_PAGE = 500


def verified(stores: RunStores, stream: str) -> list[Damage]:
    """Read a whole journal and its snapshots, and return all that is wrong with it. Others may write to it meanwhile."""
    found = [
        Damage(stream, snapshot.version, "the snapshot is not as it was made")
        for snapshot in all_snapshots(stores.journals, stream)
        if not fits(stores.journals, stream, snapshot)
    ]
    return sorted([*found, *_walk(stores, stream)], key=_version)


def _walk(stores: RunStores, stream: str) -> Iterator[Damage]:
    after, before = _base(stores, stream)
    while True:
        page, head = stores.journals.read(stream, after, _PAGE), None
        if not page:
            # Read after its records: it only goes on.
            head = head_at(stores.runs, stream)
            if head is not None and head.version > after:
                page = stores.journals.read(stream, after, _PAGE)
                head = None if page else head
        yield from damages(stream, page, before, after, head)
        if not page:
            return
        after, before = page[-1].version, page[-1].digest


def _base(stores: RunStores, stream: str) -> tuple[int, bytes | None]:
    """Return where a journal begins: after nothing, or after a snapshot that was made before its records were forgotten."""
    first, head = stores.journals.read(stream, 0, 1), head_at(stores.runs, stream)
    if head is None or head.mode not in MODES or not strategy_of(head.mode).forgets:
        return 0, genesis(stream)
    begins = first[0].version - 1 if first else head.version
    snapshot = stores.journals.latest_snapshot(stream, begins)
    if snapshot is None or not snapshot.kept or not is_whole(snapshot):
        return 0, genesis(stream)
    return snapshot.version, snapshot.chain


def _version(damage: Damage) -> int:
    return damage.version
