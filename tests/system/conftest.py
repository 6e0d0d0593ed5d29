"""One real Airflow for the session, with the example DAGs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_agentic.stores import Store, open_store
from localairflow.stack import LocalAirflow

DAGS = Path(__file__).parents[2] / "dags"

# What a deployment does for all its DAGs: tasks that a SIGKILL ended are tried again, as often as it takes.
_POLICY = """
from datetime import timedelta

def task_policy(task):
    task.retries = 60
    task.retry_delay = timedelta(seconds=0)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    home = tmp_path_factory.mktemp("airflow")
    (home / "config").mkdir()
    (home / "config" / "airflow_local_settings.py").write_text(_POLICY)
    with LocalAirflow(home, DAGS) as running:
        for dag_id in ("dependency_audit", "license_review"):
            running.client.wait_for_dag(dag_id, timeout_s=60)
        yield running


@pytest.fixture
def store(airflow: LocalAirflow) -> Iterator[Store]:
    with open_store(airflow.store_url) as opened:
        yield opened
