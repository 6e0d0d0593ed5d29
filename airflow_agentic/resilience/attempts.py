"""Single tries that were admitted: what they take, and how long they may take."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from airflow_agentic.errors import DeadlineExceeded
from airflow_agentic.resilience import deadlines
from airflow_agentic.resilience.admission import Entry
from airflow_agentic.resilience.budget import Spending

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Attempt:
    """One try that was admitted.

    Attributes:
        entry: What it was admitted with.
        began_at: When it began, by the monotonic clock.
        spent: What it took so far.
        ended: Whether it was told of.
    """

    entry: Entry
    began_at: float
    spent: Spending = field(default_factory=Spending)
    ended: bool = False

    def spend(self, *, tokens: int = 0, cost_usd: float = 0.0, calls: int = 0) -> None:
        """Say what it took, beyond the one call that it is.

        Args:
            tokens: Tokens of models.
            cost_usd: US dollars.
            calls: Further calls.
        """
        self.spent += Spending(calls, tokens, cost_usd)


GOING_ON: ContextVar[tuple[Attempt, ...]] = ContextVar("attempts", default=())
"""The tries around whatever runs, the outermost first."""


def spend(*, tokens: int = 0, cost_usd: float = 0.0, calls: int = 0) -> None:
    """Say what the work that is going on took: it counts for the budgets of all guards around it.

    Args:
        tokens: Tokens of models.
        cost_usd: US dollars.
        calls: Calls, beyond the one that each guard counts by itself.
    """
    for attempt in GOING_ON.get():
        attempt.spend(tokens=tokens, cost_usd=cost_usd, calls=calls)


def within(seconds: float, work: Callable[[], T], key: str) -> T:
    """Run work in a thread, and leave it behind when the time is over; it is told to stop.

    Raises:
        DeadlineExceeded: The time is over.
    """
    done: list[T] = []
    raised: list[BaseException] = []
    finished = threading.Event()

    def run() -> None:
        try:
            with deadlines.deadline(seconds):
                done.append(work())
        except BaseException as error:  # noqa: BLE001  # handed on to whoever waits
            raised.append(error)
        finally:
            finished.set()

    begun, context = time.monotonic(), contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name=f"agentic-guarded-{key}", daemon=True).start()
    if not finished.wait(seconds):
        raise too_late(key, seconds)
    if not raised:
        return done[0]
    if isinstance(raised[0], DeadlineExceeded) and time.monotonic() - begun >= seconds:
        # It looked at the time itself, a moment before whoever waits did.
        raise too_late(key, seconds) from raised[0]
    raise raised[0]


async def to_the_end(function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run a function in a thread and wait for it; it runs to its end even if whoever waits is cancelled.

    A task would be cancelled before it began, where a loop is about to end.
    """
    work = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, work))


def too_late(key: str, seconds: float) -> DeadlineExceeded:
    """Return what is raised when a try took too long."""
    return DeadlineExceeded(f"{key!r} took longer than {seconds:.3g} s")
