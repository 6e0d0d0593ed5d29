"""Code by name: ``package.module:Attribute``."""

from __future__ import annotations

import importlib
from typing import Any

from airflow_agentic.config.names import did_you_mean


class UnknownPath(ValueError):
    """A dotted path leads nowhere; the text says how far it led."""


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
        raise UnknownPath(f"{path!r} is no path: write package.module:Attribute")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        hint = (
            "; install it, or put its folder on PYTHONPATH" if error.name == module.partition(".")[0] else ""
        )
        raise UnknownPath(f"module {module!r} cannot be imported: {error}{hint}") from error
    except Exception as error:  # somebody's module may raise anything when it is imported
        raise UnknownPath(f"module {module!r} cannot be imported: {type(error).__name__}: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            near = did_you_mean(name, (known for known in dir(found) if not known.startswith("_")))
            raise UnknownPath(f"{module!r} has no {attribute!r}" + (f"; {near}" if near else ""))
        found = getattr(found, name)
    return found
