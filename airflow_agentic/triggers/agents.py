"""Agents that live behind HTTP, asked from the triggerer: no worker slot is held while they think."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_agentic import runtime
from airflow_agentic.agents.context import RunIdentity
from airflow_agentic.agents.guarded import GuardedAgent
from airflow_agentic.agents.http import HttpAgent
from airflow_agentic.agents.registry import registry
from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import (
    AgenticError,
    BudgetExceeded,
    BulkheadFull,
    CircuitOpen,
    ConfigurationError,
    GuardsUnavailable,
    LimitExceeded,
    NotAdmitted,
)
from airflow_agentic.hooks.agents import AsyncHookTransport
from airflow_agentic.resilience.fallback import Degradation
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
        policy: How it is guarded.
        waited: How often the task waited for a guard, and whether its turn was set aside (``rounds``, ``has_turn``);
            handed on in the event.
    """

    def __init__(
        self,
        agent: str,
        implementation: str,
        task: Any,
        run: dict[str, Any],
        config: dict[str, Any] | None = None,
        agentic_conn_id: str | None = None,
        policy: dict[str, Any] | None = None,
        waited: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.agent = agent
        self.implementation = implementation
        # BaseTrigger keeps `task` for itself.
        self.agent_task = task
        self.agent_run = run
        self.config = config
        self.agentic_conn_id = agentic_conn_id
        self.policy = policy
        self.waited = waited

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
                "policy": self.policy,
                "waited": self.waited,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask once; the event carries the result or the error."""
        try:
            yield TriggerEvent(await self._ask())
        except NotAdmitted as refusal:
            if self.policy is not None and Policy.model_validate(self.policy).when_refused == "fail":
                yield failure_event(refusal)
                return
            retry_at = refusal.retry_at and refusal.retry_at.isoformat()
            said = {"type": type(refusal).__name__, "text": str(refusal), "key": refusal.key}
            carried = {**(self.waited or {}), "has_turn": False}
            yield TriggerEvent({"refused": {**said, "retry_at": retry_at}, "carried": carried})
        except AgenticError as error:
            yield failure_event(error)

    async def _ask(self) -> dict[str, Any]:
        run = RunIdentity(**self.agent_run)
        with contextlib.ExitStack() as stack:
            opened = runtime.workplace(self.agentic_conn_id, run, async_http=AsyncHookTransport)
            place = await asyncio.to_thread(stack.enter_context, opened)
            try:
                return await self._ask_at(place)
            finally:
                await asyncio.to_thread(stack.close)

    async def _ask_at(self, place: Workplace) -> dict[str, Any]:
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
            policy = None if self.policy is None else Policy.model_validate(self.policy)
            protection = None if policy is None else place.protection(plan, policy)
            # The loop of the triggerer is not held up by the commits of steps.
            kept = replace(plan, persistence="off")
            if protection is not None and (self.waited or {}).get("has_turn"):
                protection.guard.use_turn()
            guarded = GuardedAgent(
                agent, lambda messages: place.context(kept, messages), protection, place.store.faults
            )
            done = await guarded.ado(self.agent_task)
            await asyncio.to_thread(place.store.bus.send_many, done.ctx.outbox)
            return {"result": done.result, "degradation": done.degradation and asdict(done.degradation)}
        finally:
            await asyncio.to_thread(agent.shutdown, "done")


_REFUSALS = {
    kind.__name__: kind
    for kind in (CircuitOpen, LimitExceeded, BulkheadFull, BudgetExceeded, GuardsUnavailable)
}


def refusal_of(said: dict[str, Any]) -> NotAdmitted:
    """Return the refusal that an event tells of."""
    retry_at = None if said["retry_at"] is None else datetime.fromisoformat(said["retry_at"])
    return _REFUSALS.get(said["type"], NotAdmitted)(said["text"], said["key"], retry_at)


def degradation_of(event: dict[str, Any]) -> Degradation | None:
    """Return why the result of an event is degraded, if it is."""
    said = event.get("degradation")
    return None if said is None else Degradation(**said)
