"""One Redis server: runs scripts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from redis import exceptions

from airflow_agentic.stores.redis import faults
from airflow_agentic.stores.redis.connections import Argument, Connections
from airflow_agentic.stores.redis.scripts import PROBE, Script


class RedisServer:
    """Where the store is. Threads may share it, and a forked child gets connections of its own.

    Args:
        connections: To it.
        url: Where to, without the password.
        prefix: What all keys begin with.
        version: Of the server.
        clock: Tells the time instead of the server.
    """

    def __init__(
        self,
        connections: Connections,
        url: str,
        prefix: str,
        version: str,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._connections = connections
        self._clock = clock
        self.url = url
        self.prefix = prefix
        self.version = version

    def probe(self) -> str:
        """Prove that it can be read and written, without leaving a trace.

        Returns:
            The versions of the server and of the schema.

        Raises:
            StoreError: It cannot.
        """
        schema = self.run(PROBE)
        return f"redis {self.version}, schema {'none' if schema is None else schema.decode()}"

    def close(self) -> None:
        """End the connections."""
        self._connections.close()

    def run(self, script: Script, *arguments: Argument, repeated: tuple[Argument, ...] | None = None) -> Any:
        """Run a script, as a whole.

        Args:
            script: Which; one that may be asked again is, once, where the connection is lost.
            arguments: What it takes.
            repeated: What it takes when it is asked again, if that must be told to it.

        Raises:
            StoreUnavailable: The server cannot be reached, or its answer was lost.
            StoreNotWritable: It does not let itself be written.
            StoreError: It refused.
        """
        now = "" if self._clock is None else to_time(self._clock())
        again = arguments if script.again else repeated
        call = functools.partial(self._evaluated, script, now)
        return self._asked(
            functools.partial(call, arguments, sure=again is None),
            None if again is None else functools.partial(call, again, sure=True),
        )

    def command(self, *command: Argument) -> Any:
        """Send a single command, which may be sent twice.

        Raises:
            StoreError: As for :meth:`run`.
        """
        call = functools.partial(self._connections.ask, *command)
        return self._asked(functools.partial(call, sure=False), call)

    @property
    def patience(self) -> float:
        """How long an answer is waited for, in seconds."""
        return self._connections.timeout

    def key(self, name: str) -> str:
        """Return the whole name of a key."""
        return self.prefix + name

    def _asked(self, call: Callable[[], Any], again: Callable[[], Any] | None) -> Any:
        try:
            try:
                return call()
            except exceptions.RedisError as error:
                if again is None or not faults.is_lost_connection(error):
                    raise
            return again()
        except exceptions.RedisError as error:
            raise faults.translated(error, self.url, self._connections.password) from None

    def _evaluated(
        self, script: Script, now: int | str, arguments: tuple[Argument, ...], *, sure: bool
    ) -> Any:
        taken = (1, self.prefix, now, *arguments)
        try:
            return self._connections.ask("EVALSHA", script.sha, *taken, sure=sure)
        except exceptions.NoScriptError:
            return self._connections.ask("EVAL", script.text, *taken)


def to_time(at: datetime) -> int:
    """Return a time as it is stored: milliseconds since 1970 UTC."""
    return round(at.timestamp() * 1000)


def from_time(milliseconds: int) -> datetime:
    """Return a stored time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_ms(span: timedelta) -> int:
    """Return a span as it is added to a stored time."""
    return round(span.total_seconds() * 1000)


def to_bytes(text: str) -> bytes:
    """Return a text as it is stored; half a character becomes a question mark."""
    return text.encode(errors="replace")
