"""Tasks of a booted Airflow, who works on them, and their end by SIGKILL."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import psutil
from waiting import wait_until

from localairflow.environment import MARKER
from localairflow.home import write_json
from localairflow.processes import reference
from localairflow.stack import LocalAirflow

_SUPERVISOR = "LocalExecutor"


@dataclass(frozen=True)
class Task:
    """A task of a DAG run.

    A supervisor, which the executor forked, forks the process that does the task. Both have the id of the try in their titles.
    """

    airflow: LocalAirflow
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def path(self) -> str:
        """Where the REST API has it."""
        mapped = f"/{self.map_index}" if self.map_index >= 0 else ""
        return f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{self.task_id}{mapped}"

    @property
    def instance(self) -> dict[str, Any]:
        """How it stands, as the REST API says."""
        return self.airflow.client.get(self.path)

    @property
    def state(self) -> str | None:
        return self.instance["state"]

    def workers(self) -> tuple[psutil.Process | None, psutil.Process | None]:
        """Return the process that does its try at hand, and its supervisor; ``None`` for each that is not there.

        A supervisor counts from when Airflow knows that the task runs: of one that dies earlier it knows after its
        ``task_queued_timeout`` only, and one that has no child may have a lock of the executor's queue with it.
        """
        name = self.instance["id"]
        titles = {process: _title(process) for process in psutil.process_iter()}
        found = [process for process, title in titles.items() if name in title]
        running = next((each for each in found if _SUPERVISOR not in titles[each]), None)
        if running is not None:
            parent = _parent(running)
            return running, next((each for each in found if each.pid == parent), None)
        # A child that has not begun has its parent's title still.
        known = {process.pid for process in found}
        return next((each for each in found if _parent(each) in known), None), None

    def wait_for(self, *states: str, seconds: float = 90) -> None:
        """Wait until it stands so."""
        wait_until(lambda: self.state in states, seconds)

    def wait_until_let_go(self) -> None:
        """Wait until nobody works on its try, and the scheduler knows that.

        An answer that comes earlier makes Airflow 3.3.2 fail the try: the end of the first go is taken for that of the second.
        """
        known = (
            f"task instance TaskInstanceKey(dag_id='{self.dag_id}', task_id='{self.task_id}', run_id='{self.run_id}', "
            f"try_number={self.instance['try_number']}, map_index={self.map_index})"
        )
        told = "Received executor event with state success for "
        log = self.airflow.home.logs / "scheduler.log"
        wait_until(lambda: f"{told}{known}" in log.read_text(errors="replace"), 60)


def kill(process: psutil.Process) -> None:
    """End a process by SIGKILL, and wait until it is gone; whoever it belongs to may leave it as a zombie for a while."""
    with suppress(psutil.NoSuchProcess):
        process.kill()
    wait_until(lambda: _is_gone(process), 30)


def supervisor_of(pid: int) -> psutil.Process:
    """Return the supervisor of a process that does a task."""
    found = psutil.Process(pid).parent()
    assert found is not None
    assert _SUPERVISOR in _title(found)
    return found


def replace_triggerer(airflow: LocalAirflow) -> None:
    """SIGKILL the triggerer with all that it started, and start another one, as a cluster does."""
    home = airflow.home
    victim = psutil.Process(home.read_components()["running"]["triggerer"]["pid"])
    # The one first that would see its child die, and end by itself.
    for process in (victim, *victim.children(recursive=True)):
        kill(process)
    wait_until(lambda: "triggerer" in home.read_components()["ended"])
    with (home.logs / "triggerer-2.log").open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "airflow", "triggerer"],
            env={**airflow.env, MARKER: str(home.path), "SPT_NOENV": "1"},
            cwd=home.path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    values = home.read_components()
    del values["ended"]["triggerer"]
    values["running"]["triggerer"] = asdict(reference(started.pid))
    write_json(home.components, values)
    started.returncode = 0  # The Airflow of the session ends it with its other parts.


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
