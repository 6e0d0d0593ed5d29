"""Durable runs: steps that are done once, state made of events, and the way back to any moment of it.

Imports nothing by itself: a DAG file names agents that may be durable, and only a task works on their runs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_agentic.persistence.history import Event, Moment
    from airflow_agentic.persistence.integrity import Damage
    from airflow_agentic.persistence.ports import RunHead, RunQuery, RunStatus
    from airflow_agentic.persistence.run import Run
    from airflow_agentic.persistence.runs import Runs
    from airflow_agentic.persistence.session import RunOptions
    from airflow_agentic.persistence.state import StateSchema, merge
    from airflow_agentic.persistence.steps import Ambiguity, Step, current_step
    from airflow_agentic.persistence.suspension import AwaitingMessage, Interrupted, RunSuspended, Sleeping

_HOMES = {
    "Ambiguity": "steps",
    "AwaitingMessage": "suspension",
    "Damage": "integrity",
    "Event": "history",
    "Interrupted": "suspension",
    "Moment": "history",
    "Run": "run",
    "RunHead": "ports",
    "RunOptions": "session",
    "RunQuery": "ports",
    "RunStatus": "ports",
    "RunSuspended": "suspension",
    "Runs": "runs",
    "Sleeping": "suspension",
    "StateSchema": "state",
    "Step": "steps",
    "current_step": "steps",
    "merge": "state",
}

__all__ = [
    "Ambiguity",
    "AwaitingMessage",
    "Damage",
    "Event",
    "Interrupted",
    "Moment",
    "Run",
    "RunHead",
    "RunOptions",
    "RunQuery",
    "RunStatus",
    "RunSuspended",
    "Runs",
    "Sleeping",
    "StateSchema",
    "Step",
    "current_step",
    "merge",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
