"""Set before Airflow is imported by anybody: a home of its own, and no DAGs that it did not ask for."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_HOME = Path(tempfile.mkdtemp(prefix="agentic-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
(_HOME / "no-dags").mkdir()
os.environ["AIRFLOW_HOME"] = str(_HOME)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(_HOME / "no-dags")


@pytest.fixture(autouse=True)
def forget_agents() -> Iterator[None]:
    """What one test registers is not there for the next one."""
    from airflow_agentic.agents.registry import registry

    known = dict(registry._known)
    yield
    registry._known.clear()
    registry._known.update(known)
