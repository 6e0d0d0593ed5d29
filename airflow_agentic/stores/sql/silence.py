"""Notices a PostgreSQL server that says nothing any more although nobody ended the connection.

TCP notices a machine that is gone. It does not notice a server, or something on the way to it, that takes what it is
sent and never answers: the driver waits for ever then.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")

# https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_DEFAULT_SECONDS = 30


class WatchfulConnection(psycopg.Connection[Any]):
    """A connection that asks, when an answer is long in coming, whether anybody is still there.

    It asks after ``tcp_user_timeout`` on a connection of its own, and takes no answer within ``connect_timeout`` for a
    no. So a statement may take as long as it must, and a dead server is noticed after the two of them.
    """

    def wait(self, gen: Generator[Any, Any, T], *arguments: Any, **values: Any) -> T:
        """See the base class.

        Raises:
            psycopg.OperationalError: Nobody is there any more.
        """
        return super().wait(_watched(self, gen), *arguments, **values)


def _watched(connection: WatchfulConnection, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    begun = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                begun = time.monotonic()
            elif time.monotonic() - begun > _patience(connection, "tcp_user_timeout", 1000):
                _check_presence(connection)
                begun = time.monotonic()
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _patience(connection: WatchfulConnection, name: str, unit: int) -> float:
    given = connection.info.get_parameters().get(name)
    return int(given) / unit if given and int(given) else _DEFAULT_SECONDS


def _check_presence(connection: WatchfulConnection) -> None:
    """Ask what every server answers without knowing who asks."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as held, socket.socket(held.family) as asking:
            asking.settimeout(_patience(connection, "connect_timeout", 1))
            asking.connect(held.getpeername())
            asking.sendall(_SSL_REQUEST)
            if asking.recv(1):
                return
    except OSError:
        pass
    # It may be in the middle of an answer: nothing can be asked on it any more.
    connection.close()
    raise psycopg.OperationalError("the server has stopped answering")
