"""A real Airflow on this machine, for as long as a ``with`` block, or until ``down``."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from localairflow import components, database, project
from localairflow.client import ApiClient
from localairflow.console import step
from localairflow.environment import MARKER, PASSWORD, USER, Environment, Ports
from localairflow.errors import (
    ApiError,
    BootTimeoutError,
    ComponentDiedError,
    HomeInUseError,
    LocalAirflowError,
)
from localairflow.home import Home, RunRecord, tail
from localairflow.processes import alive, end_all, exit_text, ours, reference, signals_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from localairflow.home import HomeLock

__all__ = ["LocalAirflow"]

_BOOT_S = 180.0
_POLL_S = 0.1
_NOT_STARTED = "This Airflow is not started: call start(), or use it in a with block."
_HEARTBEATS = ("scheduler", "triggerer", "dag_processor")


class LocalAirflow:
    """Scheduler, triggerer, DAG processor and API server on a PostgreSQL of their own.

    Args:
        home: the ``AIRFLOW_HOME``; made if it is not there. One Airflow at a time can use it.
        dags_folder: where the DAG files are.
        extra_env: variables for Airflow and its tasks; they win over the ones set here.
        parallelism: how many tasks may run at once.
        port: of the API server; a free one if not given.
        environment: a name; ``agentic.<name>.yaml`` of the DAGs folder is laid over its ``agentic.yaml``.

    Attributes:
        started_at: when the current start began; what Airflow recorded earlier is of an older one.
        project_files: the project files, later over earlier; none without an ``agentic.yaml``.

    Raises:
        UnknownEnvironmentError: the DAGs folder has no such environment.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        extra_env: Mapping[str, str] | None = None,
        parallelism: int = 4,
        port: int | None = None,
        environment: str | None = None,
    ) -> None:
        self.home = Home(Path(home).expanduser().resolve())
        self.dags_folder = Path(dags_folder).expanduser().resolve()
        self.environment = environment
        self.project_files = project.project_files(self.dags_folder, environment)
        self.started_at = datetime.now(UTC)
        self._extra = dict(extra_env or {})
        self._parallelism = parallelism
        self._port = port
        self._lock: HomeLock | None = None
        self._launcher: subprocess.Popen[bytes] | None = None
        self._environment: Environment | None = None
        self._record: RunRecord | None = None
        self._client: ApiClient | None = None

    def __enter__(self) -> Self:
        """Start, unless ``start`` was called before."""
        if self._lock is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def url(self) -> str:
        """The UI and the API."""
        return self._started.url

    @property
    def store_url(self) -> str:
        """The agents' store."""
        return self._started.store_url

    @property
    def project(self) -> str:
        """The project files as ``[agentic] project_file`` names them."""
        return ",".join(map(str, self.project_files))

    @property
    def record(self) -> RunRecord:
        """What was written down about this start."""
        if self._record is None:
            raise LocalAirflowError(_NOT_STARTED)
        return self._record

    @property
    def env(self) -> dict[str, str]:
        """The environment for commands on this Airflow, for example ``airflow dags list``."""
        return self._started.variables()

    @property
    def client(self) -> ApiClient:
        """A client of the REST API, logged in as the administrator."""
        if self._client is None:
            self._client = ApiClient(self.url, USER, PASSWORD, self.check)
        return self._client

    def start(
        self,
        progress: Callable[[str], None] = lambda _: None,
        *,
        wipe: bool = False,
        prefer_port: int | None = None,
    ) -> None:
        """Start everything and wait until it is healthy; if that fails, nothing is left running.

        Args:
            progress: gets pieces of text as they come, line ends included, like ``sys.stdout.write``.
            wipe: remove the database, the logs and the store of earlier runs first.
            prefer_port: take this port if it is free and no port was given.

        Raises:
            HomeInUseError: an Airflow runs on this home already.
            LocalAirflowError: something did not start; the message has the end of its log.
            OSError: the home cannot be written.
        """
        if not self.dags_folder.is_dir():
            raise LocalAirflowError(f"There is no DAGs folder {self.dags_folder}.")
        lock = self.home.lock()
        lock.acquire()
        self._lock = lock
        try:
            self._clear(progress)
            self.home.prepare(wipe=wipe)
            self._boot(progress, self._ports(prefer_port))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything that was started; does nothing if nothing was.

        Raises:
            LocalAirflowError: some processes do not end.
        """
        if self._lock is None:
            return
        with signals_wait():
            try:
                end_all(self.home)
                if self._launcher is not None:
                    self._launcher.wait()
            finally:
                self._forget()

    def detach(self) -> None:
        """Leave it running when this process ends; ``down`` finds it by the home.

        Raises:
            OSError: the record cannot be written.
        """
        if self._record is None or self._lock is None or self._launcher is None:
            return
        self.home.mark(keep=True)
        self.home.write_run(replace(self._record, mode="up"))
        self._launcher.returncode = 0  # it is not this process's child to wait for any more
        self._forget()

    def check(self) -> None:
        """Make sure that all parts still run.

        Raises:
            ComponentDiedError: one does not; the message names it and has the end of its log.
        """
        ended = [
            (f"The {component}", exit_text(code), self.home.logs / f"{component}.log")
            for component, code in self.home.read_components()["ended"].items()
        ]
        if self._launcher is not None and (code := self._launcher.poll()) is not None:
            ended.append(("The launcher", exit_text(code), self.home.logs / "launcher.log"))
        if self._record is not None and not alive(self._record.postmaster):
            ended.append(("PostgreSQL", "process gone", self.home.postgres / "log"))
        if ended:
            who, how, log = ended[0]
            raise ComponentDiedError(f"{who} ended ({how}). Its log {log} ends:\n{tail(log)}")

    @property
    def _started(self) -> Environment:
        if self._environment is None:
            raise LocalAirflowError(_NOT_STARTED)
        return self._environment

    def _forget(self) -> None:
        self._launcher = self._record = self._environment = self._client = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _clear(self, progress: Callable[[str], None]) -> None:
        """Make sure that nothing runs on this home any more; what was left behind by accident is ended."""
        self.started_at = datetime.now(UTC)
        record = self.home.read_run()
        if record is not None and record.mode == "up" and alive(record.launcher):
            self._forget()  # it is not ours to stop
            raise HomeInUseError(
                f"Airflow runs on {self.home.path} already, at {record.url}. "
                f"End it with `{self.home.down_command}`, or choose another folder with --home."
            )
        left = ours(self.home)
        with step(progress, "Ending what an earlier run left behind") if left else nullcontext():
            end_all(self.home)

    def _ports(self, prefer: int | None) -> Ports:
        if self._port is not None and not Ports.is_free(self._port):
            raise LocalAirflowError(
                f"Port {self._port} is in use. Choose another one, or none for a free one."
            )
        if self._port is None and prefer is not None and Ports.is_free(prefer):
            return Ports.free(prefer)
        return Ports.free(self._port)

    def _boot(self, progress: Callable[[str], None], ports: Ports) -> None:
        with step(progress, "Starting PostgreSQL"):
            base = database.start(self.home)
        self._environment = Environment(
            self.home,
            self.dags_folder,
            base.urls,
            ports,
            self.home.secrets(),
            self._parallelism,
            self.project,
            self._extra,
        )
        self._environment.write_files()
        self._record = RunRecord(
            "run",
            self.url,
            str(self.dags_folder),
            self.started_at.isoformat(),
            postmaster=base.postmaster,
            project=self.project,
            sockets=None if base.socket_dir == self.home.postgres else str(base.socket_dir),
        )
        self.home.write_run(self._record)
        self._launch()
        with step(progress, "Importing Airflow"):
            self._until(lambda: self._stage() != components.IMPORTING)
        with step(progress, "Preparing its database"):
            self._until(lambda: self._stage() == components.RUNNING)
        with step(progress, "Starting scheduler, triggerer, DAG processor and API server"):
            self._until(self._healthy)
        with step(progress, "Warming up"):  # the first request of the first task would take 3 s
            self.client.request("GET", "/execution/health")
        self.home.mark(complete=True)

    def _launch(self) -> None:
        """Start the launcher in a session of its own: Ctrl-C in this terminal is for us, not for Airflow."""
        assert self._record is not None
        with (self.home.logs / "launcher.log").open("wb") as log:
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "localairflow.components", str(self.home.path)],
                # SPT_NOENV: or Airflow's process titles overwrite the environment by which we know them.
                env={**self.env, MARKER: str(self.home.path), "SPT_NOENV": "1"},
                cwd=self.home.path,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._record = replace(self._record, launcher=reference(self._launcher.pid))
        self.home.write_run(self._record)

    def _stage(self) -> str:
        return str(self.home.read_components()["stage"] or components.IMPORTING)

    def _healthy(self) -> bool:
        try:
            health = self.client.anonymous("GET", "/api/v2/monitor/health", timeout_s=5)
        except ApiError:
            return False
        # A database that was kept has heartbeats of the last run, which count as healthy for 30 s.
        beats = [health[name].get(f"latest_{name}_heartbeat") or "" for name in _HEARTBEATS]
        fresh = all(beat and datetime.fromisoformat(beat) >= self.started_at for beat in beats)
        return fresh and all(part["status"] == "healthy" for part in health.values())

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _BOOT_S
        while not done():
            self.check()
            if time.monotonic() > deadline:
                raise BootTimeoutError(f"Airflow is not ready after {_BOOT_S:.0f} s. See {self.home.logs}.")
            time.sleep(_POLL_S)
