"""Other people's packages: imported by name when they are used, so that one that is missing is said and skipped."""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any

from benchmarks.bus.rounds import Unavailable

PEERS = ("persist-queue", "litequeue", "pgmq", "procrastinate", "pgqueuer", "kombu", "dramatiq")
"""Their names on PyPI."""


def package(name: str) -> Any:
    """Import a module of a peer.

    Raises:
        Unavailable: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise Unavailable(f"not installed: {error}") from error


def version(name: str) -> str:
    """Return the installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
