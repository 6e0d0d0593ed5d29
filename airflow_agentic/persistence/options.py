"""How runs are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, get_args

from airflow_agentic.errors import ConfigurationError
from airflow_agentic.persistence.state import StateSchema

OnAmbiguous = Literal["retry", "skip", "ask"]
OnChange = Literal["fail", "rerun", "keep"]

_ON_AMBIGUOUS, _ON_CHANGE = get_args(OnAmbiguous), get_args(OnChange)


@dataclass(frozen=True)
class RunOptions:
    """How a run is kept.

    Attributes:
        persistence: ``hybrid``, ``events``, ``snapshot`` or ``checkpoint``; see
            :class:`airflow_agentic.persistence.strategies.Strategy`.
        schema: How events become the state.
        lease: How long the run belongs to its owner after each write; renewed while it is open.
        inline_bytes: Data above this size leaves the journal for the store's place for large data.
        limit_bytes: Nothing larger is kept.
        on_ambiguous: For steps that do not say.
        on_change: For steps that do not say.
        correlation: What the run belongs to: a DAG run, a conversation.
        task: Who works on it, for people.
        discreet: Takes secrets out of the texts of errors.
    """

    persistence: str = "hybrid"
    schema: StateSchema = field(default_factory=StateSchema)
    lease: timedelta = timedelta(seconds=60)
    inline_bytes: int = 256 * 1024
    limit_bytes: int = 64 * 1024 * 1024
    on_ambiguous: OnAmbiguous = "retry"
    on_change: OnChange = "fail"
    correlation: str = ""
    task: str = ""
    discreet: Callable[[str], str] = str

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigurationError: See the text.
        """
        if self.lease <= timedelta(0):
            raise ConfigurationError(f"lease={self.lease}: a run is held for longer than no time")
        check_decisions(self.on_ambiguous, self.on_change)


def check_decisions(on_ambiguous: str, on_change: str) -> None:
    """Refuse what cannot be done about a step.

    Raises:
        ConfigurationError: See the text.
    """
    if on_ambiguous not in _ON_AMBIGUOUS:
        raise ConfigurationError(f"on_ambiguous={on_ambiguous!r}: it is one of {', '.join(_ON_AMBIGUOUS)}")
    if on_change not in _ON_CHANGE:
        raise ConfigurationError(f"on_change={on_change!r}: it is one of {', '.join(_ON_CHANGE)}")
