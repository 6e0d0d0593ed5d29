"""The launcher: one process imports Airflow, migrates its database, and forks one child a component.

Four processes that each import Airflow need three times as long. Run by the stack, in a session of its own:
``python -m localairflow.components <home>``. What it does is in ``<home>/components.json``.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from localairflow.home import Home, write_json
from localairflow.processes import reference

__all__ = ["COMPONENTS", "IMPORTING", "MIGRATING", "RUNNING", "main"]

# The API server takes longest, so it goes first.
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
IMPORTING, MIGRATING, RUNNING = "importing", "migrating", "running"

# What the components import by themselves once they run; here it is paid once.
_PRELOADED = (
    "airflow.__main__",
    "airflow.cli.commands.api_server_command",
    "airflow.cli.commands.dag_processor_command",
    "airflow.cli.commands.scheduler_command",
    "airflow.cli.commands.triggerer_command",
    "airflow.api_fastapi.app",
    "airflow.api_fastapi.core_api.app",
    "airflow.api_fastapi.core_api.routes.public",
    "airflow.api_fastapi.core_api.routes.ui",
    "airflow.api_fastapi.execution_api.app",
    "airflow.api_fastapi.execution_api.routes",
    "airflow.executors.local_executor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.providers.standard.operators.python",
    "airflow.utils.serve_logs.core",
    "airflow.utils.serve_logs.log_server",
)


class _Report:
    """The launcher's state file."""

    def __init__(self, home: Home) -> None:
        self._file = home.components
        self._values: dict[str, Any] = {"stage": IMPORTING, "running": {}, "ended": {}}

    def stage(self, name: str) -> None:
        self._values["stage"] = name
        self._write()

    def started(self, component: str, pid: int) -> None:
        ref = reference(pid)
        if ref is not None:  # else it is reaped in a moment, and reported then
            self._values["running"][component] = asdict(ref)
        self._write()

    def ended(self, component: str, code: int) -> None:
        self._values["running"].pop(component, None)
        self._values["ended"][component] = code
        self._write()

    def _write(self) -> None:
        write_json(self._file, self._values)


def main(home: Home) -> int:
    """Start all components and stay until they have all ended.

    Returns:
        The exit code: 1, because components end only when something is wrong.

    Raises:
        Exception: whatever Airflow raises while it is imported or migrated.
    """
    report = _Report(home)
    report.stage(IMPORTING)
    for name in _PRELOADED:
        importlib.import_module(name)
    report.stage(MIGRATING)
    _migrate()
    gc.collect()
    gc.freeze()  # the children share these pages as long as the collector leaves them alone
    children = {}
    for component in COMPONENTS:
        pid = _fork(component, home.logs / f"{component}.log")
        children[pid] = component
        report.started(component, pid)
    report.stage(RUNNING)
    while children:
        pid, status = os.wait()
        if pid in children:
            report.ended(children.pop(pid), os.waitstatus_to_exitcode(status))
    return 1


def _migrate() -> None:
    from airflow import settings
    from airflow.utils.db import initdb

    initdb()
    # A connection that two processes share would mix up their conversations with the server.
    settings.dispose_orm()


def _fork(component: str, log: Path) -> int:
    pid = os.fork()
    if pid == 0:
        _become(component, log)
    return pid


def _become(component: str, log: Path) -> NoReturn:
    """Turn the forked child into ``airflow <component>``; it never returns to the launcher's code."""
    code = 1
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(target, stream)
        from airflow import settings
        from airflow.__main__ import main as airflow_main

        settings.configure_orm()
        sys.argv = ["airflow", component]
        airflow_main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - there is nobody above us who could tell
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(Home(Path(sys.argv[1]))))
