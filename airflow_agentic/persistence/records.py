"""What the records of a journal say. Written once, read for ever: values are never changed or reused."""

from __future__ import annotations

from enum import StrEnum

FORMAT = 1
"""Of the records that this version writes. It stands in what each session writes first, and in snapshots: one that meets a higher
number leaves the run to the version that wrote it. Raised when records of a known type say something else than before."""


class RecordType(StrEnum):
    """What happened. The data of each is a JSON object."""

    STARTED = "run.started"
    """``format``, ``agent``, ``mode``, ``schema``, ``owner``."""
    RESUMED = "run.resumed"
    """Somebody goes on with what was not finished: ``format``, ``owner``."""
    CONTINUED = "run.continued"
    """Somebody goes on with what was finished: ``format``, ``owner``."""
    WAITING = "run.waiting"
    """``for``."""
    FAILED = "run.failed"
    """``error``, ``category``."""
    FINISHED = "run.finished"
    """``result``, and what else its caller says of the end."""

    INTENDED = "step.intended"
    """A step begins: ``code``, ``args``, ``key`` (of idempotency), ``on_ambiguous``; ``beside`` if others went on at the
    same time."""
    DONE = "step.done"
    """It has ended: ``result`` or ``claim``, ``code``, ``args``, ``seconds``, ``sent`` (messages)."""
    BROKE = "step.failed"
    """It raised: ``error``, ``category``."""
    AMBIGUOUS = "step.ambiguous"
    """Found between intent and result: nobody knows whether its effect took place. ``decision``: ``retry`` or ``skip``;
    ``intended`` (version of the intent), ``by``. What it was decided to be is in the next record of the step; if there is none
    yet, a person decided."""
    SKIPPED = "step.skipped"
    """It counts as done without having been done: ``result``, ``reason``, ``actor``."""
    CHANGED = "step.changed"
    """Its code or arguments are not what they were: ``what``, ``decision``: ``rerun`` or ``keep``."""

    EMITTED = "event"
    """The agent's own event: ``event``, ``schema``. Its name is its place in the run, or its key."""
    CHECKPOINT = "checkpoint"
    """The version before has a name now."""
    STATE_SET = "state.set"
    """A person changed the state: ``patch`` (RFC 7396) or ``state`` (in place of it), ``actor``, ``reason``."""
    INTERVENED = "run.intervened"
    """A person did something else: ``what``, ``actor``, ``reason``."""

    ASKED = "question.asked"
    """``question``, ``schema``, ``deadline``; ``details`` if there are any."""
    ANSWERED = "question.answered"
    """``answer``, ``actor``."""
    RECEIVED = "message.received"
    """``message``: a message that the run waited for."""


STEP_ENDS = frozenset({RecordType.DONE, RecordType.SKIPPED})
"""After these a step is not done again."""

BEGINNINGS = frozenset({RecordType.STARTED, RecordType.RESUMED, RecordType.CONTINUED})
"""What a session writes first."""

QUESTION = "question:"
"""Names of questions begin so."""

KNOWN = frozenset(RecordType)


def is_known(type_: str) -> bool:
    """Whether this version knows what a record means; if not, it must not go on with the run."""
    return type_ in KNOWN
