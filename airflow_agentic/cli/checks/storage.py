"""Whether the store is where it should be, and can be used."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from airflow_agentic.cli.access import exists, require_existing
from airflow_agentic.cli.checks.finding import Finding, Result
from airflow_agentic.config.masking import mask_text
from airflow_agentic.errors import AgenticError
from airflow_agentic.runtime import StoreTarget
from airflow_agentic.stores import Store

_MOUNTS = Path("/proc/self/mounts")
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gfs2"}
)
_NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.blobfuse")
_PASSING = {
    "overlay": "ends with the container",
    "tmpfs": "is in memory and ends with the machine",
    "ramfs": "is in memory and ends with the machine",
}

_ENOUGH_BYTES = 1 << 30
_LEAST_BYTES = 64 << 20


def location(target: StoreTarget) -> Finding:
    """Say which store it is, and who said so."""
    text = f"{target.shown} (from {target.origin})"
    if not exists(target):
        return Finding(
            "store",
            Result.WARNING,
            f"{text} does not exist yet",
            "it is made by its first use, or now by `airflow agentic db upgrade`; if you expected messages in "
            "it, name the right store with --conn-id or --store-url",
        )
    return Finding("store", Result.OK, text)


def filesystem(path: Path) -> Finding:
    """Look at what the file is kept on: locks and durable commits need a local disk."""
    mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace") if _MOUNTS.is_file() else ""
    return judged(path, kind_of(path.absolute(), mounts))


def judged(path: Path, kind: str | None) -> Finding:
    """Judge a kind of file system for the file ``path``."""
    if kind is None:
        return Finding("file system", Result.OK, f"kind unknown; {path} must be on a local disk")
    if kind in _NETWORK or kind.startswith(_NETWORK_FUSE):
        return Finding(
            "file system",
            Result.WARNING,
            f"{path} is on a network file system ({kind}): locks and durable commits are not reliable there",
            "keep the store on a local disk of the machine that runs the tasks",
        )
    if kind in _PASSING:
        return Finding(
            "file system",
            Result.WARNING,
            f"{path} is on {kind}: it {_PASSING[kind]}, with all messages in it",
            "keep the store on a local disk, or on a volume that outlives the container",
        )
    return Finding("file system", Result.OK, f"local ({kind})")


def kind_of(path: Path, mounts: str) -> str | None:
    """Return the kind of file system that ``path`` is on, from the text of ``/proc/self/mounts``."""
    best, kind = -1, None
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:  # device, mount point, kind
            continue
        point = Path(_decoded(parts[1]))
        # Of two mounts at one point the later one is seen.
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), parts[2]
    return kind


def disk(path: Path) -> Finding:
    """Look at the room for messages."""
    free = shutil.disk_usage(_nearest_existing(path)).free
    text = f"{free / 2**30:.1f} GiB free" if free >= _ENOUGH_BYTES else f"{free / 2**20:.0f} MiB free"
    if free >= _ENOUGH_BYTES:
        return Finding("disk", Result.OK, text)
    result = Result.WARNING if free >= _LEAST_BYTES else Result.FAIL
    return Finding("disk", result, text, f"make room beside {path}: when it is full, nothing can be sent")


def directory(path: Path) -> Finding:
    """Look at whether a store that does not exist yet can be made."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return Finding(
            "writable",
            Result.FAIL,
            f"the directory {folder} does not exist",
            f"create it: mkdir -p {folder}; or name another store",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(
            "writable", Result.FAIL, f"this user cannot write to {folder}", f"give it access to {folder}"
        )
    return Finding("writable", Result.OK, f"{folder} can be written to")


def schema_of(target: StoreTarget) -> Finding:
    """Open the store, which compares its schema with this version's."""
    require_existing(target)
    with target.open() as store:
        return _probed(store)


def claim_checks(target: StoreTarget) -> Finding:
    """Write, read and remove something where large data is kept."""
    path = mask_text(target.settings.claim_check_path)
    if not path:
        return Finding("claim checks", Result.OK, "none: all data travels in messages")
    way_out = f"let this user write to {path}, or correct [agentic] claim_check_path"
    content = uuid.uuid4().bytes
    try:
        blobs = target.blobs
        assert blobs is not None
        where = blobs.put(f"doctor/{content.hex()}", content)
        same = blobs.get(where) == content
        blobs.delete(where)
    except AgenticError as error:
        return Finding("claim checks", Result.FAIL, str(error), way_out)
    if not same:
        return Finding(
            "claim checks", Result.FAIL, f"{path} gives back something else than was written", way_out
        )
    limit = target.settings.claim_check_bytes
    text = (
        f"{path} can be read and written; for messages above {limit:,} bytes"
        if limit
        else f"{path}; claim_check_bytes is 0: never used"
    )
    return Finding("claim checks", Result.OK, text)


def _probed(store: Store) -> Finding:
    return Finding("schema and write access", Result.OK, f"schema {store.probe()}; can be read and written")


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def _decoded(point: str) -> str:
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(octal, character)
    return point
