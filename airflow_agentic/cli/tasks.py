"""Starts tasks of Airflow again, as its own page does: cleared, with what comes after them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_agentic.errors import ConfigurationError

_MAPPED = re.compile(r"(?P<task>[^/\[\]]+)(?:\[(?P<index>\d+)\])?")


@dataclass(frozen=True)
class TaskName:
    """A task of a DAG run.

    Attributes:
        dag_id: The DAG.
        run_id: The DAG run.
        task_id: The task.
        map_index: Index of a mapped task, -1 otherwise.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1


def task_named(name: str) -> TaskName | None:
    """Read a task's name as runs keep it, ``dag/run/task[map index]``; ``None`` if it is none."""
    dag_id, _, rest = name.partition("/")
    run_id, _, task = rest.rpartition("/")
    found = _MAPPED.fullmatch(task)
    if not dag_id or not run_id or found is None:
        return None
    return TaskName(dag_id, run_id, found["task"], -1 if found["index"] is None else int(found["index"]))


def clear(task: TaskName) -> int:
    """Let a task be done again, with all that comes after it in its DAG run; return how many tasks that are.

    Raises:
        ConfigurationError: Airflow knows no such DAG, or nothing of it can be cleared.
    """
    from airflow.models.taskinstance import find_relevant_relatives
    from airflow.sdk.exceptions import AirflowException
    from airflow.utils.cli import get_db_dag
    from airflow.utils.session import create_session

    try:
        dag = get_db_dag(bundle_names=None, dag_id=task.dag_id)
    except AirflowException as error:
        raise ConfigurationError(f"task {task.task_id!r} cannot be cleared: {error}") from error
    mapped = [(task.task_id, task.map_index)] if task.map_index >= 0 else []
    normal = [] if mapped else [task.task_id]
    with create_session() as session:
        after = find_relevant_relatives(
            normal, mapped, dag=dag, run_id=task.run_id, direction="downstream", session=session
        )
        cleared: int = dag.clear(
            task_ids=[*normal, *mapped, *after], run_id=task.run_id, dry_run=False, session=session
        )
    if not cleared:
        raise ConfigurationError(
            f"Airflow knows no task {task.task_id!r} in the DAG run {task.run_id!r} of {task.dag_id!r}: nothing was cleared"
        )
    return cleared
