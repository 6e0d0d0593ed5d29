"""Claim checks: a large result lies in object storage; the XCom says where, how large it is, and its digest."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from airflow_agentic.errors import ClaimCheckDamaged, InvalidOption, StoreUnavailable
from airflow_agentic.xcom import MARK

if TYPE_CHECKING:
    from airflow_agentic.messaging.ports import Blobs

CLAIM_CHECK = "claim-check"
_UNSAFE = re.compile(r"[^A-Za-z0-9._~+:-]")


@dataclass(frozen=True)
class Origin:
    """Whose XCom it is.

    Attributes:
        dag_id: The DAG.
        run_id: The DAG run.
        task_id: The task.
        map_index: Index of a mapped task, -1 otherwise.
        key: The XCom's key.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    key: str

    def __str__(self) -> str:
        task = self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"
        return f"XCom {self.key!r} of task {task!r} in DAG {self.dag_id!r}, run {self.run_id!r}"


@dataclass(frozen=True)
class ClaimCheck:
    """What the XCom of a large result holds.

    Attributes:
        path: Where the result is.
        sha256: Digest of the result as JSON, in hexadecimal digits.
        size: Bytes of the result as JSON.
        origin: Whose result it is.
    """

    path: str
    sha256: str
    size: int
    origin: Origin

    @classmethod
    def keep(cls, content: bytes, origin: Origin, blobs: Blobs, compression: str | None = None) -> Self:
        """Put a result into object storage.

        Args:
            content: The result as JSON.
            origin: Whose it is.
            blobs: Where it goes.
            compression: Any that fsspec knows, such as ``gzip``.

        Raises:
            InvalidOption: Nobody knows that compression here.
            StoreUnavailable: It cannot be kept now.
        """
        digest = hashlib.sha256(content).hexdigest()
        task = f"{origin.task_id}+{origin.map_index}" if origin.map_index >= 0 else origin.task_id
        folders = "/".join(_name(part) for part in (origin.dag_id, origin.run_id, task))
        # Named by key and content: a retry that comes to the same result writes the same file.
        named = hashlib.sha256(f"{origin.key} {digest}".encode()).hexdigest()[:32]
        name = f"{folders}/{_name(origin.key)}-{named}.json{_suffix(compression)}"
        return cls(blobs.put(name, _packed(content, compression)), digest, len(content), origin)

    @classmethod
    def read(cls, value: Any) -> Self | None:
        """Read what :meth:`stored` wrote; ``None`` if a value is no claim check."""
        if not isinstance(value, Mapping) or value.get(MARK) != CLAIM_CHECK:
            return None
        try:
            named = value["of"]
            origin = Origin(
                str(named["dag_id"]),
                str(named["run_id"]),
                str(named["task_id"]),
                int(named["map_index"]),
                str(named["key"]),
            )
            return cls(str(value["path"]), str(value["sha256"]), int(value["size"]), origin)
        except (KeyError, TypeError, ValueError):
            raise ClaimCheckDamaged(
                f"an XCom says that it is a claim check, and has not all of one: it has the keys {sorted(value)}. "
                "Somebody changed it; clear the task that made it."
            ) from None

    def stored(self) -> dict[str, Any]:
        """Return what goes into Airflow's database, and is shown to people. It has nothing of the result itself."""
        return {
            MARK: CLAIM_CHECK,
            "path": self.path,
            "size": self.size,
            "sha256": self.sha256,
            "of": asdict(self.origin),
        }

    def redeemed(self, blobs: Blobs) -> Any:
        """Return the result, as the JSON value that was kept.

        Raises:
            ClaimCheckDamaged: It is gone, or is not what was kept.
            StoreUnavailable: It cannot be read now.
        """
        try:
            content = _unpacked(blobs.get(self.path), self.path)
        except ClaimCheckDamaged as error:
            raise self._damaged(str(error)) from error
        except StoreUnavailable as error:
            raise StoreUnavailable(f"the {self.origin} {error}") from error
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise self._damaged(
                f"what lies at {self.path} is not what the task returned: its SHA-256 is {digest}, and was {self.sha256}"
            )
        return json.loads(content)

    def _damaged(self, why: str) -> ClaimCheckDamaged:
        return ClaimCheckDamaged(f"the {self.origin} cannot be read: {why}. Clear that task to make it anew.")


def _name(part: str) -> str:
    """Return a name for a file or folder, for people, and unlike that of any other part."""
    safe = _UNSAFE.sub("_", part)[:160]
    if safe == part and set(part) != {"."}:
        return part
    return f"{safe.strip('.')}~{hashlib.sha256(part.encode()).hexdigest()[:8]}"


def _suffix(compression: str | None) -> str:
    """Return how names of files end, by which it is known later how they are packed."""
    if compression is None:
        return ""
    from fsspec.utils import compressions  # type: ignore[import-untyped]

    for suffix, name in compressions.items():
        if name == compression:
            return f".{suffix}"
    raise InvalidOption(
        f"[common.io] xcom_objectstorage_compression is {compression!r}; installed here are "
        f"{', '.join(sorted(set(compressions.values())))}"
    )


def _packed(content: bytes, compression: str | None) -> bytes:
    if compression is None:
        return content
    from fsspec.compression import compr  # type: ignore[import-untyped]

    packed = io.BytesIO()
    with compr[compression](packed, mode="wb") as stream:
        stream.write(content)
    return packed.getvalue()


def _unpacked(content: bytes, path: str) -> bytes:
    from fsspec.compression import compr
    from fsspec.utils import infer_compression

    compression = infer_compression(path)
    if compression is None:
        return content
    try:
        with compr[compression](io.BytesIO(content), mode="rb") as stream:
            unpacked: bytes = stream.read()
    except Exception as error:  # each kind of compression has errors of its own
        raise ClaimCheckDamaged(f"what lies at {path} cannot be unpacked: {error}") from error
    return unpacked
