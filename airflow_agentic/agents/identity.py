"""Who works: the task of a DAG run, and the names of its pieces of work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from airflow_agentic.messaging.bus import process_name
from airflow_agentic.messaging.message import Message

_LONGEST_NAME = 800
_LONGEST_OWNER = 300  # as long as a store's column
_LONGEST_KEY = 460  # leaves room for ``#2`` and for forks


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

    @property
    def holder(self) -> str:
        """Name of this try as the holder of a durable run: ``dag/run/task try 2@host:pid``."""
        return self._owner(process_name(), self.try_number)

    def replaces(self, holder: str) -> bool:
        """Whether the holder of a durable run was an earlier try of this task, or this one in another process.

        A process of an earlier try that comes late, since nobody was there to end it, does not replace the later one.
        """
        task, _, process = holder.rpartition("@")
        number = task.rpartition(" ")[2]
        if not (number.isascii() and number.isdecimal()):
            return False
        return int(number) <= self.try_number and holder == self._owner(process, int(number))

    def _owner(self, process: str, try_number: int | None = None) -> str:
        end = f"@{process}" if try_number is None else f" try {try_number}@{process}"
        return f"{self.name[: _LONGEST_OWNER - len(end)]}{end}"


def task_key(agent: str, run: RunIdentity) -> str:
    """Return the key of the durable run of a task: ``agent/dag/run/task``, and ``/map index`` of a mapped one.

    It is the same for retries, and after the task was cleared.
    """
    mapped = [str(run.map_index)] if run.map_index >= 0 else []
    return _short("/".join([agent, run.dag_id, run.run_id, *([run.task_id] if run.task_id else []), *mapped]))


def messages_key(agent: str, messages: Sequence[Message]) -> str:
    """Return the key of the durable run of what came through a mailbox: ``agent/message/source/id``.

    Of several that are handled as one piece of work: ``agent/messages/digest`` of their sources and ids.
    """
    if len(messages) == 1:
        return _short(f"{agent}/message/{messages[0].source}/{messages[0].id}")
    names = json.dumps(sorted([each.source, each.id] for each in messages))
    return _short("/".join([agent, "messages", hashlib.sha256(names.encode()).hexdigest()[:24]]))


def _short(key: str) -> str:
    """Return a key that is not too long for a store: the end of a longer one is its digest."""
    if len(key) <= _LONGEST_KEY:
        return key
    return f"{key[: _LONGEST_KEY - 17]}~{hashlib.sha256(key.encode()).hexdigest()[:16]}"
