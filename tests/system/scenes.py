"""Scenes that go on side by side on one booted Airflow: each is a function of it, and plays in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from waiting import wait_until

from localairflow.client import FINISHED
from localairflow.stack import LocalAirflow

_LONGEST_SECONDS = 280

Scene = Callable[[LocalAirflow], Any]


class Playing:
    """Scenes that have begun."""

    def __init__(self, begun: Mapping[str, Future[Any]]) -> None:
        self._begun = begun

    def __getitem__(self, name: str) -> Any:
        """Wait for the end of a scene; return what it returned, or raise what it raised."""
        return self._begun[name].result(_LONGEST_SECONDS)

    def wait_for_all(self) -> None:
        """Wait until all have ended, however they did."""
        for each in self._begun.values():
            each.exception(_LONGEST_SECONDS)


@contextmanager
def playing(airflow: LocalAirflow, dags: tuple[str, ...], *scenes: Scene) -> Iterator[Playing]:
    """Begin all scenes as soon as their DAGs are there, by the names of their functions; wait for all at the end."""
    for dag_id in dags:
        airflow.client.wait_for_dag(dag_id, timeout_s=60)
    with ThreadPoolExecutor(len(scenes)) as pool:
        yield Playing({scene.__name__: pool.submit(scene, airflow) for scene in scenes})


def ended(airflow: LocalAirflow, dag_id: str, run_id: str, seconds: float = 200) -> str:
    """Wait for the end of a DAG run; return its state. Not by the client, which gives up when the triggerer dies."""
    wait_until(lambda: airflow.client.run_state(dag_id, run_id) in FINISHED, seconds)
    return airflow.client.run_state(dag_id, run_id)
