"""Agents that live behind HTTP, asked from the triggerer: no worker slot is held while they think."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_agentic import runtime
from airflow_agentic.agents.context import AgentContext, RunIdentity
from airflow_agentic.agents.http import HttpAgent
from airflow_agentic.errors import AgenticError, ConfigurationError
from airflow_agentic.hooks.agents import AsyncHookTransport
from airflow_agentic.triggers.failures import failure_event


class HttpAgentTrigger(BaseTrigger):
    """Runs one task of an :class:`HttpAgent` and fires with its result.

    The agent must be importable in the triggerer: an installed package's, or ``package.module:Class``.

    Args:
        agent: Name of the agent.
        task: Its task, as JSON.
        run: The task instance it works for, as a dict of ``RunIdentity``.
        config: Its configuration.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    def __init__(
        self,
        agent: str,
        task: Any,
        run: dict[str, Any],
        config: dict[str, Any] | None = None,
        agentic_conn_id: str | None = None,
    ) -> None:
        super().__init__()
        self.agent = agent
        # BaseTrigger keeps `task` for itself.
        self.agent_task = task
        self.agent_run = run
        self.config = config
        self.agentic_conn_id = agentic_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer needs to make this trigger again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "agent": self.agent,
                "task": self.agent_task,
                "run": self.agent_run,
                "config": self.config,
                "agentic_conn_id": self.agentic_conn_id,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask once; the event carries the result or the error."""
        try:
            yield TriggerEvent({"result": await self._ask()})
        except AgenticError as error:
            yield failure_event(error)

    async def _ask(self) -> Any:
        store = await asyncio.to_thread(runtime.open_store, self.agentic_conn_id)
        try:
            agent = runtime.build_agent(self.agent, self.config, store)
            if not isinstance(agent, HttpAgent):
                raise ConfigurationError(
                    f"agent {self.agent!r} is a {agent.agent_type} and works in a worker; "
                    "only an HttpAgent can be deferred"
                )
            ctx = AgentContext(agent.name, run=RunIdentity(**self.agent_run), async_http=AsyncHookTransport)
            try:
                result = await agent.arun(self.agent_task, ctx)
                await asyncio.to_thread(store.bus.send_many, ctx.outbox)
                return agent.contract.to_json(result)
            finally:
                await asyncio.to_thread(agent.shutdown, "done")
        finally:
            await asyncio.to_thread(store.close)
