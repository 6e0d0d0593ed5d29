"""The demo: run one DAG on a running local Airflow, and show what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localairflow import audit, project
from localairflow.console import Progress, step, write
from localairflow.errors import ApiError

if TYPE_CHECKING:
    from localairflow.client import TaskState
    from localairflow.stack import LocalAirflow

__all__ = ["DAG_ID", "introduce", "run"]

DAG_ID = "dependency_audit"
# Slow enough to see the auditors compete.
_CONF = {"pause_seconds": 0.05}
_PARSE_S = 90.0
_RUN_S = 600.0
_LOG_LINES = 15
_SKIPPED_IS_FINE = frozenset({"success", "skipped"})


def introduce(stack: LocalAirflow) -> None:
    """Tell under which project files the DAGs will run, and what they make of the auditor.

    Raises:
        ProjectFileError: they cannot be used.
    """
    if stack.project_files:
        declared = project.load(stack.project_files)
        write(project.described(declared, stack.project_files, audit.AUDITOR) + "\n")


def run(stack: LocalAirflow, dag_id: str = DAG_ID) -> int:
    """Trigger the DAG and follow it to its end.

    Returns:
        The exit code of the demo: 0 if the run succeeded.

    Raises:
        LocalAirflowError: the DAG cannot be imported, the run does not end, or Airflow itself died.
    """
    with step(write, f"Waiting for the DAG {dag_id}"):
        stack.client.wait_for_dag(dag_id, _PARSE_S, stack.started_at)
    audits = dag_id == DAG_ID
    run_id = stack.client.trigger(dag_id, _CONF if audits else None)
    write(f"Run {run_id}\n")
    progress = Progress()
    with audit.watch_mailboxes(stack, progress):
        state = stack.client.wait(dag_id, run_id, _RUN_S, progress)
    progress.line(f"{dag_id:<40} {state}")
    tasks = stack.client.task_instances(dag_id, run_id)
    write("\n" + _table(tasks))
    if state != "success":
        write(_failures(stack, dag_id, run_id, tasks))
        return 1
    return 0 if not audits or audit.summary(stack) else 1


def _table(tasks: list[TaskState]) -> str:
    width = max((len(task.label) for task in tasks), default=4)
    lines = [f"  {'task':<{width}}  {'state':<16}  tries  seconds"]
    for task in tasks:
        seconds = "-" if task.duration_s is None else f"{task.duration_s:.1f}"
        state = task.state or "never started"
        lines.append(f"  {task.label:<{width}}  {state:<16}  {task.try_number:>5}  {seconds:>7}")
    return "\n".join(lines) + "\n"


def _failures(stack: LocalAirflow, dag_id: str, run_id: str, tasks: list[TaskState]) -> str:
    """The end of the log of each task that failed; those that only waited for it have none."""
    parts = []
    for task in tasks:
        if task.state in _SKIPPED_IS_FINE or task.state == "upstream_failed":
            continue
        try:
            lines = stack.client.log(dag_id, run_id, task) if task.try_number else []
        except ApiError as error:
            lines = [f"(no log: {error})"]
        parts.append(f"\n{task.label} ended as {task.state}. Its log ends:\n")
        told = [line for line in lines if "::group::" not in line and "::endgroup::" not in line]
        parts.append("".join(f"    {line}\n" for line in told[-_LOG_LINES:]))
    parts.append(f"\nAll logs: {stack.home.logs}\n")
    return "".join(parts)
