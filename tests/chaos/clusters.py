"""A PostgreSQL server of a test's own, which can be stopped as if its machine had lost power."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import disks
import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
port = {port}
max_connections = 60
shared_buffers = '32MB'
# Whoever does not wait for the disk may have much to lose.
wal_buffers = '32MB'
"""


@dataclass
class Cluster:
    """A server that can be stopped and started again.

    Attributes:
        programs: Where ``pg_ctl`` is.
        folder: Where it keeps its files.
        port: Where it listens; always the same.
        user: Who runs it: PostgreSQL refuses to be root.
        ballast: What lies on its small disk.
    """

    programs: Path
    folder: Path
    port: int
    user: str
    ballast: Path = Path()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def start(self, *before: str) -> None:
        """Start it, and wait until it answers.

        Args:
            before: What stands before the command; root runs it then, and lets the user go on.
        """
        log = self.folder / "server.log"
        self._run(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-l",
            str(log),
            "-w",
            "-t",
            "60",
            "start",
            before=before,
        )

    def stop(self) -> None:
        """End it at once: no checkpoint, no goodbye; it recovers from its log when it starts."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def stop_writing(self) -> None:
        """Let nobody write the log but those who wait for it."""
        for child in self._process().children():
            # A server of a session that ended may be gone by now.
            with contextlib.suppress(psutil.NoSuchProcess):
                if "walwriter" in " ".join(child.cmdline()):
                    child.suspend()

    def kill(self) -> None:
        """Kill all of it with SIGKILL: whoever was stopped could not end otherwise."""
        server = self._process()
        for process in (server, *server.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([server], timeout=10)

    def _process(self) -> psutil.Process:
        return psutil.Process(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]))

    def make(self) -> None:
        data = self.folder / "data"
        self._run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS.format(port=self.port))

    def start_with_small_disk(self, size: str) -> None:
        """Start it with a tablespace ``small`` on a disk of that size, which is half full."""
        import psycopg

        small = self.folder / "small"
        small.mkdir()
        shutil.chown(small, self.user)
        entry = pwd.getpwnam(self.user)
        become = ("setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups")
        self.start(*disks.inside(small, size, f"uid={entry.pw_uid}", "mode=700"), *become)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{small}'")
        # Only the server sees that disk; this is how others look through its eyes.
        self.ballast = Path(f"/proc/{self._process().pid}/root{small}/ballast")
        self.ballast.write_bytes(bytes(os.statvfs(self.ballast.parent).f_bavail * 4096 // 2))

    def make_room(self) -> None:
        """Empty the half of the small disk that is full."""
        self.ballast.unlink()

    def _run(self, program: str, *arguments: str, before: tuple[str, ...] = ()) -> None:
        who: dict[str, Any] = {}
        if self.user != getpass.getuser() and not before:
            entry = pwd.getpwnam(self.user)
            who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        # Not a pipe for the output: the server would keep it open.
        with (self.folder / "programs.log").open("a") as log:
            ended = subprocess.run(
                [*before, str(self.programs / program), *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                check=False,
                **who,
            )
        if ended.returncode:
            logs = [path.read_text()[-2_000:] for path in self.folder.glob("*.log")]
            raise OSError(f"{program} ended with {ended.returncode}: {' '.join(logs)}")


def programs() -> Path | None:
    """Where PostgreSQL's programs are: those of this machine, the newest ones, else those of a wheel."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    if installed:
        return installed[-1].parent
    with contextlib.suppress(ImportError):
        import pgserver

        return Path(pgserver.__file__).parent / "pginstall" / "bin"
    return None


def user() -> str:
    """Who runs a server: this user, or somebody else if this one is root."""
    if os.getuid() != 0:
        return getpass.getuser()
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


@contextlib.contextmanager
def private(small_disk: str = "") -> Iterator[Cluster]:
    """Make a server and start it; everything is gone afterwards.

    Args:
        small_disk: Size of a disk for the tablespace ``small``, which only root can make.
    """
    found = programs()
    if found is None:
        _insist("no PostgreSQL is installed here, and no wheel of it")
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="agentic-cluster-"))
    cluster = Cluster(found, folder, free_port(), user())
    try:
        shutil.chown(folder, cluster.user)
        cluster.make()
        if small_disk:
            cluster.start_with_small_disk(small_disk)
        else:
            cluster.start()
        yield cluster
    finally:
        with contextlib.suppress(OSError):
            cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _insist(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
