"""What a step is."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from airflow_agentic.persistence.options import OnAmbiguous, OnChange, check_decisions


@dataclass(frozen=True)
class StepOptions:
    """How a step is done.

    Attributes:
        idempotency_key: What a service outside knows repeated effects by; default made of the run and the step.
        on_ambiguous: What to do about a step that died between intent and result: ``retry`` it, ``skip`` it (its result is
            ``None``), or ``ask`` a person.
        on_change: What to do about a finished step whose code or arguments are other ones now: ``fail``, do it again
            (``rerun``), or ``keep`` its result.
        pure: It has no effect outside: no intent is recorded, and one that died is simply done.
    """

    idempotency_key: str | None = None
    on_ambiguous: OnAmbiguous = "retry"
    on_change: OnChange = "fail"
    pure: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigurationError: See the text.
        """
        check_decisions(self.on_ambiguous, self.on_change)


@dataclass
class Step:
    """The step that is being done; see :func:`current_step`.

    Attributes:
        run: Key of the run.
        name: Its name, made different from that of others of the run.
        idempotency_key: The same whenever it is tried.
        is_repeat: Whether its effect may have taken place before.
        outbox: Messages that leave with its result, or not at all.
    """

    run: str
    name: str
    idempotency_key: str
    is_repeat: bool = False
    outbox: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Ambiguity:
    """An effect that may have taken place twice, or not at all.

    Attributes:
        step: Which step.
        decision: What was done about it: ``retry``, ``skip``, or ``rerun`` (it is finished, and its code or arguments are
            other ones now).
        by: Who decided: ``declared``, or a person.
    """

    step: str
    decision: str
    by: str


CURRENT: ContextVar[Step | None] = ContextVar("agentic_step", default=None)
"""The step that this flow of calls is in."""


def current_step() -> Step | None:
    """Return the step that this code is done in; ``None`` outside of one."""
    return CURRENT.get()
