"""Looking into a store again and again: all triggers of a triggerer share one connection to it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

from airflow_agentic import runtime
from airflow_agentic.errors import StoreError

if TYPE_CHECKING:
    from airflow_agentic.stores import Store

T = TypeVar("T")

_log = logging.getLogger(__name__)

_REPORT_SECONDS = 10.0
_REST = 20


class SharedStore:
    """A store that is opened when somebody uses it first, and closed when nobody needs it any more.

    Args:
        found: Where it is.
    """

    _all: dict[Hashable, SharedStore] = {}  # noqa: RUF012  # those of this process
    _guard = threading.Lock()

    def __init__(self, found: runtime.StoreTarget) -> None:
        self.found = found
        self.users = 0
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._reported = time.monotonic()

    @classmethod
    def join(cls, found: runtime.StoreTarget) -> SharedStore:
        """Return the store of a target; whoever joins leaves."""
        with cls._guard:
            share = cls._all.setdefault(_key(found), cls(found))
            share.users += 1
            return share

    def leave(self) -> None:
        """Say that one user less needs it."""
        with self._guard:
            self.users -= 1
            if self.users:
                return
            del self._all[_key(self.found)]
        with self._lock:
            if self._store is not None:
                self._store.close()

    def use(self, work: Callable[[Store], T]) -> T:
        """Do something with the store; blocks, so call it in a thread.

        Raises:
            StoreError: The store cannot be opened or used.
        """
        with self._lock:
            if self._store is None:
                self._store = self.found.open()
            store = self._store
        return work(store)

    def look(self, work: Callable[[Store], T]) -> T:
        """Do what :meth:`use` does, and report sources that are late now and then."""
        found = self.use(work)
        self._report()
        return found

    def _report(self) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._reported < _REPORT_SECONDS:
                return
            self._reported = now
        try:
            late = self.use(lambda store: store.bus.report_late_heartbeats())
        except Exception as error:  # noqa: BLE001  # somebody else waits here for something else
            _log.warning("late heartbeats could not be reported: %s", error)
        else:
            if late:
                _log.info("heartbeats are late: %s", ", ".join(late))


async def looks(conn_id: str | None, work: Callable[[Store], T]) -> AsyncGenerator[T]:
    """Yield what ``work`` finds, each ``[agentic] poll_seconds``, for ever; a store that is away is waited for.

    Where a look takes long, as into a mailbox of a million messages, it is taken less often: looking is never more
    than a twentieth of the work of a store.

    Raises:
        StoreError: Waiting does not help.
        ConfigurationError: The connection cannot be used.
    """
    share = SharedStore.join(await asyncio.to_thread(runtime.target, conn_id))
    try:
        while True:
            begun = time.monotonic()
            try:
                found = await asyncio.to_thread(share.look, work)
            except StoreError as error:
                if not error.retry_helps:
                    raise
                _log.warning("the store cannot be looked into now: %s", error)
                took = 0.0
            else:
                took = time.monotonic() - begun
                yield found
            await asyncio.sleep(max(share.found.settings.poll_seconds, _REST * took))
    finally:
        share.leave()


def _key(found: runtime.StoreTarget) -> Hashable:
    return found.url, found.options
