"""Fault injection: what rules say is done to work, messages and the store, for tests of what happens then.

Whoever does something at a point asks here first, if there is anybody to ask: without ``[agentic] fault_injection`` nothing
of this is made. Each fault that happens is in the log with ``[injected]``, and is told as ``fault.injected``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import ParamSpec, TypeVar

from airflow_agentic.config.faults import FaultKind, FaultRule
from airflow_agentic.errors import InjectedFault, StoreError
from airflow_agentic.resilience import deadlines
from airflow_agentic.resilience.fault_rules import FaultRules, FaultView, Injection
from airflow_agentic.resilience.ports import GuardEvents, GuardStore

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_BEFORE: tuple[FaultKind, ...] = ("latency", "error")
_AFTER: tuple[FaultKind, ...] = ("sigkill",)
# So long a store that could not be reached is left alone.
_PAUSE_SECONDS = 5.0


class Faults:
    """Says what goes wrong, and lets it. Can be shared by threads.

    While the store of the rules cannot be reached, nothing is injected.

    Args:
        store: Where rules and counts are, for all workers: itself never disturbed.
        rules: Those of the project file, by name.
        events: Who is told of each fault.
        refresh_seconds: Rules that others add or clear are known after so long.
    """

    def __init__(
        self,
        store: GuardStore,
        rules: Mapping[str, FaultRule] | None = None,
        events: GuardEvents | None = None,
        refresh_seconds: float = 1.0,
    ) -> None:
        self._rules = FaultRules(store, rules, events)
        self._refresh_seconds = refresh_seconds
        self._lock = threading.Lock()
        self._known: tuple[FaultView, ...] = ()
        self._asked_at = float("-inf")
        self._left_alone_until = float("-inf")

    def at(self, point: str, kinds: Collection[FaultKind], about: str = "") -> Sequence[Injection]:
        """Say what happens at a point now; whoever asks must let it happen.

        Args:
            point: Where: ``agent:NAME``, ``call:KEY``, ``send:MAILBOX``, ``receive:MAILBOX`` or ``store``.
            kinds: What can happen at this moment.
            about: What else is known of the place.
        """
        meant = [each for each in self._present() if each.rule.what in kinds and each.rule.covers(point)]
        found = []
        for view in meant:
            try:
                injection = self._rules.attempt(view.name, view.rule, point, about)
            except StoreError as error:
                self._is_lost(error)
                break
            if injection is not None:
                _log.warning("%s", injection.text)
                found.append(injection)
        return found

    def before(self, point: str) -> None:
        """Let happen what happens before work begins.

        Raises:
            InjectedFault: A rule says so.
            DeadlineExceeded: A latency was longer than the time there is.
            WorkCancelled: The work was told to stop meanwhile.
        """
        found = self.at(point, _BEFORE)
        for each in found:
            if each.what == "latency":
                linger(each.seconds)
        _fail(found)

    async def abefore(self, point: str) -> None:
        """Do what :meth:`before` does, for asyncio."""
        found = await asyncio.to_thread(self.at, point, _BEFORE)
        for each in found:
            if each.what == "latency":
                await asyncio.sleep(each.seconds)
        _fail(found)

    def after(self, point: str) -> None:
        """Let happen what happens when work is done and nobody knows it yet: the process may end here."""
        if self.at(point, _AFTER):
            kill()

    @contextlib.contextmanager
    def around(self, point: str) -> Iterator[None]:
        """Let happen what happens before and after what is done inside; see :meth:`before` and :meth:`after`."""
        self.before(point)
        yield
        self.after(point)

    def call(self, point: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function, with what happens before and after it."""
        with self.around(point):
            return function(*args, **kwargs)

    async def acall(
        self, point: str, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Await a coroutine function, with what happens before and after it."""
        await self.abefore(point)
        result = await function(*args, **kwargs)
        await asyncio.to_thread(self.after, point)
        return result

    def views(self) -> list[FaultView]:
        """Return all rules, and what became of them.

        Raises:
            StoreError: The store cannot be reached.
        """
        return self._rules.views()

    # -- inside ----------------------------------------------------------------------------------------

    def _present(self) -> Sequence[FaultView]:
        """Return the rules that may still be obeyed, as of at most ``refresh_seconds`` ago."""
        now = time.monotonic()
        if now < self._left_alone_until:
            return ()
        with self._lock:
            if now - self._asked_at >= self._refresh_seconds:
                try:
                    self._known = tuple(each for each in self._rules.views() if not each.is_spent)
                except StoreError as error:
                    self._is_lost(error)
                    return ()
                self._asked_at = time.monotonic()
            return self._known

    def _is_lost(self, error: StoreError) -> None:
        self._left_alone_until = time.monotonic() + _PAUSE_SECONDS
        _log.warning("no faults are injected for %g s: their rules cannot be read: %s", _PAUSE_SECONDS, error)


def linger(seconds: float) -> None:
    """Take time: so long, or until the deadline of the work has passed, whatever comes first.

    Raises:
        DeadlineExceeded: The deadline has passed.
        WorkCancelled: The work was told to stop meanwhile.
    """
    present = deadlines.current()
    if present is None:
        time.sleep(seconds)
        return
    left = deadlines.remaining()
    present.cancelled.wait(seconds if left is None else min(seconds, left))
    deadlines.check()


def kill() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(found: Sequence[Injection]) -> None:
    for each in found:
        if each.what == "error":
            raise InjectedFault(each.text, each.category, each.rule)
