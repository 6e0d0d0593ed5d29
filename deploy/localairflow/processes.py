"""Find the processes of a home, whoever their parent is, and end them all."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil

from localairflow.environment import MARKER
from localairflow.errors import LocalAirflowError
from localairflow.home import ProcessRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import FrameType

    from localairflow.home import Home

__all__ = ["alive", "end_all", "exit_text", "ours", "reference", "signals_wait"]

_SAME_START_S = 1.5  # the start time is computed from the boot time, which moves when the clock is set
_FAST_SHUTDOWN_S = 5.0
_PATIENCE_S = 15.0


def reference(pid: int) -> ProcessRef | None:
    """Identify a running process; None if it has ended."""
    try:
        return ProcessRef(pid, psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def alive(ref: ProcessRef | None) -> bool:
    """Whether exactly this process still runs."""
    return _process(ref) is not None


def exit_text(code: int) -> str:
    """Put an exit code into words."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def ours(home: Home) -> list[psutil.Process]:
    """All processes of this home, in any session or process group, without this one and its ancestors.

    The record names the parents; the marker in their environment finds those that lost theirs.
    """
    record = home.read_run()
    components = home.read_components()["running"].values()
    refs = [ProcessRef(**values) for values in components]
    refs += [ref for ref in (record and record.launcher, record and record.postmaster) if ref]
    found = {process.pid: process for process in _marked(home.path)}
    for process in [*filter(None, map(_process, refs)), _postmaster(home)]:
        if process is not None:
            found[process.pid] = process
    for process in list(found.values()):
        with suppress(psutil.Error):
            found.update({child.pid: child for child in process.children(recursive=True)})
    me = psutil.Process()
    for kept in (me, *me.parents()):
        found.pop(kept.pid, None)
    return [process for process in found.values() if _runs(process)]


def end_all(home: Home) -> int:
    """End every process of this home: Airflow at once, then PostgreSQL with a chance to close its files.

    Returns:
        How many processes there were.

    Raises:
        LocalAirflowError: some do not go away.
    """
    count = 0
    deadline = time.monotonic() + _PATIENCE_S
    while found := ours(home):  # again and again, because a process may fork between the look and the kill
        if time.monotonic() > deadline:
            left = ", ".join(f"{process.pid}" for process in found)
            raise LocalAirflowError(f"These processes of {home.path} do not end: {left}.")
        postgres = [process for process in found if _name(process) == "postgres"]
        others = [process for process in found if process not in postgres]
        count += len(found)
        _kill(others)
        if not others:
            _shut_down(_postmaster(home))
            _kill(postgres)
    # A stale file makes PostgreSQL believe in a server as soon as the system reuses the number.
    (home.postgres / "postmaster.pid").unlink(missing_ok=True)
    record = home.read_run()
    if record is not None and record.sockets:
        shutil.rmtree(record.sockets, ignore_errors=True)
    home.forget_run()
    return count


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let Ctrl-C and friends wait until the block is done: half a clean-up leaves processes behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    handlers = {number: signal.signal(number, note) for number in _INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:
            signal.raise_signal(came[0])


_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _process(ref: ProcessRef | None) -> psutil.Process | None:
    if ref is None:
        return None
    try:
        process = psutil.Process(ref.pid)
        same = abs(process.create_time() - ref.created) < _SAME_START_S
    except psutil.Error:
        return None
    return process if same and _runs(process) else None


def _marked(path: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # other users' processes, and those that end while we look
            if process.environ().get(MARKER) == str(path):
                yield process


def _postmaster(home: Home) -> psutil.Process | None:
    """The PostgreSQL server of this home, by its own pid file."""
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        lines = (home.postgres / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        process = psutil.Process(int(lines[0]))
        if str(home.postgres) in process.cmdline():
            return process
    return None


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def _kill(processes: Iterable[psutil.Process]) -> None:
    targets = list(processes)
    for process in targets:
        with suppress(psutil.Error):
            process.kill()
    _wait(targets, timeout_s=2)


def _shut_down(postmaster: psutil.Process | None) -> None:
    if postmaster is None:
        return
    with suppress(psutil.Error):
        postmaster.send_signal(signal.SIGINT)  # "fast": drop the clients, then write a checkpoint
        _wait([postmaster], _FAST_SHUTDOWN_S)


def _wait(processes: Iterable[psutil.Process], timeout_s: float) -> None:
    """Wait until all have ended; a zombie has: psutil's own wait is for somebody to collect it, too."""
    deadline = time.monotonic() + timeout_s
    while any(map(_runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
