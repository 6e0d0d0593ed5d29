"""The metadata database: the PostgreSQL that the ``pgserver`` wheel brings, on a unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from localairflow.environment import MARKER
from localairflow.errors import DatabaseError
from localairflow.home import tail
from localairflow.processes import reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localairflow.home import Home, ProcessRef

__all__ = ["Database", "start"]

_ROLE = "postgres"
_SERVER_USER = "pgserver"  # PostgreSQL refuses to run as root
_START_S = 60
_SOCKET_NAME = "/.s.PGSQL.5432"
_SOCKET_PATH_MAX = 100  # the kernel's limit is 108 on Linux, 104 elsewhere

# A crash of the machine may cost this database, and nobody would miss it; a crash of PostgreSQL costs nothing.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "''",
}


@dataclass(frozen=True)
class Database:
    """A running PostgreSQL.

    Attributes:
        socket_dir: where its socket is.
        postmaster: the server's process.
    """

    socket_dir: Path
    postmaster: ProcessRef

    @property
    def urls(self) -> Mapping[str, str]:
        """SQLAlchemy URLs by driver."""
        where = f"{_ROLE}@/postgres?host={quote(str(self.socket_dir), safe='/')}"
        return {driver: f"postgresql+{driver}://{where}" for driver in ("psycopg2", "asyncpg")}


def start(home: Home) -> Database:
    """Start PostgreSQL in the home; the caller has made sure that none runs there.

    pgserver's own ``get_server`` is not used: it cannot start in a folder with a space in its name, gives a slow
    machine 10 seconds, and returns a stopped server again to a process that has started it before.

    Raises:
        DatabaseError: pgserver is missing, or the server does not start.
        OSError: the data directory cannot be written.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR, which nothing here needs
            import pgserver.utils as wheel
    except ImportError as error:
        raise DatabaseError(
            "The package pgserver is missing; it brings PostgreSQL. Install the local tools: "
            "pip install pgserver psycopg2-binary asyncpg psutil"
        ) from error
    programs = Path(wheel.__file__).parent / "pginstall" / "bin"
    data = home.postgres
    data.mkdir(mode=0o700, exist_ok=True)
    user = None
    if os.geteuid() == 0:
        user = _SERVER_USER
        wheel.ensure_user_exists(user)
        for path in (data, programs):
            wheel.ensure_prefix_permissions(path)
        shutil.chown(data, user)
    if not (data / "PG_VERSION").exists():
        options = ["--auth=trust", "--encoding=utf8", "--no-sync", "--username", _ROLE]
        _run(home, [programs / "initdb", "-D", data, *options], user)
    sockets = _socket_dir(data, user)
    _configure(data, sockets)
    _run(
        home, [programs / "pg_ctl", "-D", data, "-l", data / "log", "-w", "-t", str(_START_S), "start"], user
    )
    postmaster = reference(int((data / "postmaster.pid").read_text(encoding="utf-8").split()[0]))
    if postmaster is None:
        raise DatabaseError(f"PostgreSQL ended at once. Its log ends:\n{tail(data / 'log')}")
    return Database(sockets, postmaster)


def _run(home: Home, command: list[str | Path], user: str | None) -> None:
    # A file, not a pipe: the server keeps the output of pg_ctl open, and reading a pipe would never end.
    with (home.logs / "postgres-start.log").open("w+b") as output:
        try:
            subprocess.run(
                command,
                check=True,
                user=user,
                cwd=home.postgres,
                # initdb refuses a locale that is named in the environment but not installed.
                env={**os.environ, MARKER: str(home.path), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except subprocess.CalledProcessError as error:
            logs = tail(Path(output.name)), tail(home.postgres / "log")
            hint = "PostgreSQL did not start. If its data is damaged, start with --fresh. Its logs end:"
            raise DatabaseError("\n".join([hint, *logs])) from error


def _socket_dir(data: Path, user: str | None) -> Path:
    """The data directory, which only its owner may enter; a short path if its name is too long for a socket."""
    if len(os.fsencode(data)) + len(_SOCKET_NAME) <= _SOCKET_PATH_MAX:
        return data
    folder = Path(tempfile.mkdtemp(prefix="localairflow-"))
    if user is not None:
        shutil.chown(folder, user)
    return folder


def _configure(data: Path, sockets: Path) -> None:
    quoted = str(sockets).replace("'", "''")
    settings = {**_SETTINGS, "unix_socket_directories": f"'\"{quoted}\"'"}
    lines = [f"{name} = {value}" for name, value in settings.items()]
    (data / "local.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    main, line = data / "postgresql.conf", "include = 'local.conf'\n"
    text = main.read_text(encoding="utf-8")
    if not text.endswith(line):
        main.write_text(text + line, encoding="utf-8")
