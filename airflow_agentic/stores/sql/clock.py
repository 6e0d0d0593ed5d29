"""The store's clock: milliseconds since 1970 UTC, in SQL and in Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOW = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
"""The time, in the SQL of SQLite."""


def from_ms(milliseconds: int) -> datetime:
    """Return a stored time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_ms(span: timedelta) -> int:
    """Return a span as it is added to a stored time."""
    return round(span.total_seconds() * 1000)
