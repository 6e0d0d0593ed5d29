"""The world outside of the store: lines that a SIGKILL cannot take back, and places where a test holds who works.

What a test wants stands in files of the DAG run's folder, ``<AIRFLOW_HOME>/outside/<run>``.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from airflow_agentic.agents import AgentContext

_LOOK_SECONDS = 0.02


def folder(run_id: str) -> Path:
    """Return the folder of a DAG run."""
    return Path(os.environ["AIRFLOW_HOME"]) / "outside" / run_id


def effect(ctx: AgentContext, what: str, to: str | None = None, **more: Any) -> None:
    """Do something that cannot be taken back: one line, on disk when this returns; in this DAG run's folder or another."""
    assert ctx.run is not None
    line = {"what": what, "try": ctx.run.try_number, "pid": os.getpid(), **more}
    target = folder(to or ctx.run.run_id)
    target.mkdir(parents=True, exist_ok=True)
    handle = os.open(target / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, f"{json.dumps(line)}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def hold(run_id: str, moment: str) -> None:
    """Say who comes to a moment first, and keep that process there for as long as the test wants it."""
    wanted = folder(run_id) / f"hold {moment}"
    if not wanted.exists():
        return
    at = folder(run_id) / f"at {moment}"
    try:
        with at.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return
    _wait_for(wanted)


def gate(run_id: str, name: str) -> None:
    """Let nobody by before the test opens."""
    _wait_for(folder(run_id) / f"shut {name}")


def is_there(run_id: str, name: str) -> bool:
    """Return whether the test has put something into the folder."""
    return (folder(run_id) / name).exists()


def _wait_for(file: Path) -> None:
    while file.exists():
        time.sleep(_LOOK_SECONDS)
