"""Agents that live behind HTTP, asked from the triggerer: no worker slot is held while they think."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_agentic import runtime
from airflow_agentic.agents.context import RunIdentity
from airflow_agentic.agents.http import HttpAgent
from airflow_agentic.agents.registry import registry
from airflow_agentic.errors import AgenticError, ConfigurationError
from airflow_agentic.hooks.agents import AsyncHookTransport
from airflow_agentic.runtime import Workplace
from airflow_agentic.triggers.failures import failure_event


class HttpAgentTrigger(BaseTrigger):
    """Runs one task of an :class:`HttpAgent` and fires with its result.

    The agent must be importable in the triggerer: an installed package's, or ``package.module:Class``.

    Args:
        agent: Name of the agent.
        implementation: ``package.module:Class`` of it.
        task: Its task, as JSON.
        run: The task instance it works for, as a dict of ``RunIdentity``.
        config: What run time said about its configuration; the project file's is below it. References in it are
            not resolved: this is kept in Airflow's database.
        agentic_conn_id: The store; see ``AgenticHook``.
    """

    def __init__(
        self,
        agent: str,
        implementation: str,
        task: Any,
        run: dict[str, Any],
        config: dict[str, Any] | None = None,
        agentic_conn_id: str | None = None,
    ) -> None:
        super().__init__()
        self.agent = agent
        self.implementation = implementation
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
                "implementation": self.implementation,
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
        run = RunIdentity(**self.agent_run)
        with contextlib.ExitStack() as stack:
            opened = runtime.workplace(self.agentic_conn_id, run, async_http=AsyncHookTransport)
            place = await asyncio.to_thread(stack.enter_context, opened)
            try:
                return await self._ask_at(place)
            finally:
                await asyncio.to_thread(stack.close)

    async def _ask_at(self, place: Workplace) -> Any:
        plan = await asyncio.to_thread(
            runtime.plan, self.agent, self.config, registry.resolve(self.implementation)
        )
        agent = await asyncio.to_thread(place.agent, plan)
        try:
            if not isinstance(agent, HttpAgent):
                raise ConfigurationError(
                    f"agent {self.agent!r} is a {agent.agent_type} and works in a worker; "
                    "only an HttpAgent can be deferred"
                )
            ctx = place.context(plan)
            result = await agent.arun(self.agent_task, ctx)
            await asyncio.to_thread(place.store.bus.send_many, ctx.outbox)
            return agent.contract.to_json(result)
        finally:
            await asyncio.to_thread(agent.shutdown, "done")
