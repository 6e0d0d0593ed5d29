"""Ports of the domain, bound to Airflow: where references lead, where numbers go, and where large data is."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow_agentic.config.references import Reference
from airflow_agentic.errors import ClaimCheckDamaged, InvalidOption, StoreUnavailable, UnresolvedReference
from airflow_agentic.observability.metrics import Tags

_log = logging.getLogger(__name__)

_LOCAL = ("file", "local")
# Elsewhere an object is seen when it is whole, and to rename it would be to copy it.
_RENAMES = (*_LOCAL, "hdfs", "webhdfs", "sftp", "ssh", "smb", "ftp")
_MARKER = ".agentic"
_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~+:=@-]{1,255}")


class AirflowReferences:
    """Implements :class:`airflow_agentic.config.references.SecretResolver`.

    What is found is masked in the logs from then on.
    """

    def resolve(self, reference: Reference) -> str:
        """Return the value.

        Raises:
            UnresolvedReference: There is no such variable or connection, or the field is empty.
        """
        from airflow.sdk.log import mask_secret

        find = {"env": _environment, "var": _variable, "conn": _connection}[reference.scheme]
        value = find(reference)
        mask_secret(value)
        return value


class AirflowMetrics:
    """Implements :class:`airflow_agentic.observability.Metrics` on Airflow's own metrics (``[metrics]``)."""

    def count(self, name: str, value: int = 1, tags: Tags | None = None) -> None:
        """Add to a counter."""
        from airflow.sdk.observability import stats

        stats.incr(f"agentic.{name}", count=value, tags=dict(tags or {}))

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Set a value."""
        from airflow.sdk.observability import stats

        stats.gauge(f"agentic.{name}", value, tags=dict(tags or {}))

    def timing(self, name: str, seconds: float, tags: Tags | None = None) -> None:
        """Report how long something took, in seconds."""
        from airflow.sdk.observability import stats

        stats.timing(f"agentic.{name}", seconds * 1000, tags=dict(tags or {}))


class ObjectStorageBlobs:
    """Implements :class:`airflow_agentic.messaging.ports.Blobs` on Airflow's object storage.

    Nothing outside of its directory is ever read or removed, whatever a reference says.

    Args:
        path: A directory that all senders and receivers reach by this name: ``/mnt/shared/agentic``,
            ``s3://connection_id@bucket/agentic``, or any other URL that Airflow's ``ObjectStoragePath`` takes.

    Attributes:
        path: The same as a URL, without a slash at its end.

    Raises:
        InvalidOption: The path is neither absolute nor such a URL.
    """

    def __init__(self, path: str) -> None:
        self.path = _directory(path)
        self._marked = False

    def put(self, name: str, content: bytes) -> str:
        """Keep content under a name. If it is there already, in its full size, nothing is written.

        A writer that is killed leaves nothing under the name, or all of it.

        Returns:
            Its URL.

        Raises:
            StoreUnavailable: It cannot be kept now.
            ClaimCheckDamaged: The name leads out of the directory.
        """
        where = f"{self.path}/{name}"
        with self._told(f"cannot keep {len(content):,} bytes at {where}"):
            fs, target = self._found(where)
            if _size(fs, target) != len(content):
                self._mark(fs)
                _write(fs, target, content)
                if (kept := _size(fs, target)) != len(content):
                    raise OSError(f"{kept} bytes are there instead")
        return where

    def get(self, where: str) -> bytes:
        """Read what :meth:`put` kept.

        Raises:
            ClaimCheckDamaged: It is gone, or it is not in this directory.
            StoreUnavailable: It cannot be read now.
        """
        with self._told(f"cannot read {where}"):
            fs, target = self._found(where)
            fs.invalidate_cache(_parent(target))
            try:
                content: bytes = fs.cat_file(target)
            except FileNotFoundError:
                if not fs.exists(self._marker()):
                    raise OSError(
                        f"{self.path} is not what it was: its file {_MARKER} is gone too. Is it mounted?"
                    ) from None
            else:
                return content
        raise ClaimCheckDamaged(
            f"the data at {where} is gone: somebody removed it, or a rule of the storage did"
        )

    def delete(self, where: str) -> None:
        """Forget it. What is gone already, not in this directory or cannot be removed now is left alone."""
        try:
            with self._told(f"cannot remove {where}"), contextlib.suppress(FileNotFoundError):
                fs, target = self._found(where)
                fs.rm_file(target)
        except (ClaimCheckDamaged, StoreUnavailable) as error:
            _log.warning("left where it is: %s", error)

    def _found(self, where: str) -> tuple[Any, str]:
        """Return the filesystem, and the path in it."""
        inside = where.removeprefix(f"{self.path}/") if where.startswith(f"{self.path}/") else ""
        if not all(_SEGMENT.fullmatch(segment) for segment in inside.split("/")):
            raise ClaimCheckDamaged(
                f"the reference {where[:200]!r} is not one into {self.path}, where this process keeps large data, and "
                "is not followed. Give all senders and receivers the same path."
            )
        root = self._root()
        return root.fs, f"{root.path}/{inside}"

    def _root(self) -> Any:
        # It brings fsspec along, and looks through all providers (promise P13).
        from airflow.sdk import ObjectStoragePath

        return ObjectStoragePath(self.path)

    def _marker(self) -> str:
        return f"{self._root().path}/{_MARKER}"

    def _mark(self, fs: Any) -> None:
        """Leave a sign by which an empty directory is told from one that is not mounted."""
        if not self._marked and not fs.exists(self._marker()):
            _write(fs, self._marker(), b"Large messages and results of Airflow's agents are kept here.\n")
        self._marked = True

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn whatever a filesystem raises into our error. Only texts that are known to bear no secret are kept."""
        try:
            yield
        except (ClaimCheckDamaged, StoreUnavailable):
            raise
        except (OSError, ValueError) as error:
            raise StoreUnavailable(f"{what}: {error}") from error
        except Exception as error:
            raise StoreUnavailable(f"{what}: {type(error).__name__}; see the log for more") from error


@dataclass(frozen=True)
class XComStorage:
    """Options of ``[common.io]`` for large results of tasks.

    Attributes:
        path: Where they are kept; empty if nobody said.
        threshold: From how many bytes on; negative for never.
        compression: Any that fsspec knows, or ``None``.
    """

    path: str
    threshold: int
    compression: str | None


def xcom_storage() -> XComStorage:
    """Read where large results of tasks go."""
    from airflow.configuration import conf  # noqa: TID251  # see the package's docstring

    section = "common.io"
    return XComStorage(
        conf.get(section, "xcom_objectstorage_path", fallback="") or "",
        conf.getint(section, "xcom_objectstorage_threshold", fallback=-1),
        conf.get(section, "xcom_objectstorage_compression", fallback="") or None,
    )


def _directory(path: str) -> str:
    url = f"file://{path.strip()}" if path.strip().startswith("/") else path.strip()
    scheme, _, rest = url.partition("://")
    host, _, below = rest.partition("/")
    user, _, _ = host.rpartition("@")
    if ":" in user:
        raise InvalidOption(
            "the path for large data has a password in it: put that into an Airflow connection, and write "
            f"{scheme}://connection_id@…"
        )
    if not scheme or not (host or below.strip("/")) or (scheme in _LOCAL and host):
        raise InvalidOption(
            f"{path!r} is no path for large data. Write /absolute/directory, or file:///absolute/directory (three "
            "slashes), or s3://connection_id@bucket/directory"
        )
    if {".", ".."} & set(rest.split("/")) or {"?", "#", "*"} & set(rest):
        raise InvalidOption(f"the path for large data {path!r} must not have any of .. . ? # * in it")
    return url.rstrip("/")


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _size(fs: Any, path: str) -> int | None:
    fs.invalidate_cache(_parent(path))
    try:
        size: int = fs.info(path)["size"]
    except FileNotFoundError:
        return None
    return size


def _write(fs: Any, path: str, content: bytes) -> None:
    folder, _, name = path.rpartition("/")
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    if not set(protocols) & set(_RENAMES):
        fs.pipe_file(path, content)
        return
    fs.makedirs(folder, exist_ok=True)
    part = f"{folder}/.{name[:180]}.{uuid.uuid4().hex}.part"
    try:
        if set(protocols) & set(_LOCAL):
            _write_to_disk(part, path, content)
        else:
            fs.pipe_file(part, content)
            fs.mv(part, path)
    except BaseException:
        with contextlib.suppress(Exception):
            fs.rm_file(part)
        raise


def _write_to_disk(part: str, path: str, content: bytes) -> None:
    """Write so that it survives a power cut, as messages do."""
    with open(part, "xb") as stream:  # noqa: PTH123  # as in the rest of this module, paths are texts
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)  # noqa: PTH105
    for folder in (_parent(path), _parent(_parent(path))):
        descriptor = os.open(folder or "/", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _environment(reference: Reference) -> str:
    value = os.environ.get(reference.name)
    if value is None:
        raise UnresolvedReference(
            f"{reference.text}: the environment has no {reference.name}; set it for the workers"
        )
    return value


def _variable(reference: Reference) -> str:
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowRuntimeError

    try:
        value: Any = Variable.get(reference.name)
    except (KeyError, AirflowRuntimeError):
        raise UnresolvedReference(
            f"{reference.text}: there is no Airflow variable {reference.name!r}. Make it: "
            f"`airflow variables set {reference.name} …`"
        ) from None
    return str(value)


def _connection(reference: Reference) -> str:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(reference.name)
    except AirflowNotFoundException:
        raise UnresolvedReference(
            f"{reference.text}: there is no Airflow connection {reference.name!r}"
        ) from None
    value: Any
    if reference.key is None:
        value = getattr(connection, str(reference.field))
    else:
        value = connection.extra_dejson
        for part in reference.key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        what = reference.key or reference.field
        raise UnresolvedReference(f"{reference.text}: connection {reference.name!r} has no {what}")
    return str(value)
