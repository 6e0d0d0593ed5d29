"""A Redis server for tests: each has a prefix of its own there, whose keys are deleted afterwards."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

_USUAL = "redis://127.0.0.1:6379/0"
_PATIENCE = 10


@functools.cache
def found() -> tuple[str, str | None]:
    """The server, and why there is none (``None`` if there is one).

    It is that of ``AGENTIC_TEST_REDIS_URL``, else the usual one of this machine, else one that is started for the tests.
    """
    named = os.environ.get("AGENTIC_TEST_REDIS_URL")
    reason = _refusal(named or _USUAL)
    if reason is None or named:
        return named or _USUAL, reason
    folder = Path(tempfile.mkdtemp(prefix="agentic-redis-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    started = Private(folder, ("--appendonly", "no"))
    try:
        started.start()
    except OSError as error:
        return _USUAL, f"{reason}; nor does one start: {error}"
    atexit.register(started.kill)
    os.environ["AGENTIC_TEST_REDIS_URL"] = started.url  # for the processes that tests start
    return started.url, None


def server() -> str:
    """Return the URL of the server."""
    return found()[0]


def unreachable() -> str | None:
    """Why there is no server, or ``None``."""
    return found()[1]


def require() -> None:
    """Skip the test where there is no server; on CI there must be one."""
    _insist(unreachable())


def client(url: str | None = None) -> redis.Redis:
    """Return a client past every store, which is to be closed."""
    import redis

    where = urlsplit(url or server())._replace(query="").geturl()
    return redis.Redis.from_url(where, protocol=2, decode_responses=True)


@contextlib.contextmanager
def prefix() -> Iterator[str]:
    """Yield a prefix that nobody has used; delete its keys afterwards."""
    require()
    name = f"agentic-test-{uuid.uuid4().hex[:12]}"
    try:
        yield name
    finally:
        clear(name)


def clear(name: str) -> None:
    """Delete the keys of a prefix."""
    with client() as direct:
        while keys := list(direct.scan_iter(f"{name}:*", count=10_000)):
            direct.delete(*keys)


def url_of(name: str) -> str:
    """Return the URL of a store with a prefix of its own."""
    return f"{server()}?prefix={name}"


@contextlib.contextmanager
def private(folder: Path, *options: str) -> Iterator[Private]:
    """Start a server of the test's own that writes every change to disk before it answers.

    Args:
        folder: Where it keeps its files.
        options: For its command line.
    """
    if shutil.which("redis-server") is None:
        _insist("no redis-server is installed here")
    started = Private(folder, ("--appendonly", "yes", "--appendfsync", "always", *options))
    started.start()
    try:
        yield started
    finally:
        started.kill()


@dataclass
class Private:
    """A server that can be killed and started again.

    Attributes:
        folder: Where it keeps its files.
        options: For its command line.
        port: Where it listens; always the same.
    """

    folder: Path
    options: tuple[str, ...]
    port: int = field(init=False)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.port = _free_port()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self.folder / "redis.log"
        self._process = subprocess.Popen([
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--save", "", "--logfile", str(log), *self.options,
        ])  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        # One that wants a password has started, too.
        while (reason := _refusal(self.url)) is not None and "Authentication required" not in reason:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise OSError(f"{reason}; its log: {log.read_text() if log.exists() else 'none'}")
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it with SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _refusal(url: str) -> str | None:
    try:
        with client(url) as direct:
            direct.ping()
    except Exception as error:  # noqa: BLE001  # a missing driver, a refused password: all mean no
        return f"no Redis at {urlsplit(url).hostname}:{urlsplit(url).port}: {error}".partition("\n")[0]
    return None


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _insist(reason: str | None) -> None:
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
