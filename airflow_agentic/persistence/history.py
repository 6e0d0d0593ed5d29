"""What a run was like: its events, its state at any of them, what is wrong with it. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_agentic.errors import JournalCorrupt, NotRecordable, RunNotFound
from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.integrity import Damage, damages, genesis, is_whole
from airflow_agentic.persistence.journal import corrupt
from airflow_agentic.persistence.ports import (
    JournalStore,
    Record,
    RunHead,
    RunStores,
    SnapshotRecord,
)
from airflow_agentic.persistence.reading import all_records, head_at
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.persistence.restoring import CHANGES_STATE, Base, base_at, folded, newest
from airflow_agentic.persistence.state import StateSchema

When = int | str | datetime
"""A version, the name of a checkpoint, or a time."""


@dataclass(frozen=True)
class Event:
    """One record, for people and programs that look.

    Attributes:
        version: From 1.
        type: What happened; of a newer version it may be one that is not known here.
        at: When.
        name: Of the step, checkpoint or question.
        data: What it says.
        digest: Its seal, in hexadecimal digits.
    """

    version: int
    type: str
    at: datetime
    name: str
    data: Any
    digest: str


@dataclass(frozen=True)
class Moment:
    """A run at one of its versions.

    Attributes:
        key: The run.
        version: Which.
        at: When it came to that.
        state: What its events came to.
        steps: Names of the steps that were finished, in order.
    """

    key: str
    version: int
    at: datetime
    state: Any
    steps: tuple[str, ...]


def head_of(stores: RunStores, key: str) -> RunHead:
    """Return how a run stands.

    Raises:
        RunNotFound: There is none of that key.
    """
    found = head_at(stores.runs, key)
    if found is None:
        raise RunNotFound(
            f"there is no run {key!r} in this store: `airflow agentic runs list` shows which there are"
        )
    return found


def events(
    stores: RunStores, key: str, claims: Claims, after: int = 0, limit: int | None = None
) -> Iterator[Event]:
    """Yield what happened in a run, from the version after ``after`` on. Seals are not checked; see :func:`verified`.

    Raises:
        RunNotFound: There is none of that key.
    """
    head_of(stores, key)
    for record in all_records(stores.journals, key, after, limit):
        try:
            data = claims.unpacked(record.data)
        except (NotRecordable, ValueError) as error:
            data = {"unreadable": str(error)}
        yield Event(record.version, str(record.type), record.at, record.name, data, record.digest.hex())


def version_at(stores: RunStores, key: str, when: When, claims: Claims) -> int:
    """Return the version of a run at a moment.

    Raises:
        RunNotFound: There is no such run, or it has no such version or checkpoint, or it began later.
    """
    head = head_of(stores, key)
    if isinstance(when, bool) or not isinstance(when, int | str | datetime):
        raise RunNotFound(
            f"{when!r} is no moment of a run: give a version, the name of a checkpoint or a time"
        )
    if isinstance(when, int):
        if not 1 <= when <= head.version:
            raise RunNotFound(f"run {key!r} has versions 1 to {head.version}, and not {when}")
        return when
    if isinstance(when, str):
        return _version_of_mark(stores, head, when, claims)
    return _version_of_time(stores, key, when)


def _version_of_mark(stores: RunStores, head: RunHead, name: str, claims: Claims) -> int:
    marks = [
        each.version
        for each in stores.journals.index(head.stream)
        if each.type == RecordType.CHECKPOINT and each.name == name
    ]
    version = marks[-1] if marks else _base(stores, head, claims).marks.get(name, 0)
    if not version:
        raise RunNotFound(
            f"run {head.stream!r} has no checkpoint {name!r}: `airflow agentic runs events {head.stream}` shows which"
        )
    return version


def _version_of_time(stores: RunStores, key: str, when: datetime) -> int:
    if when.tzinfo is None:
        raise RunNotFound(f"the time {when} has no zone: say which, for example datetime.now(UTC)")
    limit_ms, found = when.timestamp() * 1000, 0
    for record in all_records(stores.journals, key, 0, None):
        if record.at_ms > limit_ms:
            break
        found = record.version
    if not found:
        raise RunNotFound(f"run {key!r} began after {when}, or what it was then is forgotten")
    return found


def moment_at(stores: RunStores, key: str, when: When, claims: Claims, schema: StateSchema) -> Moment:
    """Return a run as it was.

    Raises:
        RunNotFound: As for :func:`version_at`; or its records are forgotten up to a later version.
        JournalCorrupt: What must be read for that is damaged.
    """
    version = version_at(stores, key, when, claims)
    base = _base(stores, head_of(stores, key), claims)
    value, at = _state_at(stores.journals, key, version, base, claims, schema)
    known = base.steps if base.version <= version else ()
    steps = [
        each.name
        for each in stores.journals.index(key)
        if each.version <= version and each.type in (RecordType.DONE, RecordType.SKIPPED)
    ]
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return Moment(key, version, moment, value, tuple(dict.fromkeys([*known, *steps])))


def _base(stores: RunStores, head: RunHead, claims: Claims) -> Base:
    """Return what stands for the records that are forgotten; the beginning if none are, or nobody knows."""
    first = stores.journals.read(head.stream, 0, 1)
    begins = first[0].version - 1 if first else head.version
    return base_at(stores.journals, head.stream, begins, claims) or Base(chain=genesis(head.stream))


def _state_at(
    store: JournalStore, key: str, version: int, base: Base, claims: Claims, schema: StateSchema
) -> tuple[Any, int]:
    def find(at: int | None) -> SnapshotRecord | None:
        snapshot = store.latest_snapshot(key, at)
        while snapshot is not None and not is_whole(snapshot):
            snapshot = store.latest_snapshot(key, snapshot.version - 1)
        return snapshot

    begin, fault = newest(key, find, claims, schema, version)
    if begin.version < base.version and begin.version < version:
        if fault is not None and version >= base.version:
            raise fault
        raise RunNotFound(
            f"run {key!r} at version {version} is forgotten: it can be had from version {base.version} on"
        )
    value, at = begin.value, begin.at_ms
    records = list(all_records(store, key, begin.version, version - begin.version))
    for damage in damages(key, records, begin.chain, begin.version):
        raise corrupt(damage)
    if begin.version + len(records) < version:
        raise corrupt(Damage(key, begin.version + len(records) + 1, "the record is missing"))
    for record in records:
        at = record.at_ms
        if record.type in CHANGES_STATE:
            value = folded(schema, value, record.type, claims.unpacked(record.data))
    return value, at


def copied(stores: RunStores, key: str, version: int) -> list[Record]:
    """Return the records of a run up to a version, checked.

    Raises:
        RunNotFound: They are forgotten.
        JournalCorrupt: One is damaged or missing.
    """
    first = stores.journals.read(key, 0, 1)
    begins = first[0].version - 1 if first else head_of(stores, key).version
    base = stores.journals.latest_snapshot(key, begins) if begins else None
    if base is not None and base.version == begins and base.kept:
        raise RunNotFound(
            f"the first records of run {key!r} are forgotten, and it cannot be copied: begin with its state instead"
        )
    records = [each for each in all_records(stores.journals, key, 0, version) if each.version <= version]
    for damage in damages(key, records, genesis(key), 0):
        raise corrupt(damage)
    if len(records) < version:
        raise JournalCorrupt(
            f"run {key!r} has no record {len(records) + 1}", key, len(records) + 1, "missing"
        )
    return records
