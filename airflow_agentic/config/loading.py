"""Code by name: ``package.module:Attribute``."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.errors import ConfigurationError


class UnknownPath(ConfigurationError):
    """A dotted path leads nowhere. A retry does not help.

    Attributes:
        message: What is wrong: how far it led.
        suggestion: What may have been meant, or what to do.
    """

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(f"{message}; {suggestion}" if suggestion else message)
        self.message = message
        self.suggestion = suggestion


def load(path: str) -> Any:
    """Import what a path names.

    Args:
        path: ``package.module:Attribute`` (the attribute may have dots) or ``package.module.Attribute``.

    Raises:
        UnknownPath: The module cannot be imported, or has no such attribute.
    """
    module, colon, attribute = path.partition(":")
    if not colon:
        module, _, attribute = path.rpartition(".")
    if not module or not attribute:
        raise UnknownPath(f"{path!r} is no path", "write package.module:Attribute")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        mine = error.name == module.partition(".")[0]
        hint = "install it, or put its folder on PYTHONPATH" if mine else None
        raise UnknownPath(f"module {module!r} cannot be imported: {error}", hint) from error
    except Exception as error:  # somebody's module may raise anything when it is imported
        raise UnknownPath(f"module {module!r} cannot be imported: {type(error).__name__}: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            near = did_you_mean(name, (known for known in dir(found) if not known.startswith("_")))
            raise UnknownPath(f"{module!r} has no {attribute!r}", near)
        found = getattr(found, name)
    return found


@cache  # what is installed does not change while a process runs, and looking costs milliseconds
def installed(group: str) -> tuple[EntryPoint, ...]:
    """Return what installed packages declare as entry points of a group."""
    return tuple(entry_points(group=group))
