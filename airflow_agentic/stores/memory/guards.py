"""Documents of guards in the memory of one process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from airflow_agentic.resilience.ports import GuardChange, GuardEntry, GuardKey, GuardReading, Kind
from airflow_agentic.resilience.shared import LocalGuards
from airflow_agentic.stores.documents import check_changes, check_keys, check_name
from airflow_agentic.stores.memory.clock import Clock, utc_now


class MemoryGuards(LocalGuards):
    """Implements :class:`airflow_agentic.resilience.ports.GuardStore`; refuses what other stores refuse.

    Args:
        clock: Tells the time, with a time zone.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        super().__init__(clock)

    def read(self, keys: Sequence[GuardKey]) -> GuardReading:
        """See the port."""
        check_keys(keys)
        return super().read(keys)

    def change(self, changes: Sequence[GuardChange]) -> datetime | None:
        """See the port."""
        check_changes(changes)
        return super().change(changes)

    def entries(self, kind: Kind, prefix: str = "", limit: int = 1000) -> list[tuple[str, GuardEntry]]:
        """See the port."""
        check_name(kind, prefix)
        return super().entries(kind, prefix, limit)
