"""The command: ``python -m localairflow demo|up|down|status``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from localairflow import demo
from localairflow.client import ApiClient
from localairflow.components import COMPONENTS, RUNNING
from localairflow.console import write
from localairflow.environment import PASSWORD, USER
from localairflow.errors import ApiError, HomeInUseError, LocalAirflowError
from localairflow.home import DEFAULT_HOME, Home, ProcessRef
from localairflow.processes import alive, end_all, exit_text, ours, signals_wait
from localairflow.stack import LocalAirflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localairflow.home import HomeLock, RunRecord

_USUAL_PORT = 8080
_INTERRUPTED = 130
_NOT_RUNNING = 3
_TAKEOVER_S = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 when all went well, 1 after an error, 3 if ``status`` finds nothing, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    commands = {"demo": _demo, "up": _up, "down": _down, "status": _status}
    try:
        return commands[options.command](options)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted; nothing is left running.\n")
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at exit
        return 1
    except (LocalAirflowError, OSError) as error:
        sys.stderr.write(f"\nError: {error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", type=Path, default=DEFAULT_HOME, help="AIRFLOW_HOME (%(default)s)")
    start = argparse.ArgumentParser(add_help=False)
    start.add_argument("--port", type=int, help="port of the UI and the API")
    start.add_argument(
        "--dags", type=Path, default=DEFAULT_HOME.parent / "dags", help="DAGs folder (%(default)s)"
    )
    start.add_argument(
        "--environment", help="lay agentic.ENVIRONMENT.yaml of the DAGs folder over its agentic.yaml"
    )
    start.add_argument("--parallelism", type=int, default=4, help="tasks at once (%(default)s)")
    start.add_argument("--fresh", action="store_true", help="remove what earlier runs left in the home first")
    parser = argparse.ArgumentParser(prog="localairflow", description="A real Airflow on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("demo", parents=[common, start], help="start, run the example, stop")
    shown.add_argument("--dag", default=demo.DAG_ID, help="the DAG to run (%(default)s)")
    commands.add_parser("up", parents=[common, start], help="start, and leave it running")
    commands.add_parser("down", parents=[common], help="end what up has started")
    commands.add_parser("status", parents=[common], help="say what runs")
    return parser


def _stack(options: argparse.Namespace) -> LocalAirflow:
    return LocalAirflow(
        options.home,
        options.dags,
        parallelism=options.parallelism,
        port=options.port,
        environment=options.environment,
    )


def _demo(options: argparse.Namespace) -> int:
    stack = _stack(options)
    kept = stack.home.keeps_data and not options.fresh
    write(f"A local Airflow in {stack.home.path}\n")
    if kept:
        write("It keeps the data of `make up` (--fresh removes it).\n")
    demo.introduce(stack)
    begin = time.monotonic()
    try:
        stack.start(write, wipe=not kept)
        took = time.monotonic() - begin
        write(f"Airflow is ready after {took:.1f} s: {stack.url} ({USER} / {PASSWORD})\n\n")
        return demo.run(stack, options.dag)
    finally:
        stack.stop()


def _up(options: argparse.Namespace) -> int:
    stack = _stack(options)
    home = stack.home
    record = _running(home)
    if record is not None and record.mode == "up":
        if record.project != stack.project:
            raise HomeInUseError(
                f"Airflow runs already, with {record.project or 'no project file'} and not with "
                f"{stack.project or 'none'}. End it first: `{home.down_command}`."
            )
        write("Airflow runs already.\n" + _how_to_use(home, record))
        return 0
    write(f"A local Airflow in {home.path}\n")
    demo.introduce(stack)
    begin = time.monotonic()
    try:
        stack.start(write, wipe=options.fresh, prefer_port=_USUAL_PORT)
        text = _how_to_use(home, stack.record)
        with signals_wait():
            stack.detach()
    finally:
        stack.stop()  # does nothing once it is detached
    write(f"Airflow is ready after {time.monotonic() - begin:.1f} s.\n{text}")
    return 0


def _down(options: argparse.Namespace) -> int:
    home = Home(options.home.expanduser().resolve())
    if not home.path.is_dir():
        write(f"Nothing runs in {home.path}.\n")
        return 0
    lock = _take_over(home)
    try:
        with signals_wait():
            count = end_all(home)
    finally:
        lock.release()
    write(f"Ended {count} processes of {home.path}.\n" if count else f"Nothing runs in {home.path}.\n")
    return 0


def _take_over(home: Home) -> HomeLock:
    """Get the lock; ask the process that has it to end first."""
    lock = home.lock()
    deadline = time.monotonic() + _TAKEOVER_S
    asked = False
    while True:
        try:
            lock.acquire()
        except HomeInUseError:
            holder = lock.holder()
            if holder is None or time.monotonic() > deadline:
                raise
            if not asked:
                write(f"Asking process {holder} to end ...\n")
                os.kill(holder, signal.SIGTERM)
                asked = True
            time.sleep(0.1)
        else:
            return lock


def _status(options: argparse.Namespace) -> int:
    home = Home(options.home.expanduser().resolve())
    record = _running(home)
    if record is None:
        left = ours(home) if home.path.is_dir() else []
        write(f"No Airflow runs in {home.path}.\n")
        if left:
            write(f"{len(left)} processes of an earlier or a starting one do; `down` ends them.\n")
        return _NOT_RUNNING
    state = home.read_components()
    verb = "runs" if state["stage"] == RUNNING else "is starting"
    write(f"Airflow {verb} since {record.started_at} on the DAGs in {record.dags_folder}\n")
    write(_how_to_use(home, record))
    health = _health(record.url)
    for component in COMPONENTS:
        write(f"  {component:<14} {_component(state, component, health)}\n")
    write(f"  {'postgresql':<14} {_process(record.postmaster)}\n")
    return 0


def _component(state: dict[str, Any], component: str, health: dict[str, Any]) -> str:
    if component in state["ended"]:
        return f"ended ({exit_text(state['ended'][component])})"
    values = state["running"].get(component)
    text = _process(ProcessRef(**values) if values else None)
    part = health.get(component.replace("-", "_"), {}).get("status")
    return f"{text}, {part}" if part else text


def _process(ref: ProcessRef | None) -> str:
    return f"running, process {ref.pid}" if ref is not None and alive(ref) else "not running"


def _health(url: str) -> dict[str, Any]:
    try:
        health: dict[str, Any] = ApiClient(url, USER, PASSWORD).anonymous(
            "GET", "/api/v2/monitor/health", timeout_s=3
        )
    except ApiError:
        return {}
    return health


def _running(home: Home) -> RunRecord | None:
    record = home.read_run() if home.path.is_dir() else None
    return record if record is not None and alive(record.launcher) else None


def _how_to_use(home: Home, record: RunRecord) -> str:
    return (
        f"  UI and API   {record.url}\n"
        f"  log in as    {USER} / {PASSWORD}\n"
        f"  home         {home.path}\n"
        f"  logs         {home.logs}\n"
        f"  project      {record.project or 'none'}\n"
        f"  CLI          . {home.path}/env.sh, then for example: airflow dags list\n"
        f"  stop         {home.down_command}\n"
    )


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
