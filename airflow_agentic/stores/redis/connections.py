"""Connections to a server, for whoever asks it something.

Not the driver's own client and pool: that client repeats commands by itself, and whether an ack whose answer was lost may
be repeated is not for the driver to say. Besides, the two take as long as the server does.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from redis import Connection, SSLConnection, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

Argument = bytes | str | int


class Connections:
    """Connections that nobody uses now, and new ones when there is none. Threads may share it.

    A forked child makes connections of its own: its parent's would answer both of them.

    Args:
        tls: Whether the server is asked through TLS.
        values: What the driver's connections take.
    """

    def __init__(self, *, tls: bool, **values: Any) -> None:
        self._kind = SSLConnection if tls else Connection
        self._values = {**values, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
        self._idle: list[Any] = []
        self._process = os.getpid()
        self._is_closed = False

    @property
    def password(self) -> str | None:
        """What must not be shown."""
        return self._values.get("password")

    @property
    def timeout(self) -> float:
        """How long an answer is waited for, in seconds."""
        return float(self._values["socket_timeout"])

    def ask(self, *command: Argument, sure: bool = True) -> Any:
        """Send a command, once, and return its answer.

        Args:
            command: Which, and what it takes.
            sure: Look first whether the server ended the connection while nobody used it. Whoever asks again when that
                was so can do without.

        Raises:
            RedisError: It failed, the server cannot be reached, or the answer was lost.
        """
        connection = self._take(sure=sure)
        try:
            connection.send_packed_command((_packed(command),))
            answer = connection.read_response()
        except exceptions.ResponseError:
            self._give_back(connection)
            raise
        except BaseException:
            # Whoever had it next would get the answer of this command.
            connection.disconnect()
            raise
        self._give_back(connection)
        return answer

    def close(self) -> None:
        """End the connections; those that are in use, when they are given back."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().disconnect()

    def _take(self, *, sure: bool) -> Any:
        if self._process != os.getpid():
            self._idle, self._process, self._is_closed = [], os.getpid(), False
        while self._idle:
            # Another thread may be faster.
            with contextlib.suppress(IndexError):
                held = self._idle.pop()
                if not sure or not _has_ended(held):
                    return held
                held.disconnect()
        connection: Any = self._kind(**self._values)
        connection.connect()
        return connection

    def _give_back(self, connection: Any) -> None:
        if self._is_closed or self._process != os.getpid():
            connection.disconnect()
        else:
            self._idle.append(connection)


def _has_ended(connection: Any) -> bool:
    """Whether the server said something to a connection that asked nothing: as a rule, that it ended it."""
    try:
        return bool(connection.can_read())
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError):
        return True


def _packed(command: tuple[Argument, ...]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for each in command:
        value = each if isinstance(each, bytes) else str(each).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(parts)
