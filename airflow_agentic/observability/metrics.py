"""Port: how agents and services report numbers. The runtime binds it to Airflow's own metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Tags = Mapping[str, str]


class Metrics(Protocol):
    """Takes numbers, never raises, and is cheap when nobody listens."""

    def count(self, name: str, value: int = 1, tags: Tags | None = None) -> None:
        """Add to a counter.

        Args:
            name: Dotted name, without a prefix.
            value: How much.
            tags: Few values each: every combination is a series of its own.
        """
        ...

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Set a value."""
        ...

    def timing(self, name: str, seconds: float, tags: Tags | None = None) -> None:
        """Report how long something took, in seconds."""
        ...


class NoMetrics:
    """Takes numbers and forgets them."""

    def count(self, name: str, value: int = 1, tags: Tags | None = None) -> None:
        """Do nothing."""

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Do nothing."""

    def timing(self, name: str, seconds: float, tags: Tags | None = None) -> None:
        """Do nothing."""
