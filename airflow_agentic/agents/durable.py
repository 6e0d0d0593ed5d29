"""The durable run of a piece of work: opened when it is used first, ended with the work."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_agentic.agents.identity import RunIdentity, messages_key, task_key
from airflow_agentic.errors import (
    AgenticError,
    AmbiguousStep,
    ConfigurationError,
    JournalCorrupt,
    NotAdmitted,
    ReplyTimeout,
    RunTaken,
)
from airflow_agentic.messaging.bus import MessageBus, is_gone
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.persistence import Interrupted, RunSuspended, StateSchema
from airflow_agentic.persistence.naming import numbered
from airflow_agentic.persistence.records import QUESTION, RecordType

if TYPE_CHECKING:
    from airflow_agentic.persistence import Run, RunOptions, Runs, Step
    from airflow_agentic.resilience.fallback import Degradation

__all__ = ["WAITS", "Durability", "DurableWork", "RunOver"]

_log = logging.getLogger(__name__)

OFF = "off"

WAITS = (RunSuspended, AmbiguousStep)
"""What ends a go at work that waits, and has neither failed nor come to its end."""


class RunOver(BaseException):
    """This work came to its end before: nothing is done again. Not an exception that code catches by accident.

    Attributes:
        result: What it came to.
        degradation: Why that is not what it should be, as a map; ``None`` if it is.
    """

    def __init__(self, key: str, result: Any, degradation: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"the run {key!r} is finished")
        self.result = result
        self.degradation = degradation


@dataclass(frozen=True)
class Durability:
    """How the durable runs of an agent are kept.

    Attributes:
        runs: Returns the runs of the store, kept in a way, for somebody who knows which owners of leases are gone, and who
            has a name of his own, or none.
        bus: That of the same store: what runs wait for comes through it.
        persistence: ``hybrid``, ``events``, ``snapshot``, ``checkpoint`` or ``off``.
        schema: How the events of the agent become its state.
        key: Of the run; default: made of the task, or of the messages.
    """

    runs: Callable[[RunOptions, Callable[[str], bool], str | None], Runs]
    bus: MessageBus
    persistence: str = "hybrid"
    schema: StateSchema = field(default_factory=StateSchema)
    key: str | None = None


class DurableWork:
    """The durable run of one piece of work. Threads may share it.

    Args:
        agent: Whose work it is.
        durability: How it is kept; ``None`` if it cannot be.
        identity: The task it works in, if any.
        messages: What it handles, if it came through a mailbox.

    Attributes:
        discreet: Takes secrets out of the texts of errors that are recorded; set before the run is used.
    """

    def __init__(
        self,
        agent: str,
        durability: Durability | None,
        identity: RunIdentity | None = None,
        messages: Sequence[Message] = (),
    ) -> None:
        self._agent = agent
        self._durability = durability
        self._identity = identity
        self._messages = messages
        self._run: Run | None = None
        self._has_ended = False
        self._lock = threading.RLock()
        self._asked: Counter[str] = Counter()
        self.discreet: Callable[[str], str] = str

    @property
    def run(self) -> Run:
        """The run, opened now if it is not open yet.

        Raises:
            ConfigurationError: There can be none here: the text says why, and what to do.
            RunOver: The work came to its end before.
            RunTaken: Somebody else works on it, or this try was given up.
            JournalCorrupt: It is damaged.
        """
        with self._lock:
            if self._run is None or self._has_ended:
                if self._has_ended:
                    raise RunTaken(
                        f"this try of agent {self._agent!r} has ended: its run is not open any more"
                    )
                self._run = self._opened()
            return self._run

    @property
    def step(self) -> Step | None:
        """The step of this run that the code is in; ``None`` if it is in none, or in that of another run."""
        if self._run is None:
            return None
        from airflow_agentic.persistence import current_step

        step = current_step()
        return step if step is not None and step.run == self._run.key else None

    # -- waiting ---------------------------------------------------------------------------------------

    def interrupt(
        self,
        question: str,
        schema: Mapping[str, Any] | None,
        name: str,
        deadline: datetime | None,
        details: str,
    ) -> Any:
        """Ask a person; see :meth:`airflow_agentic.agents.AgentContext.interrupt`."""
        run = self.run
        unique = self._unique(f"{QUESTION}{name}")
        try:
            answer = run.interrupt(question, schema, name=name, deadline=deadline, details=details)
        except Interrupted as waiting:
            until = waiting.deadline
            if until is None or run.now < until:
                raise
            run.once(RecordType.ANSWERED, unique, {"answer": None, "actor": "", "late": True})
            raise ReplyTimeout(f"nobody answered {question!r} until {until:%Y-%m-%d %H:%M:%S} UTC") from None
        if (run.recalled(RecordType.ANSWERED, unique) or {}).get("late"):
            raise ReplyTimeout(f"nobody answered {question!r} in time")
        return answer

    def wait_for_message(self, mailbox: str, timeout: timedelta | float | None) -> Message:
        """Take a message; see :meth:`airflow_agentic.agents.AgentContext.wait_for_message`."""
        from airflow_agentic.agents.awaiting import Awaited

        run = self.run
        if (step := self.step) is not None:
            raise ConfigurationError(f"step {step.name!r} cannot wait for a message: wait between steps")
        name = f"message:{mailbox}"
        self._asked[name] += 1
        return Awaited(run, self._required().bus, mailbox, self._asked[name]).taken(timeout)

    # -- how the work ends -----------------------------------------------------------------------------

    def over(self) -> RunOver | None:
        """Return how this work came to its end before, if it did. An agent that keeps nothing is asked for nothing."""
        if not self._can_be_kept:
            return None
        from airflow_agentic.persistence import RunStatus

        head = self._runs().known(self._key)
        if head is None or head.status != RunStatus.FINISHED:
            return None
        try:
            assert self.run is not None
        except RunOver as over:
            return over
        return None

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Tell the run how the work inside ends, unless it ends well: that is told by :meth:`finish`."""
        try:
            yield
        except BaseException as error:
            self.end(error)
            raise

    def end(self, error: BaseException) -> None:
        """Give the run back, as one that failed or waits. If it has ended already, nothing is done."""
        with self._lock:
            if self._has_ended:
                return
            self._has_ended = True
            run = self._run
        if run is None:
            return
        try:
            if not run.version or isinstance(error, RunTaken | RunOver | JournalCorrupt):
                pass  # Nothing is to be told of it, or not by us.
            elif isinstance(error, (NotAdmitted, *WAITS)):
                run.pause(str(error))
            else:
                run.fail(error)
        except AgenticError as fault:
            _log.warning("run %r: it cannot be recorded how this try ended: %s", run.key, fault)
        finally:
            run.close()

    @property
    def is_kept(self) -> bool:
        """Whether there is a run with something in it."""
        return self._run is not None and bool(self._run.version)

    def finish(
        self, result: Any, outbox: Sequence[Message], degradation: Degradation | None = None
    ) -> list[Message]:
        """End the run, in one commit with messages that leave.

        Args:
            result: What the work came to.
            outbox: What it sent.
            degradation: Why the result is not what it should be.

        Returns:
            The messages that have not left: all of them if there is no run with something in it.

        Raises:
            AgenticError: It cannot be recorded, or a message cannot leave. Nothing has left.
        """
        if not self.is_kept:
            self.end(RunOver("", None))
            return list(outbox)
        # A heartbeat is no delivery, and goes by itself.
        leaving = [each for each in outbox if each.kind is not Kind.HEARTBEAT]
        about: dict[str, Any] = {} if degradation is None else {"degradation": asdict(degradation)}
        if self._identity is not None:
            about |= {"generation": self._identity.generation, "try": self._identity.try_number}
        with self.working():
            self.run.finish(result, leaving, **about)
        self.end(RunOver(self.run.key, result))
        return [each for each in outbox if each.kind is Kind.HEARTBEAT]

    # -- inside ----------------------------------------------------------------------------------------

    @property
    def _can_be_kept(self) -> bool:
        return self._durability is not None and self._durability.persistence != OFF

    def _required(self) -> Durability:
        if self._durability is None:
            raise ConfigurationError(
                f"agent {self._agent!r} wants durable steps, and this context has no store for them. Run it through "
                "RunAgentOperator, or in tests through airflow_agentic.testing.run_agent."
            )
        if self._durability.persistence == OFF:
            raise ConfigurationError(
                f"agent {self._agent!r} wants durable steps, and its persistence is off. Say persistence='hybrid' in the "
                f"operator, or agents.{self._agent}.persistence: hybrid in the project file; with deferrable=True there are "
                "none."
            )
        return self._durability

    @property
    def _key(self) -> str:
        said = self._required().key
        if said is not None:
            return said
        if self._messages:
            return messages_key(self._agent, self._messages)
        if self._identity is None:
            raise ConfigurationError(
                f"agent {self._agent!r} wants durable steps, and nothing names its work: give the context a run, a message "
                "or a key (run_agent(…, key=…))"
            )
        return task_key(self._agent, self._identity)

    def _runs(self) -> Runs:
        from airflow_agentic.persistence import RunOptions

        how, who = self._required(), self._identity
        conversation = self._messages[0].correlation_id if len(self._messages) == 1 else None
        options = RunOptions(
            how.persistence,
            how.schema,
            correlation=conversation or (who.correlation_id if who else "") or "",
            task=who.name if who else "",
            discreet=self.discreet,
        )
        # Airflow lets one try of a task work at a time. Those of a mailbox work beside each other.
        holder = who.holder if who is not None and not self._messages else None
        return how.runs(options, self._is_gone, holder)

    def _is_gone(self, owner: str) -> bool:
        is_earlier_try = not self._messages and self._identity is not None and self._identity.replaces(owner)
        return is_earlier_try or is_gone(owner)

    def _opened(self) -> Run:
        from airflow_agentic.persistence.progress import RUN

        runs, key, count = self._runs(), self._key, 1
        while True:
            run = runs.open(self._agent, numbered(key, count))
            if not run.was_finished:
                return run
            said = run.recalled(RecordType.FINISHED, RUN)
            run.close()
            if self._was_this(said):
                said = said or {}
                raise RunOver(run.key, said.get("result"), said.get("degradation"))
            count += 1

    def _was_this(self, said: Mapping[str, Any] | None) -> bool:
        """Whether what came to an end is this piece of work, and not an earlier life of the task."""
        if self._messages or self._identity is None or self._required().key is not None:
            return True
        if said is None or said.get("generation") != self._identity.generation:
            return False
        # The same try again: the DAG run was deleted, and made anew.
        return bool(said.get("try", 0) < self._identity.try_number)

    def _unique(self, name: str) -> str:
        self._asked[name] += 1
        return numbered(name, self._asked[name])
