"""One real Airflow for the session, with the example DAGs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from door import Door
from flaky import FlakyService

from airflow_agentic.stores import Store, open_store
from localairflow.stack import LocalAirflow

EXAMPLES = Path(__file__).parents[2] / "dags"
TESTS = Path(__file__).parent / "dags"

# What a deployment does for all its DAGs: tasks that a SIGKILL ended are tried again, as often as it takes.
_POLICY = """
from datetime import timedelta

def task_policy(task):
    if task.dag_id == "nightly_load":
        return  # its failures are what it is there for
    task.retries = 60
    task.retry_delay = timedelta(seconds=0)
"""

# Who is gone is known to be after seconds, not after minutes: a supervisor that was killed, a triggerer that was.
_SOON = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "8",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def homes() -> Iterator[Path]:
    """A folder for homes. Not pytest's own: each session closes that to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="agentic-system-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def copied(target: Path, *folders: Path) -> Path:
    for folder in folders:
        for file in (*folder.glob("*.py"), *folder.glob("*.yaml")):
            shutil.copy(file, target)
    return target


@pytest.fixture(scope="session")
def flaky() -> Iterator[FlakyService]:
    service = FlakyService()
    yield service
    service.close()


@pytest.fixture(scope="session")
def door() -> Iterator[Door]:
    opened = Door()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def airflow(
    homes: Path, tmp_path_factory: pytest.TempPathFactory, flaky: FlakyService, door: Door
) -> Iterator[LocalAirflow]:
    home = homes / "examples"
    home.mkdir()
    (home / "config").mkdir()
    (home / "config" / "airflow_local_settings.py").write_text(_POLICY)
    dags = copied(tmp_path_factory.mktemp("dags"), EXAMPLES, TESTS)
    services = {"AIRFLOW_CONN_QUOTES": flaky.connection, "AIRFLOW_CONN_AIRFLOW_API": door.connection}
    settings = {**services, **_SOON, "AGENTIC__AGENTS__INCIDENT_RESOLVER__CONFIG__WAIT_SECONDS": "3"}
    with LocalAirflow(home, dags, settings, parallelism=8, environment="tests") as running:
        door.target = running.url
        for dag_id in ("dependency_audit", "license_review", "parcels_delivered"):
            running.client.wait_for_dag(dag_id, timeout_s=60)
        yield running


@pytest.fixture(scope="module")
def strict(homes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """The same DAGs in another environment. The tests' own are not there: it runs declared agents only."""
    dags = copied(tmp_path_factory.mktemp("dags"), EXAMPLES)
    with LocalAirflow(homes / "strict", dags, environment="strict") as running:
        for dag_id in ("dependency_audit", "license_review"):
            running.client.wait_for_dag(dag_id, timeout_s=60)
        yield running


@pytest.fixture
def store(airflow: LocalAirflow) -> Iterator[Store]:
    with open_store(airflow.store_url) as opened:
        yield opened
