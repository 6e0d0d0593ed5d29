"""What is done when work fails: other ways to a result, in order, each worse than the one before. Knows no agents.

The order is that of :class:`airflow_agentic.config.policies.Fallback`: other agents, the last good answer, a person, a
default. A result that came so is degraded and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from airflow_agentic.config.policies import Fallback
from airflow_agentic.errors import GuardError
from airflow_agentic.resilience.answers import Answers
from airflow_agentic.resilience.failures import Classifier

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Degradation:
    """Why a result is not what it should be.

    Attributes:
        reason: What went wrong, in one line.
        source: Where the result came from: ``agent:NAME``, ``cached``, ``person``, ``default``, or ``itself`` if the
            agent said so of its own result.
        age_seconds: Of a kept answer: how old it is.
    """

    reason: str
    source: str
    age_seconds: float | None = None


@dataclass(frozen=True)
class Rescue(Generic[T]):
    """What was found instead.

    Attributes:
        result: As the one who was asked gave it; of other sources ``None``.
        value: Plain JSON; of an agent ``None``.
        degradation: Why, and where from.
    """

    degradation: Degradation
    result: T | None = None
    value: Any = None


class PersonNeeded(GuardError):
    """A person is to be asked. For the one who can: it is no failure yet.

    Attributes:
        question: What to ask.
        reason: What went wrong.
    """

    def __init__(self, question: str, reason: str) -> None:
        super().__init__(f"a person is needed: {question} ({reason})")
        self.question = question
        self.reason = reason

    def __reduce__(self) -> tuple[type[PersonNeeded], tuple[str, str]]:
        return type(self), (self.question, self.reason)


class Ladder(Generic[T]):
    """Climbs down, from rung to rung.

    Args:
        settings: Which rungs there are.
        classifier: Says what failures mean.
        answers: The last good answers, if they are kept.
        agents: How to ask each agent, by name.
        has_people: Whether a person can be asked from here.
    """

    def __init__(
        self,
        settings: Fallback,
        classifier: Classifier,
        answers: Answers | None = None,
        agents: Mapping[str, Callable[[], T]] | None = None,
        *,
        has_people: bool = False,
    ) -> None:
        self._settings = settings
        self._classifier = classifier
        self._answers = answers
        self._agents = agents or {}
        self._has_people = has_people

    def rescue(self, error: Exception, task: Any, discreet: Callable[[str], str] = str) -> Rescue[T]:
        """Return what is found instead.

        Args:
            error: Why the work failed.
            task: What was asked; plain JSON, or there is no kept answer.
            discreet: Takes secrets out of a text.

        Raises:
            PersonNeeded: A person is the next rung.
            Exception: ``error``, if it is of no category that is fallen back for, or no rung is left.
        """
        failure = self._classifier.failure(error)
        if failure.category not in self._settings.categories:
            raise error
        reason = discreet(f"[{failure.category}] {type(error).__name__}: {error}")
        for name, ask in self._agents.items():
            try:
                return Rescue(Degradation(reason, f"agent:{name}"), result=ask())
            except Exception as other:  # noqa: BLE001  # whatever it is, the next rung may hold
                _log.warning(
                    "agent %r did not help either: %s", name, discreet(f"{type(other).__name__}: {other}")
                )
        if self._answers is not None and (kept := self._answers.last(task)) is not None:
            return Rescue(Degradation(reason, "cached", round(kept.age_seconds, 3)), value=kept.value)
        if self._settings.person is not None and self._has_people:
            raise PersonNeeded(self._settings.person, reason) from error
        return self.last_resort(error, reason)

    def last_resort(self, error: Exception, reason: str) -> Rescue[T]:
        """Return the default.

        Raises:
            Exception: ``error``, if there is none.
        """
        if self._settings.has_default:
            return Rescue(Degradation(reason, "default"), value=self._settings.default)
        raise error


def marked(result: Any, degradation: Degradation | None) -> Any:
    """Return a result that says that it is degraded, if it is and if it is a map: others have no room for it."""
    if degradation is None or not isinstance(result, Mapping):
        return result
    return {**result, "degraded": True, "degraded_reason": degradation.reason}


def outcome(degradation: Degradation | None) -> dict[str, Any]:
    """Return what can be branched on, whatever the result is: ``{"degraded", "reason", "source", "age_seconds"}``."""
    if degradation is None:
        return {"degraded": False, "reason": None, "source": "itself", "age_seconds": None}
    return {"degraded": True, **asdict(degradation)}
