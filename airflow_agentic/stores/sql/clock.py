"""The store's clock in Python: milliseconds since 1970 UTC. In SQL it is ``Dialect.now``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def from_ms(milliseconds: int) -> datetime:
    """Return a stored time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_ms(span: timedelta) -> int:
    """Return a span as it is added to a stored time."""
    return round(span.total_seconds() * 1000)
