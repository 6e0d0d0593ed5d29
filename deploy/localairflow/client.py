"""A small client of Airflow's REST API, for demos and tests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from localairflow.errors import WaitTimeoutError
from localairflow.rest import RestSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["FINISHED", "ApiClient", "TaskState"]

FINISHED = frozenset({"success", "failed"})
_PAGE = 100
_FRAMES = 5


@dataclass(frozen=True)
class TaskState:
    """One task instance of a run, at one moment."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    duration_s: float | None = None

    @property
    def label(self) -> str:
        """The task's name, with its index if it is mapped."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


class ApiClient(RestSession):
    """What demos and tests ask of a running Airflow."""

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run of a DAG.

        Returns:
            The id of the run.

        Raises:
            ApiError: there is no such DAG, the run exists, or the conf is refused.
        """
        body = {"logical_date": None, "conf": dict(conf or {}), "dag_run_id": run_id}
        return str(self.post(f"/dags/{_part(dag_id)}/dagRuns", body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """The state of a run: ``queued``, ``running``, ``success`` or ``failed``.

        Raises:
            ApiError: there is no such run.
        """
        return str(self.get(_run(dag_id, run_id))["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskState]:
        """All task instances of a run, in the order in which they started.

        Raises:
            ApiError: there is no such run.
        """
        path = f"{_run(dag_id, run_id)}/taskInstances"
        found = list(self._pages(path, "task_instances", {}))
        found.sort(key=lambda ti: (ti["start_date"] or "9", ti["map_index"]))
        return [
            TaskState(ti["task_id"], ti["map_index"], ti["state"], ti["try_number"], ti["duration"])
            for ti in found
        ]

    def dag_runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs of a DAG, the newest first.

        Raises:
            ApiError: there is no such DAG.
        """
        return list(self._pages(f"/dags/{_part(dag_id)}/dagRuns", "dag_runs", {"order_by": "-run_after"}))

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1
    ) -> Any:
        """The value that a task has left under a key.

        Raises:
            ApiError: there is no such value.
        """
        path = f"{_run(dag_id, run_id)}/taskInstances/{_part(task_id)}/xcomEntries/{_part(key)}"
        return self.get(path, {"map_index": map_index, "deserialize": "false", "stringify": "false"})["value"]

    def import_errors(self) -> list[dict[str, Any]]:
        """The DAG files that cannot be imported: ``filename``, ``stack_trace``, ``timestamp``.

        Raises:
            ApiError: the server cannot be reached.
        """
        return list(self._pages("/importErrors", "import_errors", {}))

    def log(self, dag_id: str, run_id: str, task: TaskState) -> list[str]:
        """The lines of the log of a task's last try.

        Raises:
            ApiError: there is no such task.
        """
        path = f"{_run(dag_id, run_id)}/taskInstances/{_part(task.task_id)}/logs/{task.try_number}"
        content = self.get(path, {"map_index": task.map_index, "full_content": "true"})["content"]
        texts = [line if isinstance(line, str) else _log_line(line) for line in content]
        return [line for text in texts for line in text.splitlines()]

    def wait_for_dag(self, dag_id: str, timeout_s: float, since: datetime | None = None) -> None:
        """Wait until a DAG is known and not paused.

        Args:
            dag_id: the DAG.
            timeout_s: how long to wait at most.
            since: ignore what was parsed before: a database that was kept knows old DAGs.

        Raises:
            WaitTimeoutError: it did not appear; the message has the import errors.
            ApiError: the server cannot be reached.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.check()
            dags = self._pages("/dags", "dags", {"dag_id_pattern": dag_id, "exclude_stale": "true"})
            dag = next((dag for dag in dags if dag["dag_id"] == dag_id), None)
            if dag and _later(dag["last_parsed_time"], since):
                if dag["is_paused"]:
                    self.patch(f"/dags/{_part(dag_id)}", {"is_paused": False})
                return
            errors = [error for error in self.import_errors() if _later(error["timestamp"], since)]
            if errors:
                texts = [f"{error['filename']}:\n{error['stack_trace'].rstrip()}" for error in errors]
                raise WaitTimeoutError("\n".join([f"The DAG {dag_id} is not there; these fail:", *texts]))
            time.sleep(0.2)
        raise WaitTimeoutError(f"No DAG {dag_id} after {timeout_s:.0f} s. Is its file in the DAGs folder?")

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 120.0,
        on_progress: Callable[[TaskState], None] | None = None,
    ) -> str:
        """Wait for the end of a run.

        Args:
            dag_id: the DAG.
            run_id: the run.
            timeout: how many seconds to wait at most.
            on_progress: called with each task instance whose state has changed.

        Returns:
            ``success`` or ``failed``.

        Raises:
            WaitTimeoutError: the run goes on; the message has the states of its tasks.
            ApiError: there is no such run.
        """
        deadline = time.monotonic() + timeout
        seen: dict[str, TaskState] = {}
        while True:
            self.check()
            state = self.run_state(dag_id, run_id)
            if on_progress:
                for task in self.task_instances(dag_id, run_id):
                    before = seen.get(task.label)
                    if before is None or (before.state, before.try_number) != (task.state, task.try_number):
                        on_progress(task)
                    seen[task.label] = task
            if state in FINISHED:
                return state
            if time.monotonic() > deadline:
                tasks = ", ".join(f"{t.label} {t.state}" for t in self.task_instances(dag_id, run_id))
                raise WaitTimeoutError(f"{dag_id} {run_id} is still {state} after {timeout:.0f} s: {tasks}")
            time.sleep(0.25 if on_progress else 0.05)

    def _pages(self, path: str, key: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self.get(path, {**params, "limit": _PAGE, "offset": offset})
            yield from page[key]
            offset += len(page[key])
            if not page[key] or offset >= page["total_entries"]:
                return


def _part(name: str) -> str:
    return quote(name, safe="")


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}"


def _later(when: str | None, since: datetime | None) -> bool:
    return when is not None and (since is None or datetime.fromisoformat(when) >= since)


def _log_line(line: Mapping[str, Any]) -> str:
    """One structured record as text, with the traceback's last frames."""
    texts = [" ".join(str(line[key]) for key in ("timestamp", "level", "event") if line.get(key))]
    for error in line.get("error_detail") or ():
        frames = error["frames"][-_FRAMES:]
        texts += [f"  {frame['filename']}:{frame['lineno']} in {frame['name']}" for frame in frames]
        texts.append(f"  {error['exc_type']}: {error['exc_value']}")
    return "\n".join(texts)
