"""A run as one file, for a bug report or another store.

A zip with a manifest, the events as JSON lines, the snapshots, and large data. It is made of the run alone, so the same run
makes the same bytes; nothing in it is compressed, for that reason. Data (results, events, states, answers, texts of
errors) is left out unless it is asked for; its digest and size take its place, so that the chain can be checked all the
same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import IO, Any, TypeVar

from pydantic_core import from_json

from airflow_agentic.errors import ConfigurationError, JournalCorrupt, RunError
from airflow_agentic.persistence.integrity import Damage, genesis, seal_of, seal_snapshot_of
from airflow_agentic.persistence.naming import check_key
from airflow_agentic.persistence.ports import Record, RunHead, RunStatus, SnapshotRecord
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.security.canonical import canonical

FORMAT = 1
CLAIM = b'{"claim":'
"""What the data of a record begins with that lies elsewhere."""

_T = TypeVar("_T")
_MANIFEST, _EVENTS, _SNAPSHOTS, _BLOBS = "manifest.json", "events.jsonl", "snapshots.jsonl", "blobs/"
_MOST_BYTES = 1 << 30
_WHEN = (1980, 1, 1, 0, 0, 0)
_TYPES = {"str": str, "int": int, "bytes": bytes, "bool": bool}
_KEPT: Mapping[str, tuple[str, ...]] = {
    RecordType.STARTED: ("format", "agent", "mode", "schema", "owner"),
    RecordType.RESUMED: ("format", "owner"),
    RecordType.CONTINUED: ("format", "owner"),
    RecordType.FAILED: ("category",),
    RecordType.INTENDED: ("code", "args", "on_ambiguous"),
    RecordType.DONE: ("code", "args", "seconds", "sent"),
    RecordType.BROKE: ("category",),
    RecordType.AMBIGUOUS: ("decision", "intended", "by", "reason"),
    RecordType.SKIPPED: ("reason", "actor"),
    RecordType.CHANGED: ("what", "decision"),
    RecordType.EMITTED: ("schema",),
    RecordType.CHECKPOINT: (),
    RecordType.STATE_SET: ("schema", "actor", "reason"),
    RecordType.INTERVENED: ("what", "actor", "reason", "from", "version", "digest"),
    RecordType.ASKED: ("deadline",),
    RecordType.ANSWERED: ("actor",),
}


@dataclass(frozen=True)
class Archive:
    """A run as a file has it.

    Attributes:
        head: As it was; without data its texts are cut.
        records: Those it had; without data they hold what was kept of it, and ``left_out``.
        data_digests: SHA-256 of the data of each record, as it was.
        snapshots: Those it had; without data their state is ``left_out``.
        state_digests: SHA-256 of the state of each snapshot, as it was.
        blobs: Large data by its SHA-256.
        has_data: Whether it can be imported.
        left_out: What is not in it: for each type of record how many have something left out, and how much.
    """

    head: RunHead
    records: Sequence[Record]
    data_digests: Sequence[bytes]
    snapshots: Sequence[SnapshotRecord] = ()
    state_digests: Sequence[bytes] = ()
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    has_data: bool = True
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """Version of the first record that is there; those before it were forgotten."""
        return self.records[0].version if self.records else self.head.version + 1

    def before(self) -> bytes | None:
        """Return what the first record is sealed to; ``None`` if nobody knows."""
        if self.first == 1:
            return genesis(self.head.stream)
        return next((each.chain for each in self.snapshots if each.version == self.first - 1), None)

    def damages(self) -> Iterator[Damage]:
        """Yield what is wrong with the journal; it was so when the archive was made."""
        stream, version, before = self.head.stream, self.first - 1, self.before()
        if before is None:
            yield Damage(
                stream, 1, f"missing: versions up to {version}, and the snapshot of the last of them"
            )
        for record, digest in zip(self.records, self.data_digests, strict=True):
            if record.version != version + 1:
                yield Damage(stream, version + 1, f"missing: versions up to {record.version - 1}")
                before = None
            made = seal_of(before or b"", record.version, record.type, record.at_ms, record.name, digest)
            if before is not None and made != record.digest:
                what = f"the record ({record.type} {record.name}) or its seal is not as it was written"
                yield Damage(stream, record.version, what)
            version, before = record.version, record.digest
        if (version, before) != (self.head.version, self.head.digest):
            yield Damage(stream, 0, f"the journal does not end at version {self.head.version} as it says")
        for snapshot, digest in zip(self.snapshots, self.state_digests, strict=True):
            if snapshot.digest != seal_snapshot_of(snapshot.chain, snapshot.version, snapshot.at_ms, digest):
                yield Damage(stream, snapshot.version, "the snapshot is not as it was made")

    def without_data(self) -> Archive:
        """Return the same without what the work was about."""
        left_out: dict[str, dict[str, int]] = {}
        head = replace(self.head, waiting=_first_word(self.head.waiting), error=_first_word(self.head.error))
        return replace(
            self,
            head=head,
            records=[
                _bare(each, digest, left_out)
                for each, digest in zip(self.records, self.data_digests, strict=True)
            ],
            snapshots=[
                replace(each, state=_told(each.state, digest, {}, "snapshot", left_out))
                for each, digest in zip(self.snapshots, self.state_digests, strict=True)
            ],
            blobs={},
            has_data=False,
            left_out=left_out,
        )


def write_archive(archive: Archive, file: IO[bytes]) -> dict[str, Any]:
    """Write an archive to a file that is open for it; return its manifest."""
    parts = {
        _EVENTS: _lines(map(_event_line, archive.records, archive.data_digests)),
        _SNAPSHOTS: _lines(map(_snapshot_line, archive.snapshots, archive.state_digests)),
        **{f"{_BLOBS}{digest}": content for digest, content in sorted(archive.blobs.items())},
    }
    manifest = {
        "format": FORMAT,
        "what": "a durable run of airflow-provider-agentic",
        "run": {**asdict(archive.head), "digest": archive.head.digest.hex()},
        "records": len(archive.records),
        "first": archive.first,
        "snapshots": len(archive.snapshots),
        "data": "included" if archive.has_data else "left out",
        "left_out": {name: dict(archive.left_out[name]) for name in sorted(archive.left_out)},
        "names_stay": ["run", "agent", "correlation", "task", "owner", "steps", "checkpoints", "questions"],
        "files": {name: {"sha256": _sha256(part), "size": len(part)} for name, part in parts.items()},
    }
    sealed = {**manifest, "seal": _sha256(canonical(manifest, "manifest"))}
    text = json.dumps(sealed, indent=2, sort_keys=True, ensure_ascii=True).encode() + b"\n"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as made:
        for name, part in {_MANIFEST: text, **parts}.items():
            entry = zipfile.ZipInfo(name, _WHEN)
            entry.external_attr, entry.create_system = 0o600 << 16, 3
            made.writestr(entry, part)
    return sealed


def read_archive(file: IO[bytes]) -> Archive:
    """Read an archive, and check that it is as it was made.

    Whether the journal in it is whole is another question: see :meth:`Archive.damages`.

    Raises:
        JournalCorrupt: The file is damaged, or is no archive.
        RunError: It was made by a newer version.
    """
    try:
        with zipfile.ZipFile(file) as made:
            parts = _parts(made)
            manifest = _manifest(made.read(_MANIFEST))
        _check(manifest, parts)
        return _archive(manifest, parts)
    except (
        ConfigurationError, zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError,
        NotImplementedError, RuntimeError, OverflowError,
    ) as error:  # fmt: skip
        raise _damaged(f"it cannot be read ({type(error).__name__}: {error})") from error


# -- writing -------------------------------------------------------------------------------------------------


def _event_line(record: Record, digest: bytes) -> dict[str, Any]:
    return {
        "version": record.version,
        "type": str(record.type),
        "at_ms": record.at_ms,
        "name": record.name,
        "seal": record.digest.hex(),
        **_content(record.data, digest),
    }


def _snapshot_line(snapshot: SnapshotRecord, digest: bytes) -> dict[str, Any]:
    return {
        "version": snapshot.version,
        "at_ms": snapshot.at_ms,
        "kept": snapshot.kept,
        "chain": snapshot.chain.hex(),
        "seal": snapshot.digest.hex(),
        **_content(snapshot.state, digest),
    }


def _content(data: bytes, digest: bytes) -> dict[str, str]:
    # Of what is whole everybody can make the digest.
    was = {} if hashlib.sha256(data).digest() == digest else {"sha256": digest.hex()}
    try:
        return {"data": data.decode(), **was}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode(), **was}


def _lines(entries: Iterator[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(each, sort_keys=True, ensure_ascii=True).encode() + b"\n" for each in entries)


def _bare(record: Record, digest: bytes, left_out: dict[str, dict[str, int]]) -> Record:
    try:
        said = from_json(record.data)
    except ValueError:
        said = None
    known = _KEPT.get(record.type, ())
    kept = {name: said[name] for name in known if name in said} if isinstance(said, dict) else {}
    if kept == said:
        # Nothing of it is left out.
        return record
    return replace(record, data=_told(record.data, digest, kept, str(record.type), left_out))


def _told(
    data: bytes, digest: bytes, kept: Mapping[str, Any], what: str, left_out: dict[str, dict[str, int]]
) -> bytes:
    counted = left_out.setdefault(what, {"records": 0, "bytes": 0})
    counted["records"] += 1
    counted["bytes"] += len(data)
    return canonical({**kept, "left_out": {"sha256": digest.hex(), "size": len(data)}}, what)


def _first_word(text: str) -> str:
    """Return what a text of an error or a wait begins with: ``ValueError``, ``a person``."""
    head, colon, _ = text.partition(":")
    return f"{head}: (left out)" if colon else ("(left out)" if text else "")


# -- reading -------------------------------------------------------------------------------------------------


def _parts(made: zipfile.ZipFile) -> dict[str, bytes]:
    names = [entry.filename for entry in made.infolist()]
    if len(names) != len(set(names)):
        raise _damaged("two of its parts have one name")
    if sum(entry.file_size for entry in made.infolist()) > _MOST_BYTES:
        raise _damaged(f"it has more than {_MOST_BYTES:,} bytes")
    return {name: made.read(name) for name in names if name != _MANIFEST}


def _manifest(text: bytes) -> dict[str, Any]:
    manifest: dict[str, Any] = from_json(text)
    seal = manifest.pop("seal")
    if manifest["format"] > FORMAT:
        raise RunError(
            f"the archive has format {manifest['format']}, and this version of airflow-provider-agentic knows up to "
            f"{FORMAT}: upgrade it here"
        )
    if seal != _sha256(canonical(manifest, "manifest")):
        raise _damaged("its manifest is not as it was made")
    return manifest


def _check(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
    stream = manifest["run"]["stream"]
    if extra := sorted(set(parts) ^ set(manifest["files"])):
        raise _damaged(f"{extra[0]} is missing, or should not be there", stream)
    for name, said in manifest["files"].items():
        if _sha256(parts[name]) != said["sha256"]:
            raise _damaged(f"{name} is not as it was made", stream)


def _archive(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> Archive:
    known = {each.name for each in fields(RunHead)}
    said = {name: value for name, value in manifest["run"].items() if name in known}
    events = [from_json(line) for line in parts[_EVENTS].splitlines()]
    snapshots = [from_json(line) for line in parts[_SNAPSHOTS].splitlines()]
    has_data = manifest["data"] == "included"
    contents = [_read_content(each, is_whole=has_data) for each in events]
    states = [_read_content(each, is_whole=has_data) for each in snapshots]
    head = _made(RunHead, {**said, "digest": bytes.fromhex(said["digest"])})
    check_key(head.stream)
    RunStatus(head.status)
    return Archive(
        head,
        [_record(each, data) for each, (data, _) in zip(events, contents, strict=True)],
        [digest for _, digest in contents],
        [_snapshot(each, state) for each, (state, _) in zip(snapshots, states, strict=True)],
        [digest for _, digest in states],
        {name.removeprefix(_BLOBS): part for name, part in parts.items() if name.startswith(_BLOBS)},
        has_data,
        manifest["left_out"],
    )


def _record(line: Mapping[str, Any], data: bytes) -> Record:
    said = {name: line[name] for name in ("version", "type", "at_ms", "name")}
    return _made(Record, {**said, "data": data, "digest": bytes.fromhex(line["seal"])})


def _snapshot(line: Mapping[str, Any], state: bytes) -> SnapshotRecord:
    said = {name: line[name] for name in ("version", "at_ms", "kept")}
    seals = {"chain": bytes.fromhex(line["chain"]), "digest": bytes.fromhex(line["seal"])}
    return _made(SnapshotRecord, {**said, **seals, "state": state})


def _made(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Return a record of a kind; its values must be of the types that it says."""
    made = kind(**values)
    for each in fields(made):  # type: ignore[arg-type]  # all are dataclasses
        value = getattr(made, each.name)
        if type(value) is not _TYPES[str(each.type)]:
            raise ValueError(f"{each.name} is {value!r}")
    return made


def _read_content(line: Mapping[str, Any], *, is_whole: bool) -> tuple[bytes, bytes]:
    """Return data, and the SHA-256 of what it was."""
    data = line["data"].encode() if "data" in line else base64.b64decode(line["data_base64"])
    if not is_whole and "sha256" in line:
        return data, bytes.fromhex(line["sha256"])
    return data, hashlib.sha256(data).digest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _damaged(what: str, stream: str = "") -> JournalCorrupt:
    whose = f" of run {stream!r}" if stream else ""
    return JournalCorrupt(
        f"the archive{whose} is damaged: {what}. Nothing was imported; get it anew", stream, 0, what
    )
