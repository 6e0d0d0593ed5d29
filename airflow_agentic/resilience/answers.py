"""The last good answers, kept for worse days."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import Any

from airflow_agentic.errors import StoreError
from airflow_agentic.resilience.ports import GuardKey
from airflow_agentic.resilience.shared import Decision, Docs, SharedState

_log = logging.getLogger(__name__)

_LARGEST_BYTES = 200_000
# An answer that is nearly as young as the one there is need not be written.
_FRESH_SHARE = 10


@dataclass(frozen=True)
class KeptAnswer:
    """An answer of earlier.

    Attributes:
        value: Plain JSON.
        age_seconds: How old it is.
    """

    value: Any
    age_seconds: float


class Answers:
    """Keeps the last good answer to each task.

    Args:
        shared: Where.
        key: Whose answers.
        keep_seconds: How old one may be.
    """

    def __init__(self, shared: SharedState, key: str, keep_seconds: float) -> None:
        self._shared = shared
        self._key = key
        self._keep_seconds = keep_seconds

    def keep(self, task: Any, answer: Any) -> None:
        """Keep an answer, if it is JSON and not too large. Never raises: it is for worse days only."""
        try:
            at, text = self._at(task), json.dumps(answer)
        except (TypeError, ValueError):
            return
        if len(text) > _LARGEST_BYTES:
            _log.debug("an answer of %r is too large to be kept: %s bytes", self._key, len(text))
            return

        def decide(docs: Docs, now: float) -> Decision[None]:
            doc = docs.get(at)
            young = doc is not None and now - doc["at"] < self._keep_seconds / _FRESH_SHARE
            if young and doc is not None and doc["value"] == answer:
                return Decision(None)
            return Decision(None, {at: {"at": now, "value": answer}})

        try:
            self._shared.update([at], decide)
        except StoreError as error:
            _log.warning("an answer of %r was not kept: %s", self._key, error)

    def last(self, task: Any) -> KeptAnswer | None:
        """Return the last good answer to the same task, if it is young enough."""
        try:
            at = self._at(task)
        except (TypeError, ValueError):
            return None
        docs, now = self._shared.known([at])
        doc = docs.get(at)
        if doc is None or now - doc["at"] > self._keep_seconds:
            return None
        return KeptAnswer(doc["value"], max(0.0, now - doc["at"]))

    def _at(self, task: Any) -> GuardKey:
        digest = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()[:32]
        return GuardKey("answer", f"{self._key}/{digest}")
