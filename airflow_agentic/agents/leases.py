"""Keeps leases alive while an agent works."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from airflow_agentic.errors import AgenticError
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.delivery import Delivery

_log = logging.getLogger(__name__)

# A third of the time after which a silent instance counts as lost.
_LONGEST_SILENCE_SECONDS = 20.0


class LeaseRenewer:
    """Context manager: while an agent works, extends its leases and gives its signs of life, in a thread.

    It ticks each third of ``lease``, and at least every 20 seconds.

    A renewal that fails is tried again at the next tick; a lease that is lost is left alone, and the later ack
    says so.

    Args:
        bus: Where they were received.
        deliveries: What to keep; may be empty.
        lease: How long each renewal lasts.
        beat: Called at each tick; the agent's sign of life.
    """

    def __init__(
        self, bus: MessageBus, deliveries: Sequence[Delivery], lease: timedelta, beat: Callable[[], None]
    ) -> None:
        self._bus = bus
        self._deliveries = list(deliveries)
        self._lease = lease
        self._beat = beat
        self._interval = min(lease.total_seconds() / 3, _LONGEST_SILENCE_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="agentic-lease-renewer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                lost = self._bus.extend_all(self._deliveries, self._lease) if self._deliveries else []
            except AgenticError as error:
                _log.warning("the leases of %s deliveries were not renewed: %s", len(self._deliveries), error)
                lost = []
            for delivery in lost:
                self._deliveries.remove(delivery)
                _log.warning("the lease of delivery %s was lost while working on it", delivery.delivery_id)
            self._beat()
