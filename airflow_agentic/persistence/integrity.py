"""Seals of journals: every record's digest covers all records before it, so that no byte can change unnoticed.

A SHA-256 chain, as in transparency logs (RFC 6962 names the idea). Whoever can write to the
database can still write a whole new chain: against that, digests must be kept elsewhere (see the audit trail).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from airflow_agentic.persistence.ports import Record, RunHead, SnapshotRecord

_JOURNAL, _SNAPSHOT = b"agentic journal 1\n", b"agentic snapshot 1\n"
# What the encoder of the standard library does with a text; a whole encoder takes six times as long for four values.
_text: Callable[[str], str] = json.encoder.encode_basestring_ascii


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong with a journal.

    Attributes:
        stream: Whose.
        version: Which record; 0 if it is about none.
        what: What is wrong with it, for people.
    """

    stream: str
    version: int
    what: str

    def __str__(self) -> str:
        where = f"version {self.version}" if self.version else "the head"
        return f"{self.stream!r}, {where}: {self.what}"


def is_storable(text: str) -> bool:
    """Whether every store gives a text back as it was, so that it can be sealed: no NUL, no half character."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def genesis(stream: str) -> bytes:
    """Return what the first record of a stream is sealed to: no other stream has it."""
    return hashlib.sha256(_JOURNAL + stream.encode()).digest()


def seal(before: bytes, version: int, type_: str, at_ms: int, name: str, data: bytes) -> bytes:
    """Return the digest of a record.

    Args:
        before: Digest of the record before it.
        version: As in the record.
        type_: As in the record.
        at_ms: As in the record.
        name: As in the record.
        data: As in the record.
    """
    return seal_of(before, version, type_, at_ms, name, hashlib.sha256(data).digest())


def seal_of(before: bytes, version: int, type_: str, at_ms: int, name: str, data_digest: bytes) -> bytes:
    """Return the digest of a record of whose data only the SHA-256 is at hand: what was left out can be checked, too."""
    about = f"[{version},{_text(type_)},{at_ms},{_text(name)}]\n"
    return hashlib.sha256(before + about.encode() + data_digest).digest()


def seal_snapshot(chain: bytes, version: int, at_ms: int, state: bytes) -> bytes:
    """Return the digest of a snapshot."""
    return seal_snapshot_of(chain, version, at_ms, hashlib.sha256(state).digest())


def seal_snapshot_of(chain: bytes, version: int, at_ms: int, state_digest: bytes) -> bytes:
    """Return the digest of a snapshot of whose state only the SHA-256 is at hand."""
    return hashlib.sha256(b"%b%b%d %d\n%b" % (_SNAPSHOT, chain, version, at_ms, state_digest)).digest()


def is_whole(snapshot: SnapshotRecord) -> bool:
    """Whether a snapshot is as it was made."""
    made = seal_snapshot(snapshot.chain, snapshot.version, snapshot.at_ms, snapshot.state)
    return made == snapshot.digest


def links(before: bytes | None, record: Record) -> bool:
    """Whether a record is as it was written after a digest; with none, nobody can say, and it counts as such."""
    if before is None:
        return True
    return record.digest == seal(before, record.version, record.type, record.at_ms, record.name, record.data)


def damages(
    stream: str, records: Iterable[Record], before: bytes | None, after: int, head: RunHead | None = None
) -> Iterator[Damage]:
    """Yield what is wrong with records that are read in the order of their versions.

    Args:
        stream: Whose.
        records: Those after version ``after``.
        before: Digest of the record of that version; ``None`` if nobody knows it.
        after: See above.
        head: Where the journal must end; ``None`` to leave that open.
    """
    version = after
    for record in records:
        if record.version != version + 1:
            yield from _gap(stream, version, record.version)
            before = None
        if not links(before, record):
            yield Damage(
                stream, record.version, f"the record ({_shown(record)}) or its seal is not as it was written"
            )
        version, before = record.version, record.digest
    if head is not None:
        yield from _end(stream, head, version, before)


def _end(stream: str, head: RunHead, version: int, last: bytes | None) -> Iterator[Damage]:
    if head.version > version:
        yield from _gap(stream, version, head.version + 1)
    elif head.version < version:
        yield Damage(stream, 0, f"it says that the journal ends at version {head.version}, not {version}")
    elif last is not None and head.digest != last:
        yield Damage(stream, 0, f"its digest is not that of the last record, version {version}")


def _gap(stream: str, after: int, until: int) -> Iterator[Damage]:
    if until <= after + 1:
        yield Damage(stream, until, "there are two records of the version, or their order was changed")
        return
    missing = f"version {after + 1}" if until == after + 2 else f"versions {after + 1} to {until - 1}"
    yield Damage(stream, after + 1, f"missing: {missing}")


def _shown(record: Record) -> str:
    # What was damaged may be no text any more.
    return f"{record.type} {record.name}".strip()[:80].encode(errors="backslashreplace").decode()
