"""Orchestration patterns: functions that make Airflow task groups out of agents.

Imports nothing by itself: a DAG file pays for the patterns that it names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_agentic.workflows.declared import declared_dags
    from airflow_agentic.workflows.drawing import picture
    from airflow_agentic.workflows.mapping import map_reduce
    from airflow_agentic.workflows.members import Member
    from airflow_agentic.workflows.parallels import parallel
    from airflow_agentic.workflows.people import Ask, await_human
    from airflow_agentic.workflows.routes import route
    from airflow_agentic.workflows.sagas import NO_COMPENSATION, Step, saga
    from airflow_agentic.workflows.sequences import sequence
    from airflow_agentic.workflows.starts import on_message
    from airflow_agentic.workflows.teams import debate, handoff, supervise
    from airflow_agentic.workflows.workflow import Workflow

_HOMES = {
    "Ask": "people",
    "Member": "members",
    "NO_COMPENSATION": "sagas",
    "Step": "sagas",
    "Workflow": "workflow",
    "await_human": "people",
    "debate": "teams",
    "declared_dags": "declared",
    "handoff": "teams",
    "map_reduce": "mapping",
    "on_message": "starts",
    "parallel": "parallels",
    "picture": "drawing",
    "route": "routes",
    "saga": "sagas",
    "sequence": "sequences",
    "supervise": "teams",
}

__all__ = [
    "NO_COMPENSATION",
    "Ask",
    "Member",
    "Step",
    "Workflow",
    "await_human",
    "debate",
    "declared_dags",
    "handoff",
    "map_reduce",
    "on_message",
    "parallel",
    "picture",
    "route",
    "saga",
    "sequence",
    "supervise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
