"""What the agents of the incident triage hand to each other."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, Field


class Raised(BaseModel, frozen=True):
    """An exception, as a message or a log tells it."""

    type: str
    message: str = ""

    def __str__(self) -> str:
        """Return it as Python writes it."""
        return f"{self.type}: {self.message}" if self.message else self.type


class Failure(BaseModel, frozen=True):
    """One try of a task that failed for good, as ``AgenticNotifier`` tells it.

    Attributes:
        id: Names the message that told of it.
    """

    id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = Field(ge=1)
    state: str
    exception: Raised | None = None

    @property
    def task(self) -> str:
        """The task, with its index if it is mapped."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def instance(self) -> str:
        """The task of one DAG run, the same for all its tries."""
        return f"{self.dag_id}/{self.run_id}/{self.task}"

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.instance}, try {self.try_number}"


class SetAside(BaseModel, frozen=True):
    """A message that is nothing to be decided about; the report names it."""

    id: str
    what: str
    why: str


class Intake(BaseModel, frozen=True):
    """All that came to one run of the triage."""

    failures: list[Failure] = []
    set_aside: list[SetAside] = []


class Evidence(BaseModel, frozen=True):
    """What is known of one failure.

    Attributes:
        raised: The exception at the root: what led to all others.
        where: Where it was raised: ``file.py:12 in function``.
        lines: What the log says about it.
        link: The log in Airflow's UI.
    """

    failure: Failure
    raised: Raised
    where: str | None = None
    lines: list[str] = []
    link: str = ""


class Incident(BaseModel, frozen=True):
    """Failures with one signature.

    Attributes:
        id: Made of the signature: the same cause has the same one tomorrow.
        signature: Exception and message, without what differs from time to time.
        raised: The exception of the first one.
        lines: What the log of the first one says.
        links: Failure to log.
        shared: What they have in common, if there are several.
    """

    id: str
    signature: str
    raised: Raised
    failures: list[Failure]
    lines: list[str] = []
    links: dict[str, str] = {}
    shared: dict[str, str] = {}


class Verdict(BaseModel, frozen=True):
    """What kind of incident it is.

    Attributes:
        category: One of the categories of the rules, or ``unknown``.
        confidence: 0 to 1.
        because: The lines that say so.
    """

    incident: Incident
    category: str
    confidence: float = Field(ge=0, le=1)
    because: list[str] = []

    @property
    def kind(self) -> str:
        """What it is, and how sure that is, for people."""
        if not self.confidence:
            return f"{self.category}: no rule fits"
        return f"{self.category} ({self.confidence:.0%} sure)"


class Choice(StrEnum):
    """What can be done about an incident."""

    RETRY = "retry"
    TICKET = "ticket"
    IGNORE = "ignore"


class Decision(BaseModel, frozen=True):
    """What was done about an incident.

    Attributes:
        by: ``rules``, ``a person``, or ``nobody`` if no person answered in time.
        outcomes: What became of each failure, by its id.
        ticket: Its file, if there is one.
    """

    incident: str
    raised: Raised
    category: str
    confidence: float
    choice: Choice
    by: str
    why: str
    failures: list[Failure]
    outcomes: dict[str, str]
    ticket: str | None = None
