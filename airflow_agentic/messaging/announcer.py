"""When the messages of a mailbox are worth telling somebody about."""

from __future__ import annotations

from airflow_agentic.messaging.delivery import MailboxStats


class Announcer:
    """Decides when a mailbox is announced: on new messages at once, then again while nobody takes them.

    Args:
        remind_seconds: First time until an announcement is repeated; doubled each time, up to ten minutes.
    """

    _LONGEST_SECONDS = 600.0
    _LEAST_SECONDS = 1.0

    def __init__(self, remind_seconds: float) -> None:
        self._first = remind_seconds
        self._wait = remind_seconds
        self._announced = 0
        self._at = float("-inf")

    def is_due(self, box: MailboxStats, now: float) -> bool:
        """Whether to announce now; if so, the caller does.

        Args:
            box: The mailbox as it is.
            now: Seconds of a clock that never goes back.
        """
        newest = box.newest_claimable
        if newest is None:
            self._wait = self._first
            return False
        new = newest > self._announced and now - self._at >= self._LEAST_SECONDS
        forgotten = newest <= self._announced and now - self._at >= self._wait
        if not (new or forgotten):
            return False
        self._wait = self._first if new else min(2 * self._wait, self._LONGEST_SECONDS)
        self._announced, self._at = max(newest, self._announced), now
        return True
