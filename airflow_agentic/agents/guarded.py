"""An agent behind the guards of its policy: one piece of work, with what it may take the place of it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.context import AgentContext
from airflow_agentic.agents.durable import RunOver
from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.config.policies import Fallback
from airflow_agentic.errors import LifecycleError, NotAdmitted, RunError, WorkCancelled
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.resilience.answers import Answers
from airflow_agentic.resilience.deadlines import deadline
from airflow_agentic.resilience.fallback import Degradation, Ladder, marked
from airflow_agentic.resilience.guard import Guard

if TYPE_CHECKING:
    from airflow_agentic.resilience.faults import Faults

Messages = tuple[Message, ...]
MakeContext = Callable[[Messages], AgentContext]

# There is nothing to fall back from: the work is in other hands, waits for a person, or its record needs one.
_NOT_RESCUED = (LifecycleError, RunError)


@dataclass(frozen=True)
class Done:
    """A piece of work that was done.

    Attributes:
        result: Plain JSON; of a degraded map it says so.
        ctx: What it had, with the messages that it sends.
        degradation: Why the result is not what it should be; ``None`` if it is.
    """

    result: Any
    ctx: AgentContext
    degradation: Degradation | None = None


class Worker(Protocol):
    """Does pieces of work."""

    def do(self, task: Any, messages: Messages = ()) -> Done:
        """Do one."""
        ...


@dataclass(frozen=True)
class Protection:
    """What an agent is guarded with.

    Attributes:
        guard: Its guards.
        fallback: What is done instead, if anything.
        falls_back_when_refused: Whether a refusal of a guard is fallen back from; otherwise it is for the task to wait or fail.
        answers: Its last good answers, if they are kept.
        others: Agents to fall back to, by name: made when they are needed.
        has_people: Whether a person can be asked.
    """

    guard: Guard
    fallback: Fallback | None = None
    falls_back_when_refused: bool = False
    answers: Answers | None = None
    others: Mapping[str, Callable[[], Worker]] | None = None
    has_people: bool = False


class GuardedAgent:
    """Lets an agent work as its policy says.

    Args:
        agent: Which.
        make_context: Makes the context of each try from the messages it handles.
        protection: What guards it; ``None`` for nothing.
        faults: What is injected into its work; ``None`` for nothing.
    """

    def __init__(
        self,
        agent: BaseAgent[Any, Any],
        make_context: MakeContext,
        protection: Protection | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._faults = faults
        self._agent = agent
        self._make_context = make_context
        self._protection = protection
        self._ctx: AgentContext | None = None

    def do(self, task: Any, messages: Messages = ()) -> Done:
        """Do one piece of work, within the deadline of the request that asked for it.

        What a failed try sent does not leave, but for what it sent in durable steps that are finished. The durable run
        of the work, if it has one, is open afterwards: ``ctx.work.finish`` ends it.

        Raises:
            NotAdmitted: A guard refuses, and the policy says to wait or to fail then.
            PersonNeeded: A person is the next to be asked.
            Exception: Whatever the agent raised last.
        """
        with deadline(_seconds_left(messages)):
            if self._protection is None:
                return self._once(task, messages)
            return self._guarded(task, messages, self._protection)

    def known(self, messages: Messages = ()) -> Done | None:
        """Return what a piece of work came to, if it is recorded that it came to its end before."""
        over = self._make_context(messages).work.over()
        return None if over is None else self._over(over, messages)

    async def ado(self, task: Any) -> Done:
        """Do what :meth:`do` does with an agent that can be awaited (``arun``), for a task without messages."""
        if self._protection is None:
            return await self._aonce(task)
        by = self._protection
        try:
            done = await by.guard.acall(self._aonce, task)
        except Exception as error:
            refused = isinstance(error, NotAdmitted) and not by.falls_back_when_refused
            if by.fallback is None or refused or isinstance(error, _NOT_RESCUED):
                raise
            return await asyncio.to_thread(self._rescued, error, task, (), by, by.fallback)
        if by.answers is not None and done.degradation is None:
            await asyncio.to_thread(by.answers.keep, task, done.result)
        return done

    async def _aonce(self, task: Any) -> Done:
        agent: Any = self._agent
        if agent.state is AgentState.FAILED:
            agent.reset("ready for another try")
        ctx = self._make_context(())
        if self._faults is None:
            return self._ended(await agent.arun(task, ctx), ctx)
        return self._ended(await self._faults.acall(f"agent:{agent.name}", agent.arun, task, ctx), ctx)

    def _guarded(self, task: Any, messages: Messages, by: Protection) -> Done:
        try:
            done = by.guard.call(self._once, task, messages)
        except Exception as error:
            # It may go on in a thread that was left behind: nothing that it does counts any more.
            self._ended_by(error)
            refused = isinstance(error, NotAdmitted) and not by.falls_back_when_refused
            if by.fallback is None or refused or isinstance(error, _NOT_RESCUED):
                raise
            return self._rescued(error, task, messages, by, by.fallback)
        if by.answers is not None and done.degradation is None:
            by.answers.keep(task, done.result)
        return done

    def _once(self, task: Any, messages: Messages) -> Done:
        if self._agent.state is AgentState.FAILED:
            self._agent.reset("ready for another try")
        self._ended_by(WorkCancelled("another try took its place"))
        ctx = self._ctx = self._make_context(messages)
        ctx.work.discreet = self._agent.discreet
        work = functools.partial(self._agent.run, task, ctx)
        if self._faults is not None:
            work = functools.partial(self._faults.call, f"agent:{self._agent.name}", work)
        try:
            with ctx.work.working():
                return self._ended(work(), ctx)
        except RunOver as over:
            return self._over(over, messages)

    def _ended_by(self, error: Exception) -> None:
        if self._ctx is not None:
            self._ctx.work.end(error)

    def _over(self, over: RunOver, messages: Messages) -> Done:
        ctx = self._make_context(messages)
        ctx.replied = True  # that left with the end of the run
        return Done(over.result, ctx, None if over.degradation is None else Degradation(**over.degradation))

    def _ended(self, found: Any, ctx: AgentContext) -> Done:
        result = self._agent.contract.to_json(found)
        degradation = None if ctx.degraded is None else Degradation(ctx.degraded, "itself")
        return Done(marked(result, degradation), ctx, degradation)

    def _rescued(
        self, error: Exception, task: Any, messages: Messages, by: Protection, fallback: Fallback
    ) -> Done:
        asks = {
            name: functools.partial(_ask, make, task, messages) for name, make in (by.others or {}).items()
        }
        ladder = Ladder(fallback, by.guard.classifier, by.answers, asks, has_people=by.has_people)
        rescue = ladder.rescue(error, task, self._agent.discreet)
        if rescue.result is not None:
            result, ctx = rescue.result.result, rescue.result.ctx
        else:
            result, ctx = rescue.value, self._make_context(messages)
        ctx.degrade(rescue.degradation.reason)
        return Done(marked(result, rescue.degradation), ctx, rescue.degradation)


def _ask(make: Callable[[], Worker], task: Any, messages: Messages) -> Done:
    return make().do(task, messages)


def _seconds_left(messages: Sequence[Message]) -> float | None:
    """Return how long those who asked wait for an answer; ``None`` if nobody does."""
    ends = [each.expires_at for each in messages if each.kind is Kind.REQUEST and each.expires_at is not None]
    return None if not ends else max(0.0, (min(ends) - datetime.now(UTC)).total_seconds())
