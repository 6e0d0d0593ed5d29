"""What an agent gets besides its task: who it works for, what it answers, and how it speaks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from airflow_agentic.agents.durable import Durability, DurableWork
from airflow_agentic.agents.identity import RunIdentity
from airflow_agentic.agents.models import LanguageModel, OpenModel
from airflow_agentic.agents.speaking import Speaker
from airflow_agentic.agents.transport import AsyncHttpTransport, HttpTransport
from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.resilience import deadlines
from airflow_agentic.resilience.guard import Guard, spend

if TYPE_CHECKING:
    from airflow_agentic.persistence import Run
    from airflow_agentic.persistence.session import OnAmbiguous, OnChange

__all__ = ["AgentContext", "Envelope", "Facilities", "RunIdentity"]

T = TypeVar("T")


@dataclass(frozen=True)
class Facilities:
    """What an agent may use beside messages and HTTP.

    Attributes:
        guards: Makes a guard of a policy, or its name, and a key.
        models: Opens a language model.
        runs: How durable runs are kept.
    """

    guards: Callable[[Policy | str, str], Guard] | None = None
    models: OpenModel | None = None
    runs: Durability | None = None


class Envelope(TypedDict, total=False):
    """What can be said of a message besides its address and its data.

    Attributes:
        type: What happened or is wanted.
        kind: Request, response, notification (default), ...
        subject: What it is about.
        reply_to: Mailbox for an answer; a request needs it.
        ordering_key: Messages of one mailbox with the same key are handled in order, one at a time.
        priority: 0 to 9; higher ones are received first. Default 4.
        expires_in: Time after which it is of no use any more, as a timedelta or in seconds.
    """

    type: str
    kind: Kind
    subject: str | None
    reply_to: str | None
    ordering_key: str | None
    priority: int
    expires_in: timedelta | float | None


class AgentContext:
    """Given to ``process`` with the task.

    Messages sent here wait in ``outbox`` until the work is done: they leave in one commit with the ack of
    what was handled, or not at all. Within a DAG run their ids are derived from the work and the content, so
    a retry of the same task does not send twice. They say which task sent them, and belong to the trace of the
    message that is being handled, or of the task.

    Steps, events and waits are kept in the durable run of this piece of work, which begins with the first of them: after
    a crash, a retry or a clear the agent is called again from its beginning, finished steps answer from the journal, and
    what was sent in them is not sent again.

    Args:
        agent: Name of the agent; the ``source`` of what it sends.
        run: The task it works in, if any.
        messages: What it handles, when the task came through a mailbox.
        config: The agent's validated configuration.
        http: Makes a transport for an Airflow connection; given by the runtime.
        async_http: The same for asyncio.
        sends_to: Names that the agent's code sends to, and the mailboxes that are meant.
        facilities: Guards and language models; given by the runtime.

    Attributes:
        outbox: Messages that leave when the work is done.
        log: Logger of the agent.
        degraded: Reason given to :meth:`degrade`, or ``None``.
        replied: Whether :meth:`reply` was called.
        work: The durable run behind :meth:`step` and the others, for whoever runs the agent.
    """

    def __init__(
        self,
        agent: str,
        *,
        run: RunIdentity | None = None,
        messages: tuple[Message, ...] = (),
        config: Any = None,
        http: Callable[[str], HttpTransport] | None = None,
        async_http: Callable[[str], AsyncHttpTransport] | None = None,
        sends_to: Mapping[str, str] | None = None,
        facilities: Facilities | None = None,
    ) -> None:
        self.agent = agent
        self.run = run
        self.messages = messages
        self.config = config
        self.log = logging.getLogger(f"airflow_agentic.agent.{agent}")
        self.degraded: str | None = None
        self.replied = False
        self._http = http
        self._async_http = async_http
        self._sends_to = sends_to or {}
        self._facilities = facilities or Facilities()
        self.work = DurableWork(agent, self._facilities.runs, run, messages)
        self._speaker = Speaker(agent, run, messages, self.work)
        self.outbox = self._speaker.outbox

    @property
    def message(self) -> Message | None:
        """The message being handled, or ``None`` if the task did not come as one message."""
        return self.messages[0] if len(self.messages) == 1 else None

    def send(
        self, recipient: str, data: Any, *, key: str | None = None, **envelope: Unpack[Envelope]
    ) -> Message:
        """Say something to another agent when this work is done.

        Args:
            recipient: The mailbox, or a name that the project file leads to one (``sends_to``).
            data: Any JSON value or pydantic model.
            key: Names the message within this work, for content that differs between retries (a time, a
                random number). By default the content names it.
            envelope: ``type``, ``kind``, ``subject``, ``reply_to``, ``ordering_key``, ``priority``, ``expires_in``;
                see :class:`Envelope`.

        Returns:
            The message as it will leave.

        Raises:
            InvalidMessage: The recipient's name, the data or the envelope cannot be sent.
        """
        return self._speaker.say({"recipient": self._sends_to.get(recipient, recipient)}, data, key, envelope)

    def publish(
        self, topic: str, data: Any, *, key: str | None = None, **envelope: Unpack[Envelope]
    ) -> Message:
        """Tell whoever subscribed to a topic when this work is done; see :meth:`send`.

        Args:
            topic: What it is about: words with dots between them.
            data: Any JSON value or pydantic model.
            key: As for :meth:`send`.
            envelope: As for :meth:`send`.

        Raises:
            InvalidMessage: The topic, the data or the envelope cannot be sent.
        """
        return self._speaker.say({"topic": topic}, data, key, envelope)

    def broadcast(
        self, audience: str, data: Any, *, key: str | None = None, **envelope: Unpack[Envelope]
    ) -> Message:
        """Tell a group when this work is done; see :meth:`send`.

        Args:
            audience: ``all``, ``role:NAME`` or ``tag:NAME``.
            data: Any JSON value or pydantic model.
            key: As for :meth:`send`.
            envelope: As for :meth:`send`.

        Raises:
            InvalidMessage: The audience, the data or the envelope cannot be sent.
        """
        return self._speaker.say({"audience": audience}, data, key, envelope)

    def heartbeat(self, data: Any = None, *, key: str | None = None, **envelope: Unpack[Envelope]) -> Message:
        """Give a sign of life on the bus when this work is done; it is late after ``expires_in``.

        Args:
            data: Any JSON value or pydantic model.
            key: As for :meth:`send`.
            envelope: As for :meth:`send`.

        Raises:
            InvalidMessage: The data or the envelope cannot be sent.
        """
        return self._speaker.say({}, data, key, {**envelope, "kind": Kind.HEARTBEAT})

    def reply(self, data: Any) -> Message:
        """Answer the message being handled; whoever asked gets it when this work is done.

        An agent's result is sent by itself; this is for an answer that differs from it.

        Raises:
            InvalidMessage: No single message is being handled, nobody waits for an answer, or the data cannot be sent.
        """
        message = self._speaker.reply(data)
        self.replied = True
        return message

    def refusal(self, error: BaseException, discreet: Callable[[str], str] = str) -> Message | None:
        """Return the error that answers the message being handled; ``None`` if nobody waits for an answer.

        It is not put into the outbox: what failed sends nothing else.

        Args:
            error: Why there will be no other answer.
            discreet: Takes secrets out of a text.
        """
        return self._speaker.refusal(error, discreet)

    def post(self, message: Message) -> Message:
        """Send a message that was made elsewhere when this work is done; it keeps its id.

        Returns:
            The message as it will leave: it belongs to this conversation, unless it says another one.
        """
        return self._speaker.post(message)

    # -- durable ---------------------------------------------------------------------------------------

    @property
    def durable(self) -> Run:
        """The durable run of this piece of work, opened now if it is not open yet.

        Raises:
            ConfigurationError: Its persistence is off, or there is no store.
            RunTaken: Somebody else works on it.
            JournalCorrupt: It is damaged.
        """
        return self.work.run

    def step(
        self,
        name: str,
        function: Callable[..., T],
        *args: Any,
        idempotency_key: str | None = None,
        on_ambiguous: OnAmbiguous | None = None,
        on_change: OnChange | None = None,
        pure: bool = False,
        **kwargs: Any,
    ) -> T:
        """Call a function once in the life of this piece of work; afterwards its result comes from the journal.

        ``ctx.step("charge", charge, order)``. What is sent within it leaves with its result, or not at all. It cannot wait.
        See :meth:`airflow_agentic.persistence.Run.step` for the arguments and errors.
        """
        how = _options(idempotency_key, on_ambiguous, on_change, pure=pure)
        return self.durable.step(name, function, *args, **how, **kwargs)

    async def astep(
        self,
        name: str,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        idempotency_key: str | None = None,
        on_ambiguous: OnAmbiguous | None = None,
        on_change: OnChange | None = None,
        pure: bool = False,
        **kwargs: Any,
    ) -> T:
        """Do what :meth:`step` does, with a coroutine function."""
        how = _options(idempotency_key, on_ambiguous, on_change, pure=pure)
        return await self.durable.astep(name, function, *args, **how, **kwargs)

    def emit(self, event: Any, *, key: str | None = None, expected: int | None = None) -> int:
        """Record an event, which changes :attr:`state`; see :meth:`airflow_agentic.persistence.Run.emit`."""
        return self.durable.emit(event, key=key, expected=expected)

    @property
    def state(self) -> Any:
        """What all events of this piece of work come to: a copy."""
        return self.durable.state

    def checkpoint(self, name: str) -> int:
        """Give this moment a name, to look at it or fork from it later; return its version."""
        return self.durable.checkpoint(name)

    def expect(self, total: int) -> None:
        """Say how many steps there will be, so that people see how far it is."""
        self.durable.expect(total)

    def interrupt(
        self,
        question: str,
        schema: Mapping[str, Any] | None = None,
        *,
        name: str = "question",
        deadline: datetime | None = None,
        details: str = "",
    ) -> Any:
        """Ask a person; return the answer. Until there is one the task holds no slot, and a message is given back.

        A task asks its first question on Airflow's page of required actions; the others, and those about messages, are
        answered through ``store.runs.by_hand.answer`` or the command line.

        Args:
            question: What to ask.
            schema: JSON Schema of the answer; the properties of a flat object are fields. Default: any text.
            name: Names the question; asked again, it is another one: ``name#2``.
            deadline: When nobody needs to answer any more. That of the first time counts.
            details: What whoever answers should see below the question, as Markdown: lines of a log, links. At most 10,000
                characters.

        Raises:
            ReplyTimeout: Nobody answered in time.
            NotRecordable: The details are no text, or too long; the deadline has no time zone.
        """
        return self.work.interrupt(question, schema, name, deadline, details)

    def sleep_until(self, moment: datetime, *, name: str = "sleep") -> None:
        """Go on at a time; until then the task holds no slot, and a message is given back.

        Args:
            moment: With its time zone. The first one that was given counts.
            name: Names the wait; asked again, it is another one: ``name#2``.

        Raises:
            NotRecordable: The time has no zone.
        """
        self.durable.sleep_until(moment, name=name)

    def wait_for_message(self, mailbox: str, *, timeout: timedelta | float | None = None) -> Message:
        """Take the next message of a mailbox; until there is one the task holds no slot.

        It is recorded, and acked afterwards: a crash in between loses nothing and takes nothing twice.

        Args:
            mailbox: Which. It should be this agent's alone: whoever else receives there may get the message.
            timeout: How long to wait, in seconds or as a timedelta, from the first time on. Default: for ever.

        Raises:
            ReplyTimeout: There was none in time.
        """
        return self.work.wait_for_message(mailbox, timeout)

    # -- around the work -------------------------------------------------------------------------------

    def degrade(self, reason: str) -> None:
        """Say that the result is usable but not what it should be; the agent's state becomes ``degraded``."""
        self.degraded = reason

    def guard(self, policy: Policy | str, key: str) -> Guard:
        """Return a guard that all workers share: ``with ctx.guard("llm", "tool:search").attempt(): …``, or as a decorator.

        Args:
            policy: One of `policies` of the project file, by name, or a value.
            key: What is guarded: ``tool:NAME``, ``service:NAME``, ``conn:NAME``.

        Raises:
            ConfigurationError: This context was made without guards, or there is no such policy.
        """
        if self._facilities.guards is None:
            raise ConfigurationError(
                f"agent {self.agent!r} guards {key!r}, and this context has no guards. Run it through RunAgentOperator, "
                "or give the context facilities=Facilities(guards=…)."
            )
        return self._facilities.guards(policy, key)

    def call(
        self, function: Callable[..., T], *args: Any, policy: Policy | str, key: str, **kwargs: Any
    ) -> T:
        """Call a tool or a service behind guards; see :meth:`guard`.

        Args:
            function: What to call, with ``args`` and ``kwargs``.
            args: By position.
            policy: As for :meth:`guard`.
            key: As for :meth:`guard`.
            kwargs: By name.

        Raises:
            NotAdmitted: A guard refuses. If the agent lets it pass, its task waits and its message comes back uncounted.
            DeadlineExceeded: It took too long.
            Exception: Whatever the function raised last.
        """
        return self.guard(policy, key).call(function, *args, **kwargs)

    async def acall(
        self,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        policy: Policy | str,
        key: str,
        **kwargs: Any,
    ) -> T:
        """Do what :meth:`call` does, for coroutine functions."""
        return await self.guard(policy, key).acall(function, *args, **kwargs)

    def spend(self, *, tokens: int = 0, cost_usd: float = 0.0, calls: int = 0) -> None:
        """Say what the work took: it counts for the budgets of all guards around it.

        Args:
            tokens: Tokens of models.
            cost_usd: US dollars.
            calls: Calls, beyond the one that each guard counts by itself.
        """
        spend(tokens=tokens, cost_usd=cost_usd, calls=calls)

    @property
    def remaining(self) -> float | None:
        """How many seconds are left for the work; ``None`` if there is no deadline."""
        return deadlines.remaining()

    def check(self) -> None:
        """Return if the work may go on; for long loops.

        Raises:
            WorkCancelled: Somebody told it to stop: the task was killed.
            DeadlineExceeded: Its time is over.
        """
        deadlines.check()

    def http(self, conn_id: str) -> HttpTransport:
        """Return a transport for the HTTP connection ``conn_id``.

        Raises:
            ConfigurationError: This context was made without one.
        """
        if self._http is None:
            raise ConfigurationError(
                f"agent {self.agent!r} needs the HTTP connection {conn_id!r}, and this context has no transport. "
                "Run it through RunAgentOperator, or give the context http= (airflow_agentic.testing.FakeHttp)."
            )
        return self._http(conn_id)

    def async_http(self, conn_id: str) -> AsyncHttpTransport:
        """Return an asyncio transport for the HTTP connection ``conn_id``.

        Raises:
            ConfigurationError: This context was made without one.
        """
        if self._async_http is None:
            raise ConfigurationError(
                f"agent {self.agent!r} needs the HTTP connection {conn_id!r}, and this context has no asyncio "
                "transport. Run it through RunAgentOperator(deferrable=True), or give the context async_http=."
            )
        return self._async_http(conn_id)

    def model(self, conn_id: str, model: str | None = None) -> LanguageModel:
        """Return the language model of a connection.

        Args:
            conn_id: An Airflow connection that pydantic-ai's hooks know; of type ``pydanticai_agentic`` it is guarded.
            model: ``provider:name``; default that of the connection.

        Raises:
            ConfigurationError: This context was made without models, or the connection is of another type.
        """
        if self._facilities.models is None:
            raise ConfigurationError(
                f"agent {self.agent!r} asks the model of connection {conn_id!r}, and this context has no models. Run it "
                "through RunAgentOperator, or give the context facilities=Facilities(models=…)."
            )
        return self._facilities.models(conn_id, model, self.agent)


def _options(
    idempotency_key: str | None, on_ambiguous: OnAmbiguous | None, on_change: OnChange | None, *, pure: bool
) -> dict[str, Any]:
    return {
        "idempotency_key": idempotency_key,
        "on_ambiguous": on_ambiguous,
        "on_change": on_change,
        "pure": pure,
    }
