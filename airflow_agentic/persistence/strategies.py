"""How much of a run is kept.

All modes write the same records by the same path: a mode says only when a snapshot goes with them, and what may be forgotten
later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.errors import ConfigurationError

Mode = Literal["hybrid", "events", "snapshot", "checkpoint"]

MODES: tuple[str, ...] = get_args(Mode)

_SHORTEST_TAIL_BYTES = 16 * 1024


@dataclass(frozen=True)
class Strategy:
    """When a snapshot is made, and what may be forgotten.

    Attributes:
        mode: ``events``: never a snapshot; the state is folded from all events, and nothing is forgotten.
            ``snapshot``: with every event; older events may be forgotten.
            ``checkpoint``: at checkpoints and ends only; events before the last one may be forgotten.
            ``hybrid``: when what was written since the last one is as much as the state itself, but not for fewer than
            ``every`` records: so the cost of a record does not grow with the run, and neither does loading it.
        every: See above.
    """

    mode: Mode = "hybrid"
    every: int = 50

    @property
    def forgets(self) -> bool:
        """Whether events that are in a snapshot may be forgotten once the run is over."""
        return self.mode in ("snapshot", "checkpoint")

    def is_due(self, written: Written, *, changed: bool, at_rest: bool) -> bool:
        """Whether a snapshot goes with the records that are written now.

        Args:
            written: Since the last snapshot, with these.
            changed: Whether the state is another one now.
            at_rest: Whether this is a checkpoint, or the end of the run.
        """
        if self.mode == "events":
            return False
        if self.mode == "snapshot":
            return changed or at_rest
        if self.mode == "checkpoint":
            return at_rest
        enough = max(_SHORTEST_TAIL_BYTES, written.last_snapshot_bytes)
        return written.records >= self.every and written.size >= enough


@dataclass
class Written:
    """What was written since the last snapshot.

    Attributes:
        records: How many.
        size: How much data, in bytes.
        last_snapshot_bytes: How large the last snapshot is.
    """

    records: int = 0
    size: int = 0
    last_snapshot_bytes: int = 0

    def add(self, data: bytes) -> None:
        """Count a record."""
        self.records += 1
        self.size += len(data)

    def snapped(self, size: int) -> None:
        """Begin anew after a snapshot."""
        self.records, self.size, self.last_snapshot_bytes = 0, 0, size


_STRATEGIES: Mapping[str, Strategy] = {mode: Strategy(mode) for mode in get_args(Mode)}


def strategy_of(mode: str) -> Strategy:
    """Return the strategy of a mode.

    Raises:
        ConfigurationError: There is none of that name.
    """
    if mode not in _STRATEGIES:
        hint = did_you_mean(mode, MODES) or f"there are: {', '.join(MODES)}"
        raise ConfigurationError(f"there is no persistence {mode!r} ({hint})")
    return _STRATEGIES[mode]
