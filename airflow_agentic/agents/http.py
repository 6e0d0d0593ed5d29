"""Agents that live behind HTTP."""

from __future__ import annotations

import json
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.context import AgentContext
from airflow_agentic.agents.transport import HttpRequest, HttpResponse
from airflow_agentic.errors import InvalidResult
from airflow_agentic.resilience.failures import service_error

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


class HttpAgentConfig(BaseModel):
    """Where an HTTP agent lives.

    Attributes:
        conn_id: Airflow connection of type ``http``: base URL, credentials, headers.
        endpoint: Path below the base URL.
        method: HTTP method.
        headers: Added to those of the connection.
        timeout_seconds: For the whole exchange.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    conn_id: str = "http_default"
    endpoint: str = ""
    method: str = "POST"
    headers: dict[str, str] = Field(default_factory=dict)
    timeout_seconds: float = Field(default=30.0, gt=0)


class HttpAgent(BaseAgent[InputT, OutputT]):
    """An agent that is an HTTP service: the task is sent as JSON, the JSON answer is the result.

    Subclasses set the types, and may override :meth:`build_request` and :meth:`read_response`. The same agent
    runs in a worker (``process``) or, through a deferred operator, in the triggerer (``aprocess``).
    """

    config_model: ClassVar[type[BaseModel]] = HttpAgentConfig

    def build_request(self, task: InputT) -> HttpRequest:
        """Return the request for a task."""
        config = self.configuration
        assert isinstance(config, HttpAgentConfig)
        body = task.model_dump(mode="json") if isinstance(task, BaseModel) else task
        return HttpRequest(
            method=config.method,
            endpoint=config.endpoint,
            json=body,
            headers=config.headers,
            timeout_seconds=config.timeout_seconds,
        )

    def read_response(self, response: HttpResponse) -> Any:
        """Return the raw result of a good answer; it is validated afterwards.

        Raises:
            InvalidResult: The body is not JSON.
        """
        try:
            return json.loads(response.body) if response.body else None
        except ValueError:
            raise InvalidResult(
                f"agent {self.name!r} answered {response.status} with a body that is not JSON "
                f"({len(response.body)} bytes)"
            ) from None

    def process(self, task: InputT, ctx: AgentContext) -> OutputT:
        """Ask the service and wait.

        Raises:
            ServiceError: No answer, a server error, or "try again" (408, 425).
            ServiceThrottled: It asks to be left alone for a while (429, 507).
            ServiceRefused: Any other client error, or a redirect that was not followed.
            InvalidResult: The answer is not JSON.
        """
        result: OutputT = self._answer(ctx.http(self._conn_id).send(self.build_request(task)))
        return result

    async def aprocess(self, task: InputT, ctx: AgentContext) -> OutputT:
        """Ask the service without holding the thread; the same errors as :meth:`process`."""
        result: OutputT = self._answer(await ctx.async_http(self._conn_id).send(self.build_request(task)))
        return result

    async def arun(self, task: Any, ctx: AgentContext) -> OutputT:
        """Do what :meth:`run` does, with :meth:`aprocess`."""
        with self._work(ctx):
            return self._checked(await self.aprocess(self.contract.task(task), ctx, **self._equipment))

    @property
    def _conn_id(self) -> str:
        config = self.configuration
        assert isinstance(config, HttpAgentConfig)
        return config.conn_id

    def _answer(self, response: HttpResponse) -> Any:
        if 200 <= response.status < 300:
            return self.read_response(response)
        text = f"agent {self.name!r}: the service behind {self._conn_id!r} answered {response.status}"
        raise service_error(text, response.status, response.headers)
