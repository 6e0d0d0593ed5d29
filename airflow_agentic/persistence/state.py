"""The state of a run: what its events come to, folded one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_agentic.errors import ConfigurationError, JournalTooNew

Reduce = Callable[[Any, Any], Any]
"""Takes the state and an event, and returns the state after it. Pure: the same events always come to the same state."""

Upcast = Callable[[Any], Any]
"""Takes an event or a state of one schema version and returns it as one of the next."""


def merge(state: Any, event: Any) -> Any:
    """Apply an event to a state as a JSON Merge Patch (RFC 7396): maps are merged, ``None`` removes a key.

    Neither is changed.
    """
    if not isinstance(event, Mapping):
        return event
    merged = dict(state) if isinstance(state, Mapping) else {}
    for key, value in event.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value) if isinstance(value, Mapping) else value
    return merged


@dataclass(frozen=True)
class StateSchema:
    """How the events of an agent become its state.

    Attributes:
        initial: State before the first event.
        reduce: Folds; default :func:`merge`.
        version: Of events and state, raised when their shape changes.
        upcast_event: For each older version what makes an event of it one of the next.
        upcast_state: The same for states that were kept.
    """

    initial: Any = field(default_factory=dict)
    reduce: Reduce = merge
    version: int = 1
    upcast_event: Mapping[int, Upcast] = field(default_factory=dict)
    upcast_state: Mapping[int, Upcast] = field(default_factory=dict)

    def folded(self, state: Any, event: Any, version: int) -> Any:
        """Return the state after an event of a schema version.

        Raises:
            JournalTooNew: The event was written by a newer version of the agent.
            ConfigurationError: Nothing makes an event of that version one of this.
        """
        return self.reduce(state, self.lifted(event, version))

    def lifted(self, event: Any, version: int) -> Any:
        """Return an event of a schema version as one of this; the same errors."""
        return self._lifted(event, version, self.upcast_event, "event")

    def restored(self, state: Any, version: int) -> Any:
        """Return a state that was kept by a schema version; the same errors."""
        return self._lifted(state, version, self.upcast_state, "state")

    def _lifted(self, value: Any, version: int, steps: Mapping[int, Upcast], what: str) -> Any:
        if version > self.version:
            raise JournalTooNew(
                f"{what}s of the run have schema version {version}, and this agent knows versions up to {self.version}: "
                "run it with the newer version of the agent"
            )
        for each in range(version, self.version):
            if each not in steps:
                raise ConfigurationError(
                    f"the run has {what}s of schema version {each}, and nothing makes them those of version {each + 1}: "
                    f"give the schema upcast_{what}={{{each}: …}}"
                )
            value = steps[each](value)
        return value
