"""What can be set and declared: options, the project file, and who gets what.

Imports nothing by itself: Airflow reads ``config.options`` before its own configuration exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_agentic.config.project import Explanation, Project, load_project
    from airflow_agentic.errors import ConfigFault, ProjectInvalid

__all__ = ["ConfigFault", "Explanation", "Project", "ProjectInvalid", "load_project"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("ConfigFault", "ProjectInvalid"):
        from airflow_agentic import errors

        return getattr(errors, name)
    from airflow_agentic.config import project

    return getattr(project, name)
