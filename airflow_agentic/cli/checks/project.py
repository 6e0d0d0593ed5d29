"""Whether the configured project can be used."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from airflow_agentic import runtime
from airflow_agentic.cli.checks.finding import Finding, Result
from airflow_agentic.cli.output import count
from airflow_agentic.config import Project, ProjectInvalid
from airflow_agentic.config.sources import files_of

CHECK = "project"


def declared() -> Finding:
    """Load the project as a worker would, users' code and all."""
    try:
        # Also without a file: what the environment says over it can be wrong by itself.
        # What users' modules print when they are imported is no part of the answer.
        with contextlib.redirect_stdout(sys.stderr):
            project = runtime.project(deep=True)
    except ProjectInvalid as invalid:
        return Finding(
            CHECK,
            Result.FAIL,
            f"{count(len(invalid.errors), 'fault')}, the first: {invalid.errors[0]}",
            "run `airflow agentic config validate`",
        )
    files = runtime.project_files()
    return Finding(CHECK, Result.OK, contents(project, files) if files else "none is configured")


def contents(project: Project, paths: Sequence[str]) -> str:
    """Return how much a project has, for people: ``2 files, 5 agents``."""
    return f"{count(len(files_of(paths)[0]), 'file')}, {count(len(project.agents), 'agent')}"
