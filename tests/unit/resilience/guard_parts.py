"""Parts for tests of guards: a store that can be away, and somebody who takes note."""

from __future__ import annotations

import threading

import pytest

from airflow_agentic.errors import CircuitOpen, ServiceError, StoreUnavailable
from airflow_agentic.resilience import Breaker, Guards
from airflow_agentic.resilience.guards import GuardOptions
from airflow_agentic.resilience.keeping import KEEPER
from airflow_agentic.resilience.shared import LocalGuards

KEY = "conn:primary"
BREAKER = Breaker(window_size=10, minimum_calls=4, open_seconds=0.2, half_open_calls=2)
DOWN = ServiceError("down")


class Shaky(LocalGuards):
    """A store that counts its round trips, and can be away."""

    def __init__(self, *args):
        super().__init__(*args)
        self.is_away = False
        self.reads = self.changes = 0

    @property
    def trips(self):
        return self.reads + self.changes

    def read(self, keys):
        self.reads += 1
        self._reached()
        return super().read(keys)

    def change(self, changes):
        self.changes += 1
        self._reached()
        return super().change(changes)

    def _reached(self):
        if self.is_away:
            raise StoreUnavailable("the store is away")


class Notebook:
    """Takes note of events."""

    def __init__(self):
        self.events = []

    def tell(self, event):
        self.events.append(event)

    def types(self, family=""):
        return [event.type for event in self.events if event.type.startswith(family)]


class Service:
    """The other side: counts who is there, and fails when it is told to."""

    def __init__(self):
        self.error = None
        self.calls = self.inside = self.most = 0
        self.door = threading.Event()
        self.door.set()
        self._lock = threading.Lock()

    def __call__(self, answer="answer"):
        with self._lock:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            self.door.wait(20)
            if self.error is not None:
                raise self.error
            return answer
        finally:
            with self._lock:
                self.inside -= 1


def made(store=None, events=None, **options):
    return Guards(store if store is not None else Shaky(), events, GuardOptions(**options))


def warm(guard, service, calls=20):
    for _ in range(calls):
        guard.call(service)


def fail(guard, service, calls=20):
    service.error, before = DOWN, service.calls
    for _ in range(calls):
        with pytest.raises((ServiceError, CircuitOpen)):
            guard.call(service)
    return service.calls - before


def kept():
    """The leases of guards that this process renews; those of runs are others'."""
    return [token for token in KEEPER._due if not token.startswith(("results", "run "))]
