"""A TCP proxy between clients and a server that breaks their connections in the ways in which networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)
"""For ``SO_LINGER``: do not say goodbye, reset."""


@dataclass(frozen=True)
class Address:
    """Where a server is."""

    host: str
    port: int


@dataclass
class Cut:
    """One request whose fate is decided.

    Attributes:
        marker: Bytes that are in it; empty for the next one.
        answered: Whether the server gets it, and does it; else it never arrives.
        happened: Set when it was.
    """

    marker: bytes
    answered: bool
    happened: threading.Event


@dataclass(eq=False)
class Link:
    """A client's connection and the one to the server that it stands for."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    cut: Cut | None = None
    answer: bytes = b""
    seen: bytes = b""

    def reset(self) -> None:
        for writer in (self.client, self.server):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Proxy:
    """Passes bytes on, until it is told not to. Its methods may be called from any thread.

    Args:
        server: Whom it stands for.
        is_complete: Whether some bytes of the server are a whole answer: what it did is on disk then.
    """

    def __init__(self, server: Address, is_complete: Callable[[bytes], bool]):
        self._server, self._is_complete = server, is_complete
        self._links: set[Link] = set()
        self._delay, self._is_hole = 0.0, False
        self._cut: Cut | None = None
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task] = set()
        self.port = 0
        self.opened = 0

    def delay(self, seconds: float) -> None:
        """Let every piece of data wait; 0 to let it pass."""
        self._delay = seconds

    def swallow(self) -> None:
        """Be a black hole: connections stay open and new ones are taken, and nothing comes out any more."""
        self._is_hole = True

    def heal(self) -> None:
        """Pass everything on again. Connections that lost something are reset."""
        self._is_hole, self._delay = False, 0.0
        self.reset()

    def reset(self) -> None:
        """Reset every connection."""
        asyncio.run_coroutine_threadsafe(self._reset_all(), self._loop).result(10)

    def cut_answer(self, marker: bytes = b"") -> threading.Event:
        """Let the server do the next request with these bytes in it, and cut the connection before the answer."""
        return self._decide(marker, answered=True)

    def cut_request(self, marker: bytes = b"") -> threading.Event:
        """Cut the connection before the next request with these bytes in it reaches the server."""
        return self._decide(marker, answered=False)

    def _decide(self, marker: bytes, *, answered: bool) -> threading.Event:
        happened = threading.Event()
        self._cut = Cut(marker, answered, happened)
        return happened

    async def _reset_all(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _serve(self, started: threading.Event) -> None:
        listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        started.set()
        async with listening:
            await listening.serve_forever()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: that of the stream's would say aloud that it was cancelled.
        task = self._loop.create_task(self._connected(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            from_server, to_server = await asyncio.open_connection(self._server.host, self._server.port)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(self._requests(reader, link), self._answers(from_server, link))
        except OSError:
            pass  # One side ended it: so does the other one.
        finally:
            self._links.discard(link)
            writer.close()
            to_server.close()

    async def _requests(self, reader: asyncio.StreamReader, link: Link) -> None:
        while data := await reader.read(_CHUNK):
            await asyncio.sleep(self._delay)
            if self._is_hole:
                continue
            link.seen = link.seen[-200:] + data
            if self._cut is not None and self._cut.marker in link.seen:
                link.cut, self._cut = self._cut, None
            if link.cut is not None and not link.cut.answered:
                link.cut.happened.set()
                link.reset()
                return
            link.server.write(data)
            await link.server.drain()
        link.server.transport.abort()

    async def _answers(self, reader: asyncio.StreamReader, link: Link) -> None:
        while data := await reader.read(_CHUNK):
            await asyncio.sleep(self._delay)
            if self._is_hole:
                continue
            if link.cut is not None:
                link.answer += data
                if self._is_complete(link.answer):
                    link.cut.happened.set()
                    link.reset()
                    return
                continue
            link.client.write(data)
            await link.client.drain()
        link.client.transport.abort()

    def _run(self, started: threading.Event) -> None:
        self._serving = self._loop.create_task(self._serve(started))
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serving)
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        await self._reset_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # What was reset is closed in the next round.
        await asyncio.sleep(0)


@contextlib.contextmanager
def running(server: Address, is_complete: Callable[[bytes], bool]) -> Iterator[Proxy]:
    """Run a proxy in a thread."""
    proxy, started = Proxy(server, is_complete), threading.Event()
    thread = threading.Thread(target=proxy._run, args=(started,), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(proxy._serving.cancel)
        thread.join(10)


def is_complete_postgresql(answer: bytes) -> bool:
    """Whether PostgreSQL is ready for the next query: what was asked is committed, or never will be."""
    return answer[-6:-1] == b"Z\x00\x00\x00\x05"


def is_complete_redis(answer: bytes) -> bool:
    """Redis answers when its log is on disk, with ``appendfsync always``."""
    return answer.endswith(b"\r\n")
