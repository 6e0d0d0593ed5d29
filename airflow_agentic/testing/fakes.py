"""Stand-ins for the world outside of an agent: time, the store and HTTP services."""

from __future__ import annotations

import contextlib
import json as json_module
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_agentic.agents.transport import AsyncHttpTransport, HttpRequest, HttpResponse, HttpTransport
from airflow_agentic.messaging import BusOptions, MessageBus
from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.stores.memory import (
    Clock,
    MemoryAgentStore,
    MemoryGuards,
    MemoryJournals,
    memory_bus_store,
    utc_now,
)
from airflow_agentic.stores.store import Store


class FakeClock:
    """A clock that moves when it is told to: for ``memory_store(clock=...)``.

    Args:
        start: Where it stands at first, with a time zone.
    """

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self.now = start

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def advance(self, span: timedelta | float) -> datetime:
        """Move on.

        Args:
            span: How far; a number is seconds.

        Raises:
            ValueError: It would go back.
        """
        step = span if isinstance(span, timedelta) else timedelta(seconds=span)
        if step < timedelta(0):
            raise ValueError(f"a clock does not go back, and {span!r} would")
        self.now += step
        return self.now


@contextlib.contextmanager
def memory_store(clock: Clock = utc_now, options: BusOptions | None = None) -> Iterator[Store]:
    """Open a store in memory, as ``open_store("memory://")`` does, on a clock of the test's own.

    Args:
        clock: Tells the store the time, for example a :class:`FakeClock`.
        options: Limits and times of the bus.
    """
    bus_store = memory_bus_store(clock)
    agents, guards = MemoryAgentStore(clock), MemoryGuards(clock)
    journals = MemoryJournals(clock, bus_store.messages.append)
    runs, bus = RunStores(journals, journals), MessageBus(bus_store, options)
    with Store("memory://", bus, agents, guards, runs, lambda: "memory", lambda: None) as store:
        yield store


def answer(
    json: Any = None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> HttpResponse:
    """Make an answer for :class:`FakeHttp`.

    Args:
        json: The body, to be written as JSON.
        status: HTTP status code.
        headers: HTTP headers.
        body: The body itself, instead of ``json``.
    """
    content = json_module.dumps(json).encode() if body is None else body
    return HttpResponse(status, {"Content-Type": "application/json"} if headers is None else headers, content)


class FakeHttp:
    """An HTTP service that answers from a script and keeps what it was asked.

    It takes the place of the transports: ``run_agent(..., http=fake)``, or
    ``AgentContext(..., http=fake, async_http=fake.asynchronous)``.

    Args:
        script: One step a request: an answer, an exception to raise, or a function of the request.

    Attributes:
        requests: The requests, in order.
        connections: The connection ids that a transport was asked for, in order.
    """

    def __init__(self, *script: HttpResponse | Exception | Callable[[HttpRequest], HttpResponse]) -> None:
        self.requests: list[HttpRequest] = []
        self.connections: list[str] = []
        self._script = deque(script)

    def __call__(self, conn_id: str) -> HttpTransport:
        """Return the transport for a connection."""
        self.connections.append(conn_id)
        return self

    def asynchronous(self, conn_id: str) -> AsyncHttpTransport:
        """Return the asyncio transport for a connection; it has the same script and keeps the same lists."""
        self.connections.append(conn_id)
        return _AsyncFakeHttp(self)

    def send(self, request: HttpRequest) -> HttpResponse:
        """Take the next step of the script.

        Raises:
            AssertionError: The script is at its end.
            Exception: What the script says.
        """
        self.requests.append(request)
        if not self._script:
            raise AssertionError(
                f"request {len(self.requests)}, {request.method} {request.endpoint!r}, was not expected: "
                f"the script has {len(self.requests) - 1}"
            )
        step = self._script.popleft()
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, HttpResponse) else step(request)


@dataclass(frozen=True)
class _AsyncFakeHttp:
    fake: FakeHttp

    async def send(self, request: HttpRequest) -> HttpResponse:
        return self.fake.send(request)
