"""Durable runs: steps that are done once, state made of events, and the way back to any moment of it."""

from __future__ import annotations

from airflow_agentic.persistence.history import Event, Moment
from airflow_agentic.persistence.integrity import Damage
from airflow_agentic.persistence.ports import RunHead, RunQuery, RunStatus
from airflow_agentic.persistence.run import Run
from airflow_agentic.persistence.runs import Runs
from airflow_agentic.persistence.session import RunOptions
from airflow_agentic.persistence.state import StateSchema, merge
from airflow_agentic.persistence.steps import Ambiguity, Step, current_step
from airflow_agentic.persistence.suspension import AwaitingMessage, Interrupted, RunSuspended, Sleeping

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
