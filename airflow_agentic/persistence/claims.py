"""Data of records that is too large for a row lies elsewhere, and the record holds a claim check for it."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic_core import from_json

from airflow_agentic.errors import AgenticError, NotRecordable, StoreUnavailable
from airflow_agentic.persistence.ports import Facilities
from airflow_agentic.security.canonical import canonical

_CLAIM = b'{"claim":'
_MOST_IN_A_ROW = 16 * 1024 * 1024


class Claims:
    """Packs and unpacks the data of records.

    Args:
        facilities: Where large content is kept.
        inline_bytes: Content is large from here on.
        limit_bytes: Nothing may be larger, wherever it is kept.
    """

    def __init__(self, facilities: Facilities, inline_bytes: int, limit_bytes: int) -> None:
        self._keep = facilities.keep_blob
        self._read = facilities.read_blob
        self._inline = inline_bytes
        self._limit = limit_bytes

    def packed(self, content: bytes, stream: str, what: str) -> bytes:
        """Return what the record holds.

        Args:
            content: Canonical JSON.
            stream: Whose.
            what: For errors.

        Raises:
            NotRecordable: It is too large.
            StoreUnavailable: It cannot be kept now.
        """
        most = self._limit if self._keep is not None else min(self._limit, _MOST_IN_A_ROW)
        if len(content) > most:
            place = (
                "" if self._keep else ", give the store a place for large data ([agentic] claim_check_path)"
            )
            raise NotRecordable(
                f"{what} has {len(content):,} bytes, and at most {most:,} are kept: keep less of it{place}, or keep a "
                "reference to it"
            )
        if len(content) <= self._inline or self._keep is None:
            return content
        digest = hashlib.sha256(content).hexdigest()
        where = self._keep(_name(stream, digest), content)
        return canonical({"claim": {"where": where, "sha256": digest, "size": len(content)}}, what)

    def place(self, data: bytes, stream: str) -> str | None:
        """Return where the data of a record lies, if it lies elsewhere and belongs to a run; what is damaged lies nowhere."""
        try:
            claim = from_json(data)["claim"] if data.startswith(_CLAIM) else {}
            where, name = str(claim.get("where", "")), _name(stream, str(claim.get("sha256")))
        except (ValueError, TypeError, AttributeError, KeyError):
            return None
        return where if where.endswith(f"/{name}") else None

    def moved(self, data: bytes, stream: str, what: str) -> bytes:
        """Return the data of a record for another run: what lies elsewhere is kept for that one, too.

        What is gone is left as it is: only who asks for it needs to know.

        Raises:
            StoreUnavailable: It cannot be read or kept now.
        """
        if not data.startswith(_CLAIM):
            return data
        try:
            value = self.unpacked(data)
        except NotRecordable:
            return data
        return self.packed(canonical(value, what), stream, what)

    def unpacked(self, data: bytes) -> Any:
        """Return the value that a record holds.

        Raises:
            NotRecordable: What is kept elsewhere is gone, or is not what was kept.
            StoreUnavailable: It cannot be read now.
        """
        if not data.startswith(_CLAIM):
            return from_json(data)
        claim = from_json(data)["claim"]
        if self._read is None:
            raise NotRecordable(
                f"data of the run lies at {claim['where']}, and this store has no place for large data: set "
                "[agentic] claim_check_path as it was when the run was recorded"
            )
        try:
            content = self._read(claim["where"])
        except StoreUnavailable:
            raise  # It may be there later.
        except AgenticError as error:
            raise NotRecordable(f"data of the run cannot be read: {error}") from error
        if hashlib.sha256(content).hexdigest() != claim["sha256"]:
            raise NotRecordable(f"data of the run at {claim['where']} is not what was kept there")
        return from_json(content)


def _name(stream: str, digest: str) -> str:
    """Return what large data of a run is called."""
    return f"runs/{hashlib.sha256(stream.encode()).hexdigest()[:16]}/{digest}"
