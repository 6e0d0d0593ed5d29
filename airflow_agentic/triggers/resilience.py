"""Waits in the triggerer until a guard lets work go: no worker slot is held meanwhile."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_agentic.errors import AgenticError
from airflow_agentic.resilience.breaker import BreakerState
from airflow_agentic.triggers.failures import failure_event
from airflow_agentic.triggers.looking import looks

_log = logging.getLogger(__name__)

_SPREAD_SECONDS = 1.0
_ON_THE_WAY_SECONDS = 20.0
# While a breaker is open a person may reset it: so often is looked.
_SHUT = frozenset({BreakerState.OPEN, BreakerState.FORCED_OPEN})


class AdmissionTrigger(BaseTrigger):
    """Fires when work that a guard refused may be tried again.

    Without a breaker that is a moment. With one it is when the breaker is not open any more, by time or by hand; of those
    that wait in one triggerer for the probes of a half-open breaker, as many go as there are probes, and the others when
    it has closed.

    Args:
        retry_at: The moment, in ISO 8601; ``None`` if only the breaker decides.
        breaker: Key of the breaker, if one refused.
        agentic_conn_id: The store; see ``AgenticHook``.
        carried: Handed on in the event, under this name.
    """

    # Of this process: when tasks went as probes, by the monotonic clock.
    _probing: dict[tuple[str, str], list[float]] = {}  # noqa: RUF012

    def __init__(
        self,
        retry_at: str | None,
        breaker: str | None = None,
        agentic_conn_id: str | None = None,
        carried: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.carried = carried
        self.retry_at = retry_at
        self.breaker = breaker
        self.agentic_conn_id = agentic_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "retry_at": self.retry_at,
                "breaker": self.breaker,
                "agentic_conn_id": self.agentic_conn_id,
                "carried": self.carried,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire once."""
        try:
            if self.breaker is None:
                await asyncio.sleep(self._seconds_left() + random.uniform(0, _SPREAD_SECONDS))  # noqa: S311
            else:
                await self._until_it_lets_go(self.breaker)
        except AgenticError as error:
            yield failure_event(error)
        else:
            yield TriggerEvent({"waited_for": self.breaker or self.retry_at, "carried": self.carried or {}})

    def _seconds_left(self) -> float:
        if self.retry_at is None:
            return 0.0
        return max(0.0, (datetime.fromisoformat(self.retry_at) - datetime.now(UTC)).total_seconds())

    async def _until_it_lets_go(self, key: str) -> None:
        place = (self.agentic_conn_id or "", key)
        async for view in looks(self.agentic_conn_id, lambda store: store.breaker(key).glance()):
            if view.state in _SHUT:
                self._probing.pop(place, None)
                continue
            if view.state is not BreakerState.HALF_OPEN:
                self._probing.pop(place, None)
                # All who waited would come at once, to what has only just recovered.
                await asyncio.sleep(random.uniform(0, _SPREAD_SECONDS))  # noqa: S311
                return
            # A task that went and of which nothing was seen, in so long and now, has died on its way.
            now, patience = time.monotonic(), _ON_THE_WAY_SECONDS if view.out == 0 else math.inf
            went = [at for at in self._probing.get(place, ()) if now - at < patience]
            self._probing[place] = went
            if len(went) < int(view.settings.get("half_open_calls", 1)):
                went.append(now)
                return


class CircuitTrigger(BaseTrigger):
    """Fires when a breaker stands as is wanted.

    Args:
        key: Of the breaker.
        states: Which states are wanted.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    def __init__(self, key: str, states: list[str], agentic_conn_id: str | None = None) -> None:
        super().__init__()
        self.key = key
        self.states = states
        self.agentic_conn_id = agentic_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"key": self.key, "states": self.states, "agentic_conn_id": self.agentic_conn_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it is so, and fire once."""
        try:
            async for view in looks(self.agentic_conn_id, lambda store: store.breaker(self.key).glance()):
                if view.state.value in self.states:
                    yield TriggerEvent({"key": self.key, "state": view.state.value})
                    return
        except AgenticError as error:
            yield failure_event(error)
