"""What guards need: a place that all workers share, and somebody to tell.

All that guards know is kept as small JSON documents, each with a version. A guard reads, decides by pure code, and
writes if nobody else did meanwhile (optimistic concurrency): several documents in one change, all or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

Kind = Literal["breaker", "limit", "bulkhead", "budget", "retries", "answer", "fault"]

KEEP: Mapping[Kind, timedelta] = {
    "breaker": timedelta(days=90),
    "limit": timedelta(days=31),
    "bulkhead": timedelta(days=31),
    "budget": timedelta(days=92),
    "retries": timedelta(days=1),
    "answer": timedelta(days=31),
    "fault": timedelta(days=31),
}
"""How long a document is kept after its last change."""


@dataclass(frozen=True, order=True)
class GuardKey:
    """Name of a document.

    Attributes:
        kind: What it is of.
        name: Which, for example ``conn:openai``; at most 400 characters.
    """

    kind: Kind
    name: str


@dataclass(frozen=True)
class GuardEntry:
    """A document as the store keeps it.

    Attributes:
        value: JSON, encoded; at most 256 KiB.
        version: 1 when it is made, and one more with each change.
        updated_at: When it was changed last.
    """

    value: bytes
    version: int
    updated_at: datetime


@dataclass(frozen=True)
class GuardReading:
    """What was read in one go.

    Attributes:
        now: The store's clock.
        entries: What there is; a document that there is not is missing.
    """

    now: datetime
    entries: Mapping[GuardKey, GuardEntry]


@dataclass(frozen=True)
class GuardChange:
    """A document to write.

    Attributes:
        key: Which.
        value: JSON, encoded; ``None`` to forget it.
        expected: Version that it must have now; 0 if it must not be there.
    """

    key: GuardKey
    value: bytes | None
    expected: int


class GuardStore(Protocol):
    """Port: documents that all workers share. All times are the store's own clock."""

    def read(self, keys: Sequence[GuardKey]) -> GuardReading:
        """Read documents, all at one time, in one round trip.

        Raises:
            StoreUnavailable: The store cannot be reached now.
        """
        ...

    def change(self, changes: Sequence[GuardChange]) -> datetime | None:
        """Change documents, all or none, if each has the expected version. It is on disk when it returns.

        What was not changed for longer than :data:`KEEP` counts as not there, and may be forgotten.

        Returns:
            The store's clock; ``None`` if a version was another: nothing was changed then.

        Raises:
            StoreUnavailable: The store cannot be reached now; whether it was done is not known.
        """
        ...

    def entries(self, kind: Kind, prefix: str = "", limit: int = 1000) -> list[tuple[str, GuardEntry]]:
        """Read names and documents of a kind whose names begin so, ordered by name (bytes of UTF-8)."""
        ...

    def purge(self) -> int:
        """Forget what is kept no longer; return how many documents."""
        ...


@dataclass(frozen=True)
class GuardEvent:
    """Something that people may want to know about a guard.

    Attributes:
        type: ``breaker.opened``, ``breaker.half_opened``, ``breaker.closed``, ``breaker.forced_open``,
            ``breaker.forced_closed``, ``budget.alert``, ``budget.exceeded``, ``guards.unavailable``,
            ``guards.available``, ``fault.injected``.
        key: Of what.
        at: When, by the store's clock where it is known.
        data: What else there is to say: plain JSON.
    """

    type: str
    key: str
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)


class GuardEvents(Protocol):
    """Port: who is told. Never raises."""

    def tell(self, event: GuardEvent) -> None:
        """Take note of an event."""
        ...
