"""Where the runs of a drill happen: on the Airflow that is running, or in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from airflow_agentic.errors import ConfigurationError

_LOOK_SECONDS = 0.5
_MOST_LIVES = 20
_TAIL = 2_000
_ENDED = ("success", "failed")
_RESULT = "return_value"


@dataclass(frozen=True)
class Ran:
    """One run.

    Attributes:
        run_id: Of Airflow.
        state: ``success`` or ``failed``; empty if it did not end in time.
        seconds: How long it took.
        restarts: How often its process was killed and begun anew.
        degraded: Tasks whose result was not what it should be, and whether the result itself says so.
        log: The end of what it said, where that is known.
    """

    run_id: str
    state: str
    seconds: float
    restarts: int = 0
    degraded: tuple[tuple[str, bool], ...] = ()
    log: str = ""


class Place(Protocol):
    """Where runs happen.

    Attributes:
        name: What is said of it.
        is_shared: Whether others work there too, by settings of their own.
    """

    name: str
    is_shared: bool

    def run(self, dag_id: str, timeout: float) -> Ran:
        """Run a DAG once, and wait for its end, at most so many seconds."""
        ...


class RunningAirflow:
    """The Airflow whose scheduler is alive: its own workers do the work."""

    name = "the running Airflow"
    is_shared = True

    def run(self, dag_id: str, timeout: float) -> Ran:
        """See the protocol.

        Raises:
            ConfigurationError: There is no such DAG, or it is paused.
        """
        from airflow.api.client import get_current_api_client
        from airflow.sdk.exceptions import AirflowException

        began = time.monotonic()
        run_id = f"drill__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
        if _is_paused(dag_id):
            raise ConfigurationError(f"DAG {dag_id!r} is paused: `airflow dags unpause {dag_id}`")
        try:
            get_current_api_client().trigger_dag(dag_id=dag_id, run_id=run_id, replace_microseconds=False)
        except (AirflowException, ValueError) as error:
            raise ConfigurationError(f"DAG {dag_id!r} cannot be run: {error}") from error
        while (state := _state(dag_id, run_id)) not in _ENDED and time.monotonic() - began < timeout:
            time.sleep(_LOOK_SECONDS)
        seconds = time.monotonic() - began
        return Ran(run_id, state if state in _ENDED else "", seconds, 0, _degraded(dag_id, run_id))


class OwnProcess:
    """``dag.test()`` in a process of its own for each run; one that is killed is begun anew, as the same run.

    Args:
        environment: What it has besides this process's own environment.
    """

    name = "dag.test() in a process of its own for each run"
    is_shared = False

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}

    def run(self, dag_id: str, timeout: float) -> Ran:
        """See the protocol."""
        began, now = time.monotonic(), datetime.now(UTC)
        lives = 0
        with tempfile.TemporaryFile() as log:
            while True:
                lives += 1
                code = self._live(dag_id, now, timeout - (time.monotonic() - began), log)
                if code != -signal.SIGKILL or lives == _MOST_LIVES or time.monotonic() - began >= timeout:
                    break
            log.seek(max(0, log.tell() - _TAIL))
            tail = log.read().decode(errors="replace")
        run_id = f"manual__{now.isoformat()}"
        state = _state(dag_id, run_id)
        seconds = time.monotonic() - began
        degraded = _degraded(dag_id, run_id)
        return Ran(run_id, state if state in _ENDED else "", seconds, lives - 1, degraded, tail)

    def _live(self, dag_id: str, at: datetime, patience: float, log: Any) -> int | None:
        """Let one process live; return its exit code, or ``None`` if its time was over."""
        command = [sys.executable, "-m", "airflow_agentic.cli.drill.process", dag_id, at.isoformat()]
        process = subprocess.Popen(  # noqa: S603  # this Python, and a DAG's name as one word
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._environment,
            # What it starts ends with it.
            start_new_session=True,
        )
        try:
            return process.wait(max(0.0, patience))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def place(environment: Mapping[str, str], *, own_process: bool) -> Place:
    """Return where a drill can run.

    Args:
        environment: For a process of its own.
        own_process: Do not look for a running Airflow.
    """
    return OwnProcess(environment) if own_process or not is_airflow_alive() else RunningAirflow()


def is_airflow_alive() -> bool:
    """Whether a scheduler has given a sign of life lately."""
    from airflow.jobs.job import Job
    from sqlalchemy import select

    def look(session: Any) -> bool:
        jobs = session.scalars(select(Job).where(Job.job_type == "SchedulerJob", Job.state == "running"))
        return any(job.is_alive() for job in jobs)

    return bool(_in_metadata(look))


def _state(dag_id: str, run_id: str) -> str:
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    query = select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
    return str(_in_metadata(lambda session: session.scalar(query)) or "")


def _degraded(dag_id: str, run_id: str) -> tuple[tuple[str, bool], ...]:
    """Return tasks whose outcome says degraded, and whether a result that is a map says the same."""
    from airflow.models.xcom import XComModel
    from sqlalchemy import select

    from airflow_agentic.operators.agents import OUTCOME_XCOM_KEY

    query = select(XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value).where(
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.key.in_((OUTCOME_XCOM_KEY, _RESULT)),
    )
    said: dict[tuple[str, int], dict[str, Any]] = defaultdict(dict)
    for task_id, map_index, key, value in _in_metadata(lambda session: list(session.execute(query))):
        said[task_id, map_index][key] = _plain(value)
    found = []
    for (task_id, map_index), values in sorted(said.items()):
        result, outcome = values.get(_RESULT), values.get(OUTCOME_XCOM_KEY)
        marks = isinstance(result, dict) and result.get("degraded") is True
        if marks or (isinstance(outcome, dict) and outcome.get("degraded")):
            name = task_id if map_index < 0 else f"{task_id}[{map_index}]"
            found.append((name, marks or not isinstance(result, dict)))
    return tuple(found)


def _plain(value: Any) -> Any:
    # Depending on the database's type, JSON comes as what it says or as its text.
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_paused(dag_id: str) -> bool:
    from airflow.models.dag import DagModel
    from sqlalchemy import select

    query = select(DagModel.is_paused).where(DagModel.dag_id == dag_id)
    return bool(_in_metadata(lambda session: session.scalar(query)))


def _in_metadata(look: Callable[[Any], Any]) -> Any:
    from airflow.utils.session import create_session
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with create_session() as session:
            return look(session)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise ConfigurationError(
            f"Airflow's metadata database does not answer ({reason}): `airflow db check`, `airflow db migrate`"
        ) from None
