"""The environment of the local Airflow: all of its configuration, and nothing of the caller's."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from localairflow.home import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localairflow.home import Home

__all__ = ["MARKER", "PASSWORD", "USER", "Environment", "Ports"]

USER = "admin"
PASSWORD = "admin"  # noqa: S105 - a throwaway Airflow that listens on this machine only
HOST = "127.0.0.1"

# Set for the processes we start and for nobody else. AIRFLOW_HOME would not do to recognise them: it may well be
# exported in the user's own shell or editor.
MARKER = "LOCALAIRFLOW_HOME"


@dataclass(frozen=True)
class Ports:
    """The TCP ports of one local Airflow."""

    api: int
    worker_log: int
    trigger_log: int

    @classmethod
    def free(cls, api: int | None = None) -> Ports:
        """Find ports that nobody uses.

        Args:
            api: a fixed port for the API server, instead of a free one.

        Raises:
            OSError: no port can be bound.
        """
        with ExitStack() as held:
            found: list[int] = []
            for _ in range(3):  # all held until the last is found, so that they differ
                probe = held.enter_context(socket.socket())
                probe.bind((HOST, 0))
                found.append(probe.getsockname()[1])
        return cls(api or found[0], found[1], found[2])

    @staticmethod
    def is_free(port: int) -> bool:
        """Whether a server could listen on this port now."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does: TIME_WAIT is free
            try:
                probe.bind((HOST, port))
            except OSError:
                return False
            return True


@dataclass(frozen=True)
class Environment:
    """All settings of one local Airflow.

    Attributes:
        database: name of the DBAPI driver to SQLAlchemy URL: ``psycopg2`` and ``asyncpg``.
        secrets: ``jwt``, ``session`` and ``fernet``, as the home keeps them.
        project: the agents' project files, with commas between them.
        extra: the caller's own settings; they win over ours.
    """

    home: Home
    dags_folder: Path
    database: Mapping[str, str]
    ports: Ports
    secrets: Mapping[str, str]
    parallelism: int = 4
    project: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the UI and the API listen."""
        return f"http://{HOST}:{self.ports.api}"

    @property
    def store_url(self) -> str:
        """The agents' store: a SQLite file in the home."""
        return f"sqlite:///{self.home.store}"

    def write_files(self) -> None:
        """Write what Airflow reads from files, and ``env.sh`` for people.

        Raises:
            OSError: a file cannot be written.
        """
        write_json(self.home.passwords, {USER: PASSWORD})
        # Without a file Airflow would write one with today's environment in it, and obey it tomorrow.
        (self.home.path / "airflow.cfg").write_text("# Empty on purpose: all settings are in env.sh.\n")
        (self.home.path / "plugins").mkdir(exist_ok=True)
        lines = ["# To use the airflow command on this Airflow:  . env.sh"]
        # The store can be read when Airflow and its database have ended, as after the demo.
        connection = json.dumps({"conn_type": "agentic", "extra": {"url": self.store_url}})
        settings = {**self.settings(), "AIRFLOW_CONN_AGENTIC_DEFAULT": connection}
        lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(settings.items())]
        lines += [f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"']
        script = self.home.path / "env.sh"
        script.touch(mode=0o600)
        script.write_text("\n".join(lines) + "\n")

    def settings(self) -> dict[str, str]:
        """The variables that make it this Airflow, without those of the machine."""
        named = {**self._core(), **self._agentic(), **self._network(), **self._speed()}
        return {
            "AIRFLOW_HOME": str(self.home.path),
            **{f"AIRFLOW__{key}": value for key, value in named.items()},
            "AIRFLOW_CONN_AIRFLOW_API": self._own_api(),
            **self.extra,
        }

    def variables(self) -> dict[str, str]:
        """The whole environment for a process that belongs to this Airflow, for example ``airflow dags list``."""
        # Settings from the caller's shell would make this Airflow a different one on each machine.
        base = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW__", "_AIRFLOW_", "AGENTIC__"))
            and name not in ("AIRFLOW_CONFIG", MARKER)
        }
        here = str(Path(__file__).parents[1])
        settings = self.settings()
        if base.pop("PYTHONDONTWRITEBYTECODE", "") and "PYTHONPYCACHEPREFIX" not in base:
            # Compiling Airflow takes 4 s of each start. The sources stay clean, as the caller wants it.
            base["PYTHONPYCACHEPREFIX"] = str(self.home.path / "pycache")
        local = ",".join(filter(None, (base.get("no_proxy") or base.get("NO_PROXY"), HOST, "localhost")))
        return {
            **base,
            # Supervisors look up `airflow` and `python` on the PATH, also when the venv is not activated.
            "PATH": _join(str(Path(sys.executable).parent), settings.get("PATH", base.get("PATH"))),
            "PYTHONPATH": _join(here, base.get("PYTHONPATH")),
            "NO_PROXY": local,
            "no_proxy": local,
            **{name: value for name, value in settings.items() if name not in ("PATH", "PYTHONPATH")},
            **({"PYTHONPATH": _join(here, settings["PYTHONPATH"])} if "PYTHONPATH" in settings else {}),
        }

    def _core(self) -> dict[str, str]:
        return {
            "CORE__DAGS_FOLDER": str(self.dags_folder),
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": str(self.parallelism),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__TEST_CONNECTION": "Enabled",  # on this machine nobody else can ask for it
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__FERNET_KEY": self.secrets["fernet"],
            "CORE__AUTH_MANAGER": (
                "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
            ),
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home.passwords),
            "API_AUTH__JWT_SECRET": self.secrets["jwt"],
            "API__SECRET_KEY": self.secrets["session"],
            "DATABASE__SQL_ALCHEMY_CONN": self.database["psycopg2"],
            "DATABASE__SQL_ALCHEMY_CONN_ASYNC": self.database["asyncpg"],
        }

    def _agentic(self) -> dict[str, str]:
        settings = {"AGENTIC__STORE_URL": self.store_url}
        if self.project:
            settings["AGENTIC__PROJECT_FILE"] = self.project
        return settings

    def _own_api(self) -> str:
        """The connection by which DAGs ask this Airflow itself."""
        api = {"conn_type": "http", "host": self.url, "login": USER, "password": PASSWORD}
        return json.dumps(api)

    def _network(self) -> dict[str, str]:
        return {
            "API__HOST": HOST,
            "API__PORT": str(self.ports.api),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "LOGGING__BASE_LOG_FOLDER": str(self.home.logs),
            "LOGGING__WORKER_LOG_SERVER_PORT": str(self.ports.worker_log),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(self.ports.trigger_log),
            "LOGGING__COLORED_CONSOLE_LOG": "False",
        }

    @staticmethod
    def _speed() -> dict[str, str]:
        """Short intervals: a task starts after 0.3 s instead of 2 s, a new DAG file is seen after 2 s."""
        return {
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
            "SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "1",
            "SCHEDULER__PARSING_CLEANUP_INTERVAL": "5",
            # The supervisor may sleep for one interval after its task has ended; 0 would be a busy loop.
            "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            # Not min_file_process_interval: an edited file is parsed at once anyway, and the unchanged
            # ones would cost 40 % of a core.
            "DAG_PROCESSOR__REFRESH_INTERVAL": "2",
            "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        }


def _join(first: str, rest: str | None) -> str:
    return f"{first}{os.pathsep}{rest}" if rest else first
