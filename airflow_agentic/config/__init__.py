"""What can be set and declared: options, the project file, and who gets what.

Imports nothing by itself: Airflow reads ``config.options`` before its own configuration exists.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_agentic.config.flags import Flags
    from airflow_agentic.config.project import Explanation, Project, load_project
    from airflow_agentic.config.references import SecretResolver
    from airflow_agentic.errors import ConfigFault, ProjectInvalid

_HOMES = {
    "ConfigFault": "airflow_agentic.errors",
    "Explanation": "airflow_agentic.config.project",
    "Flags": "airflow_agentic.config.flags",
    "Project": "airflow_agentic.config.project",
    "ProjectInvalid": "airflow_agentic.errors",
    "SecretResolver": "airflow_agentic.config.references",
    "load_project": "airflow_agentic.config.project",
}

__all__ = [
    "ConfigFault",
    "Explanation",
    "Flags",
    "Project",
    "ProjectInvalid",
    "SecretResolver",
    "load_project",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
