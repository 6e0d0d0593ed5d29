"""What an agent gets besides its task: who it works for, what it answers, and how it speaks."""

from __future__ import annotations

import json
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack

from airflow_agentic.agents.models import LanguageModel, OpenModel
from airflow_agentic.agents.transport import AsyncHttpTransport, HttpTransport
from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import ConfigurationError, InvalidMessage
from airflow_agentic.messaging import kinds
from airflow_agentic.messaging.bus import process_name
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.resilience import deadlines
from airflow_agentic.resilience.guard import Guard, spend

T = TypeVar("T")

_NAMESPACE = uuid.UUID("6f6b0e0e-5d3c-5a39-9a53-3a0a55a1c5f1")
_LONGEST_NAME = 800
_LONGEST_OWNER = 300  # as long as a store's column


@dataclass(frozen=True)
class RunIdentity:
    """One task of one DAG run, the same for all its retries.

    Attributes:
        dag_id: The DAG.
        run_id: The DAG run.
        task_id: The task; empty for the DAG run as a whole.
        map_index: Index of a mapped task, -1 otherwise.
        generation: Changes when a person clears the task, and not when Airflow retries it.
        try_number: The try, from 1.
        traceparent: Trace that the task belongs to (W3C Trace Context), if there is one.
        team: Who the DAG belongs to; what budgets of teams are counted by.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    generation: int = 0
    try_number: int = 1
    traceparent: str | None = field(default=None, compare=False)
    team: str = field(default="", compare=False)

    @property
    def correlation_id(self) -> str:
        """Shared by all messages that the DAG run sends of its own accord."""
        return f"{self.dag_id}:{self.run_id}"

    @property
    def key(self) -> str:
        """Names the piece of work across retries."""
        return json.dumps([self.dag_id, self.run_id, self.task_id, self.map_index, self.generation])

    @property
    def name(self) -> str:
        """The task for people, and what its messages say of where they come from: ``dag/run/task[map index]``."""
        parts = [self.dag_id, self.run_id, *([self.task_id] if self.task_id else [])]
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return ("/".join(parts) + mapped)[:_LONGEST_NAME]

    @property
    def owner(self) -> str:
        """Name of this process as a holder of leases: ``dag/run/task@host:pid``."""
        return self._owner(process_name())

    def owns(self, owner: str | None) -> bool:
        """Whether a holder of leases was a try of this task."""
        return owner is not None and owner == self._owner(owner.rpartition("@")[2])

    def _owner(self, process: str) -> str:
        return f"{self.name[: _LONGEST_OWNER - len(process) - 1]}@{process}"


@dataclass(frozen=True)
class Facilities:
    """What an agent may use beside messages and HTTP.

    Attributes:
        guards: Makes a guard of a policy, or its name, and a key.
        models: Opens a language model.
    """

    guards: Callable[[Policy | str, str], Guard] | None = None
    models: OpenModel | None = None


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
        self.outbox: list[Message] = []
        self.log = logging.getLogger(f"airflow_agentic.agent.{agent}")
        self.degraded: str | None = None
        self.replied = False
        self._http = http
        self._async_http = async_http
        self._sends_to = sends_to or {}
        self._facilities = facilities or Facilities()
        self._sent: Counter[str] = Counter()

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
        return self._say({"recipient": self._sends_to.get(recipient, recipient)}, data, key, envelope)

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
        return self._say({"topic": topic}, data, key, envelope)

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
        return self._say({"audience": audience}, data, key, envelope)

    def heartbeat(self, data: Any = None, *, key: str | None = None, **envelope: Unpack[Envelope]) -> Message:
        """Give a sign of life on the bus when this work is done; it is late after ``expires_in``.

        Args:
            data: Any JSON value or pydantic model.
            key: As for :meth:`send`.
            envelope: As for :meth:`send`.

        Raises:
            InvalidMessage: The data or the envelope cannot be sent.
        """
        return self._say({}, data, key, {**envelope, "kind": Kind.HEARTBEAT})

    def reply(self, data: Any) -> Message:
        """Answer the message being handled; whoever asked gets it when this work is done.

        An agent's result is sent by itself; this is for an answer that differs from it.

        Raises:
            InvalidMessage: No single message is being handled, nobody waits for an answer, or the data cannot be sent.
        """
        if self.message is None:
            raise InvalidMessage("there is no message to reply to: the task did not come as one message")
        self.replied = True
        draft = kinds.answer(self.message, self.agent, data)
        message = self._completed(draft, self._derived_id(draft, self.message, "reply"))
        self.outbox.append(message)
        return message

    def refusal(self, error: BaseException, discreet: Callable[[str], str] = str) -> Message | None:
        """Return the error that answers the message being handled; ``None`` if nobody waits for an answer.

        It is not put into the outbox: what failed sends nothing else.

        Args:
            error: Why there will be no other answer.
            discreet: Takes secrets out of a text.
        """
        if self.message is None or self.message.reply_to is None:
            return None
        draft = kinds.refusal(self.message, self.agent, error, discreet)
        return self._completed(draft, self._derived_id(draft, self.message, "refusal"))

    def post(self, message: Message) -> Message:
        """Send a message that was made elsewhere when this work is done; it keeps its id.

        Returns:
            The message as it will leave: it belongs to this conversation, unless it says another one.
        """
        cause = self.message
        changed: dict[str, Any] = {}
        if cause is not None and message.causation_id is None:
            changed["causation_id"] = cause.id
        if message.correlation_id == message.id:
            changed["correlation_id"] = self._conversation() or message.id
        made = self._completed(message.model_copy(update=changed), message.id)
        self.outbox.append(made)
        return made

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

    def _say(
        self, address: Mapping[str, str], data: Any, key: str | None, envelope: Mapping[str, Any]
    ) -> Message:
        said = dict(envelope)
        lasts = said.pop("expires_in", None)
        if lasts is not None:
            span = lasts if isinstance(lasts, timedelta) else timedelta(seconds=lasts)
            said["expires_at"] = datetime.now(UTC) + span
        elif said.get("kind") is Kind.REQUEST:
            # Whoever waits for this work waits no longer for what it asks of others.
            said["expires_at"] = deadlines.ends_at()
        draft = Message(source=self.agent, data=data, **address, **said)
        cause = self.message
        identity = draft.id if self.run is None and cause is None else self._derived_id(draft, cause, key)
        about = {
            "correlation_id": self._conversation() or draft.id,
            "causation_id": cause.id if cause else None,
        }
        message = self._completed(draft.model_copy(update=about), identity)
        self.outbox.append(message)
        return message

    def _conversation(self) -> str | None:
        if self.message is not None:
            return self.message.correlation_id
        return self.run.correlation_id if self.run else None

    def _completed(self, draft: Message, identity: str) -> Message:
        """Give a message its id and where it comes from; the latter is no part of the former."""
        cause = self.message
        trace = draft.traceparent or (cause and cause.traceparent) or (self.run and self.run.traceparent)
        run = draft.run or (self.run and self.run.name)
        return draft.model_copy(update={"id": identity, "run": run, "traceparent": trace})

    def _derived_id(self, draft: Message, cause: Message | None, key: str | None) -> str:
        work = [self.run.key if self.run else "", cause.id if cause else "", self.agent]
        content = key if key is not None else json.dumps(draft.data, sort_keys=True)
        name = json.dumps([*work, draft.recipient or draft.address, draft.type, draft.subject, content])
        # The same words twice in one piece of work are two messages.
        self._sent[name] += 1
        return str(uuid.uuid5(_NAMESPACE, f"{name}#{self._sent[name]}"))
