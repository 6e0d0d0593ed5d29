"""Port: how an agent speaks HTTP. The runtime binds it to an Airflow connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class HttpRequest:
    """A request on a connection.

    Attributes:
        method: GET, POST, ...
        endpoint: Path below the connection's base URL.
        json: Body, as JSON; ``None`` for no body.
        headers: Added to those of the connection.
        timeout_seconds: For the whole exchange.
    """

    method: str
    endpoint: str
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 30.0


@dataclass(frozen=True)
class HttpResponse:
    """The answer, whatever its status.

    Attributes:
        status: HTTP status code.
        headers: As received.
        body: As received.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpTransport(Protocol):
    """Sends a request and returns the answer, also for error statuses."""

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send and wait.

        Raises:
            ServiceError: No answer came.
        """
        ...


class AsyncHttpTransport(Protocol):
    """The same for asyncio."""

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send and wait.

        Raises:
            ServiceError: No answer came.
        """
        ...
