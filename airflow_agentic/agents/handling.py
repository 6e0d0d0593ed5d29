"""What is done with the messages of a mailbox: by an agent, or by a plain function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.context import AgentContext
from airflow_agentic.agents.durable import RunOver
from airflow_agentic.agents.guarded import GuardedAgent, MakeContext, Protection
from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.message import Message
from airflow_agentic.resilience.fallback import Degradation

if TYPE_CHECKING:
    from airflow_agentic.resilience.faults import Faults

_CONTEXT = "ctx"


class Leaving(list[Message]):
    """Messages that leave in one commit with the ack.

    Attributes:
        gone: So many others have left before, with the end of a durable run.
    """

    gone = 0


class Handler(Protocol):
    """Does the work for a :class:`airflow_agentic.agents.worker.MailboxWorker`."""

    def handle(self, messages: tuple[Message, ...]) -> Sequence[Message]:
        """Do the work.

        Returns:
            Messages that leave in one commit with the ack.

        Raises:
            RejectMessage: It can never be done.
            Exception: It was not done this time.
        """
        ...

    def refusal(self, message: Message, error: BaseException) -> Message | None:
        """Return the error that answers a request; ``None`` if nobody waits for an answer."""
        ...

    def is_done(self, message: Message) -> bool:
        """Whether it is recorded that the work on a message came to its end: it needs only to be acked."""
        ...

    def discreet(self, text: str) -> str:
        """Take secrets out of a text."""
        ...

    def beat(self) -> None:
        """Give a sign of life; called while the work goes on."""

    def recover(self) -> None:
        """Get ready for the next message, whatever became of the last one."""


class AgentHandler:
    """Hands the data of each message to an agent; the result answers whoever asked.

    Args:
        agent: Which.
        make_context: Makes the context of each piece of work from the messages it handles.
        protection: What guards it.
        faults: What is injected into its work; ``None`` for nothing.
    """

    def __init__(
        self,
        agent: BaseAgent[Any, Any],
        make_context: MakeContext,
        protection: Protection | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._agent = agent
        self._make_context = make_context
        self._guarded = GuardedAgent(agent, make_context, protection, faults)

    def handle(self, messages: tuple[Message, ...]) -> Sequence[Message]:
        """Run the agent on the one message."""
        [message] = messages
        done = self._guarded.do(message.data, messages)
        if message.reply_to is not None and not done.ctx.replied:
            done.ctx.reply(done.result)
        return left_over(done.ctx, done.result, done.degradation)

    def is_done(self, message: Message) -> bool:
        """Ask for the durable run of the message."""
        return self._guarded.known((message,)) is not None

    def refusal(self, message: Message, error: BaseException) -> Message | None:
        """See the protocol."""
        return self._make_context((message,)).refusal(error, self._agent.discreet)

    def discreet(self, text: str) -> str:
        """Hide what the agent's references lead to."""
        return self._agent.discreet(text)

    def beat(self) -> None:
        """Tell the store that the agent is alive."""
        self._agent.heartbeat()

    def recover(self) -> None:
        """Reset the agent if it failed."""
        if self._agent.state is AgentState.FAILED:
            self._agent.reset("ready for the next message")


class FunctionHandler:
    """Calls a plain function with each message, or with a list of them.

    A message or a list of messages that it returns is sent; any other value answers whoever asked.

    Args:
        function: Takes the message first, and the context as ``ctx`` if it has a parameter of that name.
        make_context: Makes the context of each piece of work from the messages it handles.
        batch: Whether it takes lists.
        arguments: What else it is called with, by name.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        make_context: MakeContext,
        *,
        batch: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        check_function(function)
        self._function = function
        self._takes_context = _CONTEXT in inspect.signature(function).parameters
        self._make_context = make_context
        self._batch = batch
        self._arguments = arguments or {}

    def handle(self, messages: tuple[Message, ...]) -> Sequence[Message]:
        """Call the function."""
        ctx = self._make_context(messages)
        try:
            with ctx.work.working():
                return left_over(ctx, self._called(ctx, messages))
        except RunOver:
            return ()

    def _called(self, ctx: AgentContext, messages: tuple[Message, ...]) -> Any:
        own = {_CONTEXT: ctx} if self._takes_context else {}
        result = self._function(list(messages) if self._batch else messages[0], **self._arguments, **own)
        several = result if isinstance(result, list | tuple) else [result]
        if several and all(isinstance(each, Message) for each in several):
            for message in several:
                ctx.post(message)
            result = None
        asked = ctx.message
        if asked is not None and asked.reply_to is not None and result is not None and not ctx.replied:
            ctx.reply(result)
            return result
        # Nobody asked: it may be anything, and is not recorded.
        return None

    def is_done(self, message: Message) -> bool:
        """Ask for the durable run of the message, if the function can have one."""
        return self._takes_context and self._make_context((message,)).work.over() is not None

    def refusal(self, message: Message, error: BaseException) -> Message | None:
        """See the protocol."""
        return self._make_context((message,)).refusal(error)

    def discreet(self, text: str) -> str:
        """Return the text: a plain function has no references of its own."""
        return text

    def beat(self) -> None:
        """A plain function has no liveness of its own."""

    def recover(self) -> None:
        """A plain function keeps no state."""


def left_over(ctx: AgentContext, result: Any, degradation: Degradation | None = None) -> Leaving:
    """End the durable run of a piece of work, if it has one, and return what leaves in another way."""
    outbox = list(ctx.outbox)
    left = Leaving(ctx.work.finish(result, outbox, degradation))
    left.gone = len(outbox) - len(left)
    return left


def check_function(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Refuse a function that cannot handle messages.

    Returns:
        The parameters that are left for the DAG: all but the message and ``ctx``.

    Raises:
        ConfigurationError: It is async, or takes no message by position.
    """
    name = getattr(function, "__name__", type(function).__name__)
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    takes_message = bool(parameters) and parameters[0].kind in positional
    rest = parameters[1:]
    if not takes_message or any(each.kind not in by_name for each in rest):
        raise ConfigurationError(
            f"{name!r} cannot handle messages: it must take the message first, then ctx if it wants it, and what "
            f"the DAG gives it by name; it takes {inspect.signature(function)}"
        )
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"{name!r} cannot handle messages: it is async")
    return [parameter for parameter in rest if parameter.name != _CONTEXT]
