"""The HTTP transports of agents, on Airflow's HTTP hooks."""

from __future__ import annotations

from airflow_agentic.agents.transport import HttpRequest, HttpResponse
from airflow_agentic.errors import ServiceError
from airflow_agentic.resilience.deadlines import remaining


class HookTransport:
    """Implements :class:`airflow_agentic.agents.transport.HttpTransport` on ``HttpHook``.

    Args:
        conn_id: A connection of type ``http``: base URL, credentials, headers.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id

    def send(self, request: HttpRequest) -> HttpResponse:
        """Send and wait.

        Raises:
            ServiceError: No answer came.
        """
        # The HTTP stack is heavy: only agents that speak HTTP pay for it.
        from airflow.providers.http.hooks.http import HttpHook
        from requests.exceptions import RequestException

        hook = HttpHook(method=request.method.upper(), http_conn_id=self._conn_id)
        try:
            response = hook.run(
                endpoint=request.endpoint,
                headers=dict(request.headers),
                json=request.json,
                # Statuses are the agent's to judge.
                extra_options={"check_response": False, "timeout": _seconds(request)},
            )
        except RequestException as error:
            raise ServiceError(
                f"connection {self._conn_id!r} gave no answer: {type(error).__name__}"
            ) from error
        return HttpResponse(response.status_code, dict(response.headers), response.content)


def _seconds(request: HttpRequest) -> float:
    """Return how long an exchange may take: not longer than who waits for it."""
    left = remaining()
    return request.timeout_seconds if left is None else max(0.001, min(request.timeout_seconds, left))


class AsyncHookTransport:
    """Implements :class:`airflow_agentic.agents.transport.AsyncHttpTransport` on ``HttpAsyncHook``.

    Args:
        conn_id: A connection of type ``http``: base URL, credentials, headers.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send and wait without holding the thread.

        Raises:
            ServiceError: No answer came.
        """
        import aiohttp
        from airflow.providers.http.hooks.http import HttpAsyncHook

        hook = HttpAsyncHook(method=request.method.upper(), http_conn_id=self._conn_id, retry_limit=1)
        timeout = aiohttp.ClientTimeout(total=_seconds(request))
        try:
            # A session of ours: the hook closes its own before the body can be read.
            async with aiohttp.ClientSession(timeout=timeout) as session:
                response = await hook.run(
                    session=session,
                    endpoint=request.endpoint,
                    json=request.json,
                    headers=dict(request.headers),
                    extra_options={"check_response": False},
                )
                return HttpResponse(response.status, dict(response.headers), await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServiceError(
                f"connection {self._conn_id!r} gave no answer: {type(error).__name__}"
            ) from error
