"""How the messages of a piece of work are made: their ids, where they belong to, and when they leave."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_agentic.agents.durable import DurableWork
from airflow_agentic.agents.identity import RunIdentity
from airflow_agentic.errors import InvalidMessage
from airflow_agentic.messaging import kinds
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.resilience import deadlines

_NAMESPACE = uuid.UUID("6f6b0e0e-5d3c-5a39-9a53-3a0a55a1c5f1")


class Speaker:
    """Makes the messages of one piece of work.

    What is said in a durable step leaves with the step; everything else, and heartbeats, when the work is done.

    Args:
        agent: Name of the agent: the ``source``.
        run: The task it works in, if any.
        messages: What it handles.
        work: Its durable run.

    Attributes:
        outbox: Messages that leave when the work is done.
    """

    def __init__(
        self, agent: str, run: RunIdentity | None, messages: Sequence[Message], work: DurableWork
    ) -> None:
        self._agent = agent
        self._run = run
        self._cause = messages[0] if len(messages) == 1 else None
        self._work = work
        self._sent: Counter[str] = Counter()
        self.outbox: list[Message] = []

    def say(
        self, address: Mapping[str, str], data: Any, key: str | None, envelope: Mapping[str, Any]
    ) -> Message:
        """Make a message of the agent's own, and let it leave; see :meth:`airflow_agentic.agents.AgentContext.send`."""
        said = dict(envelope)
        lasts = said.pop("expires_in", None)
        if lasts is not None:
            span = lasts if isinstance(lasts, timedelta) else timedelta(seconds=lasts)
            said["expires_at"] = datetime.now(UTC) + span
        elif said.get("kind") is Kind.REQUEST:
            # Whoever waits for this work waits no longer for what it asks of others.
            said["expires_at"] = deadlines.ends_at()
        draft = Message(source=self._agent, data=data, **address, **said)
        step, cause = self._work.step, self._cause
        is_unnamed = self._run is None and cause is None and step is None
        identity = draft.id if is_unnamed else self._derived_id(draft, key, step.name if step else "")
        about = {
            "correlation_id": self._conversation() or draft.id,
            "causation_id": cause.id if cause else None,
        }
        return self._leaves(self._completed(draft.model_copy(update=about), identity))

    def reply(self, data: Any) -> Message:
        """Answer the message that is handled.

        Raises:
            InvalidMessage: No single message is handled, nobody waits for an answer, or the data cannot be sent.
        """
        if self._cause is None:
            raise InvalidMessage("there is no message to reply to: the task did not come as one message")
        draft = kinds.answer(self._cause, self._agent, data)
        # Whether in a step or not: it is the one answer.
        return self._leaves(self._completed(draft, self._derived_id(draft, "reply")))

    def refusal(self, error: BaseException, discreet: Callable[[str], str]) -> Message | None:
        """Return the error that answers the message; it does not leave by itself."""
        if self._cause is None or self._cause.reply_to is None:
            return None
        draft = kinds.refusal(self._cause, self._agent, error, discreet)
        return self._completed(draft, self._derived_id(draft, "refusal"))

    def post(self, message: Message) -> Message:
        """Let a message leave that was made elsewhere."""
        changed: dict[str, Any] = {}
        if self._cause is not None and message.causation_id is None:
            changed["causation_id"] = self._cause.id
        if message.correlation_id == message.id:
            changed["correlation_id"] = self._conversation() or message.id
        return self._leaves(self._completed(message.model_copy(update=changed), message.id))

    # -- inside ----------------------------------------------------------------------------------------

    def _leaves(self, message: Message) -> Message:
        step = self._work.step
        box = self.outbox if step is None or message.kind is Kind.HEARTBEAT else step.outbox
        box.append(message)
        return message

    def _conversation(self) -> str | None:
        if self._cause is not None:
            return self._cause.correlation_id
        return self._run.correlation_id if self._run else None

    def _completed(self, draft: Message, identity: str) -> Message:
        """Give a message its id and where it comes from; the latter is no part of the former."""
        cause, run = self._cause, self._run
        trace = draft.traceparent or (cause and cause.traceparent) or (run and run.traceparent)
        return draft.model_copy(
            update={"id": identity, "run": draft.run or (run and run.name), "traceparent": trace}
        )

    def _derived_id(self, draft: Message, key: str | None, step: str = "") -> str:
        cause = self._cause
        work = [self._run.key if self._run else "", cause.id if cause else "", self._agent]
        if step:
            # Steps that are finished are not done again: each counts for itself.
            work += [self._work.run.key, step]
        content = key if key is not None else json.dumps(draft.data, sort_keys=True)
        name = json.dumps([*work, draft.recipient or draft.address, draft.type, draft.subject, content])
        # The same words twice in one piece of work are two messages.
        self._sent[name] += 1
        return str(uuid.uuid5(_NAMESPACE, f"{name}#{self._sent[name]}"))
