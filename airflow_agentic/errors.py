"""Every error of the provider, in one tree.

::

    AgenticError
    ├── ConfigurationError            the caller named or set something wrong
    │   ├── InvalidOption             an option of [agentic], a connection field or a store URL
    │   ├── ProjectInvalid            the project file and what lies over it, with every fault in it
    │   ├── UnresolvedReference       a ${env:}, ${conn:} or ${var:} that leads nowhere
    │   ├── UnknownService            nothing provides what an agent or a service declares to need
    │   └── UnknownAgent              no agent of that name is registered
    ├── LifecycleError
    │   └── IllegalTransition         the state table has no such arrow
    ├── AgentError                    an agent could not do its work
    │   ├── InvalidTask               the input does not fit the agent's input model
    │   ├── InvalidResult             the output does not fit its model, or is not JSON
    │   ├── RoundsSpent               several agents came to no result in the rounds that they have
    │   └── RejectMessage             raised by an agent: this message can never be handled
    ├── MessageError
    │   ├── InvalidMessage            an envelope that breaks its own rules
    │   │   └── MessageTooLarge       over the size limit
    │   ├── UndecodableMessage        stored bytes that are not an envelope this version reads
    │   ├── MessageNotFound           no such message or delivery
    │   ├── StaleLease                the lease ended or belongs to somebody else
    │   ├── InvalidFilter             a condition on messages that does not compile
    │   ├── Unroutable                nobody subscribed to what must reach somebody
    │   ├── MailboxFull               the mailbox has as many open messages as it may
    │   ├── ReplyTimeout              a request was not answered in time
    │   ├── ErrorReply                a request was answered with an error
    │   ├── StateConflict             somebody else changed the state since it was read
    │   │   └── AlreadyHandled        the consumer handled this message before
    │   └── ClaimCheckDamaged         data that was kept elsewhere is gone or was changed
    ├── GuardError                    a guard stopped the work
    │   ├── NotAdmitted               it was not begun; retry_at says when it may be
    │   │   ├── CircuitOpen           what it needs is down, as far as the fleet knows
    │   │   ├── LimitExceeded         a rate is used up
    │   │   │   └── BulkheadFull      as many calls are out as may be
    │   │   ├── BudgetExceeded        what may be spent is spent
    │   │   └── GuardsUnavailable     the store of the guards cannot be reached, and the policy says to stop then
    │   ├── DeadlineExceeded          it took too long
    │   └── WorkCancelled             somebody told it to stop
    ├── RunError                      about a durable run
    │   ├── RunNotFound               no run of that key, or no such version of it
    │   ├── RunTaken                  somebody else works on it
    │   ├── InvalidAnswer             a person's answer does not fit the schema of the question
    │   ├── AlreadyAnswered           somebody answered the question before
    │   ├── AmbiguousStep             a step died between intent and result, and somebody has to decide
    │   ├── StepChanged               a finished step is asked for again with other code or arguments
    │   ├── StepsDiffer               the names of the steps are not those of the last time
    │   ├── NotRecordable             a result, event or state that is not JSON, or too large
    │   ├── JournalCorrupt            records are damaged or missing; the run is in quarantine
    │   └── JournalTooNew             written by a newer version
    ├── InjectedFault                 made by fault injection, of any category
    ├── ServiceError                  an external system failed or did not answer
    │   ├── ServiceThrottled          it said to come later
    │   └── ServiceRefused            it understood and refused
    └── StoreError
        ├── StoreUnavailable          cannot be opened or reached now
        ├── StoreNotWritable          can be read, cannot be written
        └── SchemaMismatch
            ├── SchemaTooOld          run `airflow agentic db upgrade`
            └── SchemaTooNew          upgrade the package

``category`` says why it failed; ``retry_helps`` whether the same call can succeed later without anybody changing
anything. At the Airflow edge, errors that a retry cannot help fail the task at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar


class Category(StrEnum):
    """Why something failed. It decides whether a retry helps, a breaker counts it and a message is given up."""

    TRANSIENT = "transient"
    """It may work the next time: a lost connection, a server error."""
    PERMANENT = "permanent"
    """It will never work like this: the other side, or the agent, refuses the work itself."""
    CONFIGURATION = "configuration"
    """It will not work until somebody changes a setting."""
    RESOURCE_EXHAUSTION = "resource_exhaustion"
    """Something is used up for now: a rate, room, memory, money."""
    CANCELLED = "cancelled"
    """Somebody told it to stop."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """It took too long."""

    @property
    def retry_helps(self) -> bool:
        """Whether the same call can succeed later without anybody changing anything."""
        return self in (Category.TRANSIENT, Category.RESOURCE_EXHAUSTION, Category.DEADLINE_EXCEEDED)


class AgenticError(Exception):
    """Base of all errors of this provider."""

    category: ClassVar[Category] = Category.PERMANENT

    @property
    def retry_helps(self) -> bool:
        """Whether the same call can succeed later without anybody changing anything."""
        return Category(self.category).retry_helps


class ConfigurationError(AgenticError):
    """The caller named or set something wrong. A retry does not help."""

    category = Category.CONFIGURATION


class InvalidOption(ConfigurationError):
    """An option, connection field or URL has a value that cannot be used. A retry does not help."""


@dataclass(frozen=True)
class ConfigFault:
    """One thing that is wrong with the configuration.

    Attributes:
        file: File it is written in; ``None`` if it comes from elsewhere.
        line: Line in the file, from 1.
        key: Dotted key it is about; empty if it is about the whole file.
        message: What is wrong.
        suggestion: What to write instead, if that can be guessed.
        source: Where it is written, for people: ``agentic.yaml:12``, an environment variable, an argument.
    """

    file: str | None
    line: int | None
    key: str
    message: str
    suggestion: str | None = None
    source: str = ""

    def __str__(self) -> str:
        key = "" if self.source.endswith(f" {self.key}") else self.key
        where = ": ".join(part for part in (self.source, key) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} ({self.suggestion})" if self.suggestion else text


class ProjectInvalid(ConfigurationError):
    """The project configuration cannot be used; nothing of it is. A retry does not help.

    Attributes:
        errors: Every fault that was found, by file and line.
    """

    def __init__(self, errors: Iterable[ConfigFault]) -> None:
        self.errors = tuple(errors)
        faults = "1 fault" if len(self.errors) == 1 else f"{len(self.errors)} faults"
        super().__init__("\n".join([f"the project configuration has {faults}:", *map(str, self.errors)]))

    def __reduce__(self) -> tuple[type[ProjectInvalid], tuple[tuple[ConfigFault, ...]]]:
        return type(self), (self.errors,)


class UnresolvedReference(ConfigurationError):
    """A ``${env:NAME}``, ``${conn:id.field}`` or ``${var:name}`` leads nowhere. A retry does not help."""


class UnknownService(ConfigurationError):
    """Nothing provides what an agent or a service declares to need. A retry does not help."""


class UnknownAgent(ConfigurationError):
    """No agent of that name is registered in this process. A retry does not help."""


class LifecycleError(AgenticError):
    """An agent was asked for something that its state does not allow. A retry does not help."""


class IllegalTransition(LifecycleError):
    """The lifecycle table has no arrow between the two states. A retry does not help."""


class AgentError(AgenticError):
    """An agent could not do its work. A retry does not help unless a subclass says so."""


class InvalidTask(AgentError):
    """The input does not fit the agent's input model. A retry does not help.

    Attributes:
        positions: Where the input is a list, the indexes of the items that do not fit.
    """

    def __init__(self, text: str, positions: Collection[int] = ()) -> None:
        super().__init__(text)
        self.positions = frozenset(positions)


class InvalidResult(AgentError):
    """The output does not fit the agent's output model, or is not JSON. A retry does not help."""


class RoundsSpent(AgentError):
    """Several agents had as many rounds as they may have, and came to no result. A retry does not help."""


class RejectMessage(AgentError):
    """Raised by an agent: this message can never be handled. It goes to the dead letters at once."""


class MessageError(AgenticError):
    """Something is wrong with a message. A retry does not help unless a subclass says so."""


class InvalidMessage(MessageError):
    """An envelope that breaks its own rules. A retry does not help."""


class MessageTooLarge(InvalidMessage):
    """The encoded envelope is over the size limit. A retry does not help."""


class UndecodableMessage(MessageError):
    """Stored bytes that are not an envelope this version can read. A retry does not help."""


class MessageNotFound(MessageError):
    """No such message or delivery in this store. A retry does not help."""


class StaleLease(MessageError):
    """The lease ended, or the delivery was settled or claimed by somebody else.

    Nothing was changed. The delivery comes again to whoever claims it; a retry of the same call does not help.
    """


class InvalidFilter(MessageError):
    """A condition on messages does not compile. A retry does not help."""


class Unroutable(MessageError):
    """A message leads to nobody, and its sender said that it must reach somebody. A retry does not help."""


class MailboxFull(MessageError):
    """A mailbox has as many open messages as it may; nothing was sent. A retry may help, once it is worked off."""

    category = Category.RESOURCE_EXHAUSTION


class ReplyTimeout(MessageError):
    """A request was neither answered nor refused before its deadline. A retry may help."""

    category = Category.DEADLINE_EXCEEDED


class ErrorReply(MessageError):
    """A request was answered with an error.

    Attributes:
        category: What the other side said of it; what is no category of ours is permanent.
    """

    def __init__(self, text: str, category: str = "permanent") -> None:
        super().__init__(text)
        known = category in set(Category)
        self.category = Category(category) if known else Category.PERMANENT  # type: ignore[misc]  # each has its own

    def __reduce__(self) -> tuple[type[ErrorReply], tuple[str, str]]:
        return type(self), (str(self), self.category)


class StateConflict(MessageError):
    """Somebody else changed a value since it was read; nothing was changed. Read it again, and decide anew."""

    category = Category.TRANSIENT


class AlreadyHandled(StateConflict):
    """A consumer noted before that it handled this message; nothing was changed. Ack it without effects."""

    category = Category.PERMANENT


class ClaimCheckDamaged(MessageError):
    """Data that is kept outside the store is gone, or is not what was sent. A retry does not help."""


class GuardError(AgenticError):
    """A guard stopped the work."""


class NotAdmitted(GuardError):
    """A guard did not let the work begin. A retry helps, from ``retry_at`` on.

    Attributes:
        key: What is guarded.
        retry_at: When it may go, by the clock of the store; ``None`` if nobody knows.
        final: Whether the policy of the guard says that a task fails then, and does not wait.
    """

    category = Category.RESOURCE_EXHAUSTION
    final: bool = False

    def __init__(self, text: str, key: str = "", retry_at: datetime | None = None) -> None:
        super().__init__(text)
        self.key = key
        self.retry_at = retry_at

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.key, self.retry_at)


class CircuitOpen(NotAdmitted):
    """What the work needs is down, as far as the whole fleet knows. ``retry_at`` is the time of the next probe."""

    category = Category.TRANSIENT


class LimitExceeded(NotAdmitted):
    """A rate is used up for now."""


class BulkheadFull(LimitExceeded):
    """As many calls are out as may be at once."""


class BudgetExceeded(NotAdmitted):
    """What may be spent is spent. ``retry_at`` is when the next period begins."""


class GuardsUnavailable(NotAdmitted):
    """The store of the guards cannot be reached, and the policy says ``without_store: open``."""

    category = Category.TRANSIENT


class DeadlineExceeded(GuardError):
    """The work took too long. A retry may help, if there is time for one."""

    category = Category.DEADLINE_EXCEEDED


class WorkCancelled(GuardError):
    """Somebody told the work to stop. A retry does not help."""

    category = Category.CANCELLED


class RunError(AgenticError):
    """Something is wrong with a durable run. A retry does not help unless a subclass says so."""


class RunNotFound(RunError):
    """There is no run of that key in this store, or no such version, checkpoint or time of it. A retry does not help."""


class RunTaken(RunError):
    """Somebody else works on the run, or has taken it over. Nothing was written. A retry may help, from ``retry_at`` on.

    Attributes:
        key: The run.
        owner: Who has it.
        retry_at: When the lease ends, unless it is renewed; ``None`` if nobody knows.
    """

    category = Category.TRANSIENT

    def __init__(self, text: str, key: str = "", owner: str = "", retry_at: datetime | None = None) -> None:
        super().__init__(text)
        self.key = key
        self.owner = owner
        self.retry_at = retry_at

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.key, self.owner, self.retry_at)


class AmbiguousStep(RunError):
    """A step began and never said how it ended: its effect may have taken place, or not. A person has to look.

    Attributes:
        key: The run.
        step: The step.
    """

    def __init__(self, text: str, key: str = "", step: str = "") -> None:
        super().__init__(text)
        self.key = key
        self.step = step

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.key, self.step)


class InvalidAnswer(RunError):
    """What a person answered does not fit the schema of the question. Nothing was recorded. A retry does not help."""


class AlreadyAnswered(RunError):
    """A question was answered before, and that answer counts. Nothing was recorded. A retry does not help.

    Attributes:
        key: The run.
        question: Its name in the journal.
        actor: Who answered; empty if nobody did in time, and the run went on without an answer.
        at: When.
    """

    def __init__(
        self, text: str, key: str = "", question: str = "", actor: str = "", at: datetime | None = None
    ) -> None:
        super().__init__(text)
        self.key = key
        self.question = question
        self.actor = actor
        self.at = at

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.key, self.question, self.actor, self.at)


class StepChanged(RunError):
    """A step that is finished is asked for again with other code or arguments. A retry does not help."""


class StepsDiffer(RunError):
    """The names of a run's steps are not those of the last time: they must not depend on time or chance."""


class NotRecordable(RunError):
    """A result, an event or a state cannot be kept: it is not JSON, or too large. A retry does not help."""


class JournalCorrupt(RunError):
    """Records of a run are damaged or missing. It is in quarantine, and nothing of it was changed.

    Attributes:
        stream: The run.
        version: The first record that is wrong; 0 for the head.
        what: What is wrong with it.
    """

    def __init__(self, text: str, stream: str = "", version: int = 0, what: str = "") -> None:
        super().__init__(text)
        self.stream = stream
        self.version = version
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.stream, self.version, self.what)


class JournalTooNew(RunError):
    """A run has records of a newer version. Go on with it there, or upgrade here. A retry does not help."""

    category = Category.CONFIGURATION


class InjectedFault(AgenticError):
    """A failure that fault injection made.

    Attributes:
        category: What the rule said.
        rule: Name of the rule.
    """

    def __init__(self, text: str, category: str = "transient", rule: str = "") -> None:
        super().__init__(text)
        self.category = Category(category)  # type: ignore[misc]  # each has its own
        self.rule = rule

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.category, self.rule)


class ServiceError(AgenticError):
    """An external system failed or did not answer. A retry may help.

    Attributes:
        status: HTTP status that it answered with, if it did.
        retry_after_seconds: How long it asked to be left alone, if it did.
    """

    category = Category.TRANSIENT

    def __init__(
        self, text: str, status: int | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.status, self.retry_after_seconds)


class ServiceThrottled(ServiceError):
    """An external system is asked too often or too much. A retry may help, later."""

    category = Category.RESOURCE_EXHAUSTION


class ServiceRefused(ServiceError):
    """An external system understood the request and refused it. A retry does not help."""

    category = Category.PERMANENT


class StoreError(AgenticError):
    """The store could not do what was asked."""


class StoreUnavailable(StoreError):
    """The store cannot be opened or reached now. A retry may help."""

    category = Category.TRANSIENT


class StoreNotWritable(StoreError):
    """The store can be found but not written. A retry does not help."""


class SchemaMismatch(StoreError):
    """The store's schema is not the one this version works with. A retry does not help."""


class SchemaTooOld(SchemaMismatch):
    """The store was made by an older version. Run ``airflow agentic db upgrade``."""


class SchemaTooNew(SchemaMismatch):
    """The store was made by a newer version. Upgrade ``airflow-provider-agentic`` here."""
