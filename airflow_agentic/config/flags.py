"""Switches and values of the project that agents read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.errors import ConfigurationError


class Flags(Mapping[str, Any]):
    """The flags of a project, by name.

    Args:
        values: Name to value.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Any:
        """Return a flag.

        Raises:
            KeyError: There is no such flag.
        """
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def enabled(self, name: str) -> bool:
        """Whether a flag is on.

        Raises:
            ConfigurationError: There is no such flag, or it is neither true nor false.
        """
        if name not in self._values:
            near = did_you_mean(name, self._values)
            raise ConfigurationError(
                f"there is no flag {name!r}: declare it under flags:" + (f" ({near})" if near else "")
            )
        value = self._values[name]
        if not isinstance(value, bool):
            raise ConfigurationError(f"flag {name!r} is {value!r}, and was asked whether it is on")
        return value
