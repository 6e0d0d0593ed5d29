"""Messages between the tasks of one DAG run, over XCom alone: no store, no lease, no ack.

::

    @task
    def scan():
        with outbox() as out:
            out.send("audit", {"name": "left-pad"})


    @task
    def audit():
        return [message.data["name"] for message in received()]


    scan() >> audit()

One task writes, at one key; any task after it reads. What that means:

- Messages arrive when the task that sent them has succeeded. What a failed try said is gone with the next one.
- A task that runs again reads the same messages again. Nothing is acked, given to one reader only, retried by itself,
  redriven, delayed or put into dead letters; priorities and ordering keys mean nothing.
- Nobody can answer: a DAG has no way back. Requests are refused, as are topics; both need a store.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from airflow_agentic.errors import InvalidMessage, UndecodableMessage
from airflow_agentic.messaging.codec import decode, encode
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.xcom import MARK

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

OUTBOX_KEY = "agentic_outbox"
"""XCom key of what a task sent."""

_OUTBOX = "outbox"
_EVERYONE = "all"
_NEEDS_A_STORE = frozenset({Kind.REQUEST, Kind.RESPONSE, Kind.HEARTBEAT})
_log = logging.getLogger(__name__)


class Outbox:
    """What one try of a task says. A context manager: the messages leave when its block ends without an error.

    Args:
        context: The task's context; by default that of the running task.
        source: Who says it; default ``dag_id.task_id``.

    Attributes:
        messages: What was said so far.
    """

    def __init__(self, context: Context | None = None, source: str | None = None) -> None:
        from airflow_agentic import runtime
        from airflow_agentic.agents.context import AgentContext

        self.messages: list[Message] = []
        self._context = _running(context)
        run = runtime.identity(self._context)
        self._agent = AgentContext(source or f"{run.dag_id}.{run.task_id}", run=run)
        # The same words in another block of this try are another message.
        self._said = {message.id for message in _posted(self._context)}

    def send(
        self,
        task_id: str,
        data: Any = None,
        *,
        type: str = "agentic.message",  # noqa: A002  # CloudEvents' own name
        subject: str | None = None,
        key: str | None = None,
    ) -> Message:
        """Say something to a task that comes after this one.

        Args:
            task_id: Which; a mapped one reads it in each of its instances.
            data: Any JSON value or pydantic model.
            type: What happened or is wanted.
            subject: What it is about.
            key: Names the message within this task, for content that differs between retries (a time, a random
                number). By default the content names it.

        Returns:
            The message as it will leave.

        Raises:
            InvalidMessage: The data is not JSON, or no such task comes after this one.
        """
        while True:
            message = self._agent.send(task_id, data, type=type, subject=subject, key=key)
            if message.id not in self._said:
                break
        _check(message, self._context)
        self.messages.append(message)
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.messages:
            post(self.messages, self._context)


def outbox(context: Context | None = None, *, source: str | None = None) -> Outbox:
    """Open what the running task writes messages into, for a ``with`` block.

    Args:
        context: The task's context; by default that of the running task.
        source: Who says it; default ``dag_id.task_id``.
    """
    return Outbox(context, source)


def post(messages: Iterable[Message], context: Context | None = None) -> None:
    """Put messages into the outbox of the running task, behind those that are there.

    Args:
        messages: Each to a task that comes after this one (``recipient``), or to all that do (``audience="all"``):
            an agent's ``ctx.outbox``, for example.
        context: The task's context; by default that of the running task.

    Raises:
        InvalidMessage: One of them is for nobody who can read it, or of a kind that needs a store; none is posted.
    """
    context = _running(context)
    new = list(messages)
    for message in new:
        _check(message, context)
    ti = context["ti"]
    kept = _without_duplicates([*_posted(context), *new])
    entries = [_entry(message) for message in kept]
    ti.xcom_push(
        OUTBOX_KEY, {MARK: _OUTBOX, "task_id": ti.task_id, "map_index": _index(ti), "messages": entries}
    )


def received(task_ids: str | Sequence[str] | None = None, context: Context | None = None) -> list[Message]:
    """Read what the tasks before the running one said to it.

    Args:
        task_ids: Which tasks; default: those directly before this one, by name.
        context: The task's context; by default that of the running task.

    Returns:
        The messages, each once (by ``source`` and ``id``): task after task as named, instance after instance of a
        mapped one, and as they were sent. Those that have expired are left out.

    Raises:
        UndecodableMessage: An outbox was changed, or written by a newer version.
    """
    context = _running(context)
    ti = context["ti"]
    senders = sorted(context["task"].upstream_task_ids) if task_ids is None else _listed(task_ids)
    if not senders:
        return []
    states = ti.get_task_states(dag_id=ti.dag_id, task_ids=senders, run_ids=[ti.run_id]).get(ti.run_id, {})
    found: list[Message] = []
    for sender in senders:
        for value in ti.xcom_pull(task_ids=[sender], key=OUTBOX_KEY) or ():
            if value is not None and _succeeded(states, sender, value):
                found += _opened(value, sender)
    mine = [message for message in found if ti.task_id == message.recipient or message.audience == _EVERYONE]
    return [message for message in _without_duplicates(mine) if not _has_expired(message)]


def _running(context: Context | None) -> Context:
    if context is not None:
        return context
    from airflow.sdk import get_current_context

    return get_current_context()


def _posted(context: Context) -> list[Message]:
    """Return what this try posted already; Airflow has cleared what an earlier one did."""
    ti = context["ti"]
    value = ti.xcom_pull(task_ids=ti.task_id, map_indexes=_index(ti), key=OUTBOX_KEY)
    return [] if value is None else _opened(value, ti.task_id)


def _index(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)


def _listed(task_ids: str | Sequence[str]) -> list[str]:
    return [task_ids] if isinstance(task_ids, str) else list(dict.fromkeys(task_ids))


def _check(message: Message, context: Context) -> None:
    if (
        message.topic is not None
        or message.audience not in (None, _EVERYONE)
        or message.kind in _NEEDS_A_STORE
    ):
        raise InvalidMessage(
            f"a {message.kind} for {message.address} needs a store: within a DAG run a notification or an error goes "
            "to a task (recipient=) or to all that come after this one (audience='all')"
        )
    if message.recipient is None:
        return
    after = context["task"].get_flat_relative_ids(upstream=False)
    if message.recipient not in after:
        near = difflib.get_close_matches(message.recipient, after, n=1)
        hint = (
            f"did you mean {near[0]!r}?" if near else f"those that do: {', '.join(sorted(after)) or 'none'}"
        )
        raise InvalidMessage(f"no task {message.recipient!r} comes after {context['ti'].task_id!r}; {hint}")


def _entry(message: Message) -> dict[str, str]:
    """Return a message as the outbox holds it: for people, and the very bytes that the digest is of."""
    envelope = encode(message)
    return {
        "id": message.id,
        "to": message.address,
        "type": message.type,
        "sha256": hashlib.sha256(envelope).hexdigest(),
        "envelope": envelope.decode(),
    }


def _opened(value: Any, sender: str) -> list[Message]:
    try:
        entries = [
            (str(entry["id"]), entry["envelope"].encode(), entry["sha256"]) for entry in value["messages"]
        ]
    except (AttributeError, KeyError, TypeError):
        raise UndecodableMessage(
            f"XCom {OUTBOX_KEY!r} of task {sender!r} is no outbox; clear that task"
        ) from None
    for name, envelope, digest in entries:
        if hashlib.sha256(envelope).hexdigest() != digest:
            raise UndecodableMessage(
                f"message {name} in XCom {OUTBOX_KEY!r} of task {sender!r} is not what was sent: somebody changed it; "
                "clear that task, so that it is sent anew"
            )
    return [decode(envelope) for _, envelope, _ in entries]


def _succeeded(states: dict[str, Any], sender: str, value: Any) -> bool:
    if not isinstance(value, dict):
        return True  # which is told of when it is opened
    index = value.get("map_index", -1)
    return str(states.get(sender if index < 0 else f"{sender}_{index}")) == "success"


def _without_duplicates(messages: Iterable[Message]) -> list[Message]:
    first: dict[tuple[str, str], Message] = {}
    for message in messages:
        first.setdefault((message.source, message.id), message)
    return list(first.values())


def _has_expired(message: Message) -> bool:
    if message.expires_at is None or message.expires_at > datetime.now(UTC):
        return False
    _log.warning("message %s expired at %s and is left out", message.id, message.expires_at)
    return True
