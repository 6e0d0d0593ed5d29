"""The composition root: Airflow's configuration and connections in, wired services out.

The only package that reads Airflow's configuration.
"""

from __future__ import annotations

from airflow_agentic.runtime.configuration import (
    command_line,
    make_dags_importable,
    project,
    project_files,
    settings,
    web_url,
)
from airflow_agentic.runtime.connections import CONN_TYPE
from airflow_agentic.runtime.failures import airflow_failures, failures
from airflow_agentic.runtime.guarding import guards_of, policy
from airflow_agentic.runtime.starts import Start, started_by
from airflow_agentic.runtime.stores import (
    DEFAULT_CONN_ID,
    StoreTarget,
    open_store,
    target,
    target_at,
    target_of,
)
from airflow_agentic.runtime.work import Workplace, durability, identity, plan, run_time_plan, workplace

__all__ = [
    "CONN_TYPE",
    "DEFAULT_CONN_ID",
    "Start",
    "StoreTarget",
    "Workplace",
    "airflow_failures",
    "command_line",
    "durability",
    "failures",
    "guards_of",
    "identity",
    "make_dags_importable",
    "open_store",
    "plan",
    "policy",
    "project",
    "project_files",
    "run_time_plan",
    "settings",
    "started_by",
    "target",
    "target_at",
    "target_of",
    "web_url",
    "workplace",
]
