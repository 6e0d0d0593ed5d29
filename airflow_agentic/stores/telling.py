"""Tells of what happens to guards: in the log, as numbers, and as messages for whoever subscribed to them."""

from __future__ import annotations

import logging

from airflow_agentic.errors import AgenticError
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.messaging.message import Message
from airflow_agentic.observability.metrics import Metrics
from airflow_agentic.resilience.ports import GuardEvent

_log = logging.getLogger("airflow_agentic.audit")

_FINE = frozenset({"breaker.closed", "breaker.half_opened", "guards.available"})
# First words of topics: "breaker.opened" of "conn:openai" is the topic "agentic.breakers.opened".
_TOPICS = {"breaker": "agentic.breakers", "budget": "agentic.budgets", "fault": "agentic.faults"}


class TellingEvents:
    """Implements :class:`airflow_agentic.resilience.ports.GuardEvents`.

    Args:
        bus: Where messages go, if anybody subscribed to their topic.
        metrics: Where numbers go: a counter for each type of event, by key.
    """

    def __init__(self, bus: MessageBus, metrics: Metrics) -> None:
        self._bus = bus
        self._metrics = metrics

    def tell(self, event: GuardEvent) -> None:
        """See the port."""
        level = logging.INFO if event.type in _FINE else logging.WARNING
        said = " ".join(f"{name}={value!r}" for name, value in event.data.items() if value not in (None, ""))
        _log.log(level, "%s %s %s", event.type, event.key, said)
        self._metrics.count(event.type, 1, {"key": event.key})
        family, _, what = event.type.partition(".")
        if family not in _TOPICS:
            return
        message = Message(
            source="agentic.guards",
            topic=f"{_TOPICS[family]}.{what}",
            type=f"{_TOPICS[family]}.{what}",
            subject=event.key,
            data={"key": event.key, "at": event.at.isoformat(), **event.data},
        )
        try:
            # What nobody wants to hear would only fill the dead letters.
            if self._bus.routes(message):
                self._bus.publish(message)
        except AgenticError as error:
            _log.warning("[%s] nobody was told of %s of %r: %s", error.category, event.type, event.key, error)
