"""A process that does with a store what a test tells it, line by line. As a script: that process."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_agentic.errors import AgenticError
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.messaging.delivery import Delivery
from airflow_agentic.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


class Strings:
    """What a puppet can do. What it settles is what it received from a mailbox last."""

    def __init__(self, url: str, lease: float):
        self.store = open_store(url, options=BusOptions(lease=timedelta(seconds=lease), max_attempts=20))
        self.bus = self.store.bus
        self.held: dict[str, list[Delivery]] = {}

    def send(self, box: str = "box", ids: list[str] | None = None, size: int = 0) -> list[bool]:
        return self.bus.send_many(
            Message(source="puppet", recipient=box, id=name, data="x" * size) for name in ids or ["one"]
        )

    def receive(self, box: str = "box", most: int = 1) -> list[dict[str, Any]]:
        self.held[box] = self.bus.receive(box, max_messages=most)
        return [{"id": each.message.id, "attempt": each.attempt} for each in self.held[box]]

    def ack(self, box: str = "box", **effects: Any) -> None:
        effects["send"] = [Message(source="puppet", recipient=each) for each in effects.get("send", ())]
        for delivery in self.held[box]:
            delivery.ack(**effects)

    def nack(self, box: str = "box") -> None:
        for delivery in self.held[box]:
            delivery.nack(delay=timedelta(0), reason="told to")

    def reject(self, box: str = "box") -> None:
        for delivery in self.held[box]:
            delivery.reject("told to")

    def release(self, box: str = "box") -> None:
        for delivery in self.held[box]:
            delivery.release()

    def extend(self, box: str = "box") -> None:
        for delivery in self.held[box]:
            delivery.extend()

    def stats(self, box: str = "box") -> dict[str, int]:
        found = self.bus.stats(box)
        names = ("ready", "delayed", "leased", "expired", "done", "dead")
        return {name: getattr(found, name) for name in names}

    def state(self, key: str, box: str = "box") -> int:
        """How often a value was kept."""
        return self.bus.state(box).version(key)

    def fill(self, path: str) -> None:
        """Leave no room on a disk."""
        with Path(path).open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(b"x" * 4096)

    def limit(self, size: int) -> None:
        """Let no file of this process grow beyond some bytes; -1 for no limit."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def make_room(self, path: str) -> None:
        Path(path).unlink()


class Puppet:
    """The test's end of the strings."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process

    def tell(self, what: str, **values: Any) -> None:
        """Ask for something, and do not wait."""
        print(json.dumps([what, values]), file=self.process.stdin, flush=True)

    def hear(self) -> Any:
        """Return what came of it; an error is the error's name and text."""
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"it ended: {self.process.communicate()[1]}")
        return json.loads(line)

    def ask(self, what: str, **values: Any) -> Any:
        self.tell(what, **values)
        return self.hear()

    def stop(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def puppet(
    url: str, *, lease: float = 60, env: dict[str, str] | None = None, inside: tuple[str, ...] = ()
) -> Iterator:
    """Start a puppet.

    Args:
        url: Of the store.
        lease: Seconds.
        env: More of its environment.
        inside: Command that runs it.
    """
    python_path = os.pathsep.join((str(HERE), str(HERE.parent)))
    process = subprocess.Popen(
        [*inside, sys.executable, "-W", "error", __file__, url, str(lease)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": python_path, **(env or {})},
    )
    try:
        yield Puppet(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def main(url: str, lease: str) -> None:
    strings: Strings | None = None
    for line in sys.stdin:
        what, values = json.loads(line)
        try:
            # Not before it is told something: the store may not be there yet.
            strings = strings or Strings(url, float(lease))
            answer = getattr(strings, what)(**values)
        except AgenticError as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
