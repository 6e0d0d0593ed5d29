"""A metadata database of its own, and DAGs run in process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_agentic.stores import Store, open_store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.airflow)
            # The warnings of Airflow's own start-up are not ours to mend.
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def metadata_db() -> None:
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def store_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path}/agentic.db"
    monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", url)
    monkeypatch.setenv("AIRFLOW__AGENTIC__POLL_SECONDS", "0.05")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with open_store(store_url) as opened:
        yield opened


@pytest.fixture
def run_dag(metadata_db: None, store_url: str) -> Callable[..., Any]:
    """Run a DAG to its end; the result has ``state`` and ``xcom(task_id, map_index)``."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.utils.session import create_session

    def run(dag: Any, **options: Any) -> Any:
        with create_session() as session:
            DagBundlesManager().sync_bundles_to_db(session=session)
        bag = DagBag(dag_folder=os.devnull)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        return Finished(dag.test(**options))

    return run


class Finished:
    """A DAG run that ended."""

    def __init__(self, dag_run: Any) -> None:
        self._dag_run = dag_run
        self.run_id = dag_run.run_id
        self.state = str(dag_run.state)

    def task(self, task_id: str, map_index: int = -1) -> Any:
        return next(
            ti
            for ti in self._dag_run.get_task_instances()
            if ti.task_id == task_id and ti.map_index == map_index
        )

    def xcom(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        return self.task(task_id, map_index).xcom_pull(task_ids=task_id, map_indexes=map_index, key=key)
