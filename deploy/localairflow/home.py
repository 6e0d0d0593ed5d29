"""The home folder of one local Airflow: its files, its records, its lock."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import shlex
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from localairflow.errors import HomeInUseError, LocalAirflowError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_HOME", "Home", "HomeLock", "ProcessRef", "RunRecord", "tail", "write_json"]

DEFAULT_HOME = Path(__file__).resolve().parents[2] / ".airflow"

# What a clean start removes. Nothing else in the folder is ours to delete.
_DATA = ("postgres", "logs", "reports", "agentic.db", "agentic.db-wal", "agentic.db-shm")


@dataclass(frozen=True)
class ProcessRef:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    created: float


@dataclass(frozen=True)
class RunRecord:
    """What was started on a home (``run.json``): enough to reach it and to end it.

    Attributes:
        mode: ``run`` ends with the process that started it, ``up`` stays until ``down``.
        launcher: the parent of Airflow's components.
        project: the project files, with commas between them.
        postmaster: the PostgreSQL server.
        sockets: the folder of its socket, if it is to be removed with the server.
    """

    mode: str
    url: str
    dags_folder: str
    started_at: str
    project: str = ""
    launcher: ProcessRef | None = None
    postmaster: ProcessRef | None = None
    sockets: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunRecord:
        """Read a record back.

        Raises:
            KeyError: a field is missing.
            TypeError: a field has the wrong shape.
        """
        launcher, postmaster = (
            ProcessRef(**values[name]) if values[name] else None for name in ("launcher", "postmaster")
        )
        mode, url, dags, started = (
            str(values[name]) for name in ("mode", "url", "dags_folder", "started_at")
        )
        project = str(values.get("project", ""))
        return cls(mode, url, dags, started, project, launcher, postmaster, values["sockets"])


class HomeLock:
    """Held while one process starts, uses or stops the Airflow of a home; the kernel frees it if that dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock at once or not at all.

        Raises:
            HomeInUseError: another process holds it; the message names that process.
        """
        file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self.holder()
            file.close()
            who = f"process {holder}" if holder else "another process"
            raise HomeInUseError(
                f"{self.path.parent} is in use by {who}. Wait for it, end it (Ctrl-C in its terminal, or "
                f"`{Home(self.path.parent).down_command}`), or choose another folder with --home."
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def holder(self) -> int | None:
        """The process that took the lock last."""
        with suppress(OSError, ValueError):
            return int(self.path.read_text(encoding="utf-8"))
        return None

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True)
class Home:
    """Paths and small files below one ``AIRFLOW_HOME``."""

    path: Path

    @property
    def postgres(self) -> Path:
        """The data directory of PostgreSQL."""
        return self.path / "postgres"

    @property
    def logs(self) -> Path:
        """Where Airflow and each of its components write."""
        return self.path / "logs"

    @property
    def store(self) -> Path:
        """The SQLite file of the agents' store."""
        return self.path / "agentic.db"

    @property
    def passwords(self) -> Path:
        """The users' passwords, as SimpleAuthManager reads them."""
        return self.path / "passwords.json"

    @property
    def components(self) -> Path:
        """What the launcher says about its stage and its children."""
        return self.path / "components.json"

    @property
    def run_file(self) -> Path:
        """The record of what runs."""
        return self.path / "run.json"

    @property
    def _mark(self) -> Path:
        return self.path / "home.json"

    @property
    def down_command(self) -> str:
        """What a person types to end the Airflow of this home."""
        if self.path == DEFAULT_HOME:
            return "make down"
        return f"PYTHONPATH=deploy python -m localairflow down --home {shlex.quote(str(self.path))}"

    def lock(self) -> HomeLock:
        """The lock of this home, not yet taken.

        Raises:
            OSError: the folder cannot be made.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        return HomeLock(self.path / "lock")

    def read_run(self) -> RunRecord | None:
        """The record of the last start, if it was not stopped since."""
        with suppress(KeyError, TypeError):
            return RunRecord.from_json(_read(self.run_file))
        return None

    def write_run(self, record: RunRecord) -> None:
        """Keep what is needed to find the processes again, even after a ``kill -9`` of this one.

        Raises:
            OSError: the file cannot be written.
        """
        write_json(self.run_file, asdict(record))

    def read_components(self) -> dict[str, Any]:
        """The launcher's last word: ``stage``, ``running`` and ``ended``."""
        return {"stage": "", "running": {}, "ended": {}, **_read(self.components)}

    def forget_run(self) -> None:
        """Remove the record: nothing runs any more."""
        self.run_file.unlink(missing_ok=True)
        self.components.unlink(missing_ok=True)

    def secrets(self) -> dict[str, str]:
        """The secrets of this home: made once, because encrypted connections outlive a restart.

        Raises:
            OSError: the file cannot be written.
        """
        file = self.path / "secrets.json"
        known: dict[str, str] = {
            "jwt": secrets.token_hex(64),
            "session": secrets.token_hex(32),
            "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            **_read(file),
        }
        write_json(file, known)
        return known

    def prepare(self, *, wipe: bool) -> None:
        """Make the folder ready for a start.

        A database whose first start was cut short is half made, so it goes in any case.

        Args:
            wipe: start clean: remove database, logs, store and reports.

        Raises:
            LocalAirflowError: the folder holds something else, and must not be cleaned.
            OSError: a file cannot be removed or written.
        """
        mark = _read(self._mark)
        found = {entry.name for entry in self.path.iterdir()}
        foreign = sorted(found.intersection((*_DATA, "airflow.cfg"))) if not mark else []
        if foreign:
            raise LocalAirflowError(
                f"{self.path} was not made by this tool but has {', '.join(foreign)}. "
                "Choose an empty folder with --home."
            )
        remove = _DATA if wipe else () if mark.get("complete") else ("postgres",)
        write_json(self._mark, {"complete": False, "keep": False, **({} if wipe else mark)})
        for name in remove:
            _remove(self.path / name)
        self.logs.mkdir(exist_ok=True)

    @property
    def keeps_data(self) -> bool:
        """Whether somebody worked here with ``up``, so that a demo must not clean it."""
        return bool(_read(self._mark).get("keep"))

    def mark(self, **values: bool) -> None:
        """Note that the database is ``complete``, or that the data is to ``keep``.

        Raises:
            OSError: the file cannot be written.
        """
        write_json(self._mark, {**_read(self._mark), **values})


def tail(file: Path, lines: int = 15) -> str:
    """The last lines of a log, indented; a note if there are none."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - 200_000))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        text = ""
    kept = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(f"    {line}" for line in kept) or "    (its log is empty)"


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Replace a small JSON file whole, so that no reader sees half of it; only the owner may read it.

    Raises:
        OSError: the file cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(values, out, indent=1)
    draft.replace(file)


def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        values = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return values
    return {}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
