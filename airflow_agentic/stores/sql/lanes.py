"""Lanes: which delivery of a mailbox and key can be claimed. Every step is in the caller's transaction.

The row of a lane is a lock, and counts its open deliveries: one of them can be claimed, the others wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from airflow_agentic.stores.sql.database import SqlDatabase
from airflow_agentic.stores.sql.statements import Statements

Lane = tuple[str, str]


class Lanes:
    """Lets deliveries into lanes and out of them.

    Args:
        database: Where.
        sql: What it is told.
    """

    def __init__(self, database: SqlDatabase, sql: Statements) -> None:
        self._db = database
        self._sql = sql

    def enter(self, lane: Lane) -> bool:
        """Count one more delivery; return whether it has to wait."""
        mailbox, key = lane
        [row] = self._db.fetch(self._sql.enter_lane, {"mailbox": mailbox, "key": key})
        return bool(row.deliveries > 1)

    def leave(self, ended: Iterable[Lane], waited: Iterable[Lane] = ()) -> None:
        """Count deliveries that have ended, and let in whoever is next.

        Args:
            ended: Lanes whose first delivery has ended.
            waited: Lanes of those that ended while they waited, each once for every delivery.
        """
        counts, heads = Counter(waited), set(ended)
        counts.update(heads)
        # In one order for everybody: two who need the same lanes must not wait for each other.
        for lane in sorted(counts):
            values = {"mailbox": lane[0], "key": lane[1]}
            for _ in range(counts[lane]):
                self._db.execute(self._sql.leave_lane, values)
            if lane in heads:
                self._db.execute(self._sql.promote, values)
            self._db.execute(self._sql.end_lane, values)
