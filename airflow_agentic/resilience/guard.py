"""A policy at work: calls go through its guards, in one fixed order.

Outermost first: the fallback; the deadline; retries; and for each try the shared guards (breaker, limits, bulkhead and
budget, which decide together), and the timeout around the call itself. What all workers share is asked for before and told
after each try. Of what is well, and guarded by a breaker alone, nobody is asked: this process knows it from at most
``staleness_seconds`` ago, and tells of good results together, as late.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import random
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import Category
from airflow_agentic.resilience import breaker, deadlines, retries
from airflow_agentic.resilience.admission import Admission, Entry, Refusal
from airflow_agentic.resilience.attempts import GOING_ON, Attempt, spend, to_the_end, too_late, within
from airflow_agentic.resilience.breaker import Outcome
from airflow_agentic.resilience.budget import Spending
from airflow_agentic.resilience.failures import Classifier, Failure
from airflow_agentic.resilience.keeping import KEEPER
from airflow_agentic.resilience.ports import GuardKey
from airflow_agentic.resilience.results import Results
from airflow_agentic.resilience.shared import Decision, Docs, SharedState

if TYPE_CHECKING:
    from airflow_agentic.resilience.faults import Faults

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["Attempt", "Guard", "spend"]

_log = logging.getLogger(__name__)

_LONGEST_PAUSE = 1.0
_FREE = Entry("", 0.0)
_NO_HURRY = contextlib.nullcontext()
_NOT_BEGUN = Failure(Category.CANCELLED, begun=False)


class Guard:
    """Guards calls of one thing as a policy says. Can be shared by threads.

    Use it as ``guard.call(f, x)``, ``await guard.acall(f, x)``, as a decorator ``@guard`` of plain and async functions,
    or as ``with guard.attempt():`` around one try without retries.

    Args:
        policy: How.
        admission: What it asks of the store.
        shared: What all workers know.
        classifier: Says what failures mean.
        calls: First tries of the key in this process, for the budget of retries.
        results: Good results of the breaker that this process keeps to itself; ``None`` without a breaker.
        on_attempt: Told of each try: seconds, and its failure if it failed.
        faults: What is injected into calls; ``None`` for nothing.

    Attributes:
        policy: As given.
        key: What is guarded.
        classifier: As given.
    """

    def __init__(
        self,
        policy: Policy,
        admission: Admission,
        shared: SharedState,
        classifier: Classifier,
        calls: retries.Calls,
        results: Results | None = None,
        on_attempt: Callable[[str, float, Failure | None], None] | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.policy = policy
        self.key = admission.key
        self._admission = admission
        self._shared = shared
        self.classifier = classifier
        self._calls = calls
        self._results = results
        self._on_attempt = on_attempt
        self._faults = faults
        self._retries_key = GuardKey("retries", self.key)
        self._has_turn = False

    # -- calls -----------------------------------------------------------------------------------------

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function behind the guards.

        A try that takes longer than ``timeout`` is left behind: the function goes on in its thread, told to stop by
        :func:`airflow_agentic.resilience.check`, and its result is lost.

        Raises:
            NotAdmitted: A guard did not let it begin, and ``max_wait`` was too short to wait.
            DeadlineExceeded: It took too long.
            Exception: Whatever the function raised last.
        """
        with self._within_deadline():
            work = functools.partial(function, *args, **kwargs)
            if self._faults is not None:
                work = functools.partial(self._faults.call, f"call:{self.key}", work)
            retry = self.policy.retry
            if retry is None:
                return self._try(work)
            self._count_call()
            try:
                return self._try(work)
            except Exception as error:  # noqa: BLE001  # judged there, and raised again
                again = retries.retrying(retry, self.classifier, self._may_retry)
                result: T = again(retries.after(error, functools.partial(self._try, work)))
                return result

    async def acall(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a coroutine function behind the guards; see :meth:`call`. A try that takes too long is cancelled."""
        with self._within_deadline():
            work: Callable[[], Awaitable[T]] = functools.partial(function, *args, **kwargs)
            if self._faults is not None:
                work = functools.partial(self._faults.acall, f"call:{self.key}", work)
            retry = self.policy.retry
            if retry is None:
                return await self._atry(work)
            self._count_call()
            try:
                return await self._atry(work)
            except Exception as error:  # noqa: BLE001  # judged there, and raised again
                again = retries.aretrying(retry, self.classifier, lambda: asyncio.to_thread(self._may_retry))
                return await again(retries.aafter(error, functools.partial(self._atry, work)))

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Put a function behind the guards, plain or async."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def aguarded(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await self.acall(function, *args, **kwargs)

            return aguarded  # type: ignore[return-value]

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.call(function, *args, **kwargs)

        return guarded

    @contextlib.contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """Guard what is done inside as one try: no retries, no timeout.

        Raises:
            NotAdmitted: A guard did not let it begin.
        """
        attempt = Attempt(self._enter(), time.monotonic())
        token = GOING_ON.set((*GOING_ON.get(), attempt))
        error: BaseException | None = None
        try:
            yield attempt
        except BaseException as raised:
            error = raised
            raise
        finally:
            # First, and whatever comes: who leaves in another context cannot reset what was set in this one.
            self.end(attempt, error)
            GOING_ON.reset(token)

    def admit(self, *, limited: bool = True, ahead: float | None = None) -> Entry:
        """Ask the guards once; whoever is admitted must end it with :meth:`end`.

        Args:
            limited: Whether rates count; not if its turn was set aside before.
            ahead: How far ahead a turn may be set aside, in seconds; default ``max_wait``.

        Raises:
            NotAdmitted: A guard refuses. ``retry_at`` says when to ask again.
        """
        found = self._ask(limited=limited, ahead=self.policy.max_wait if ahead is None else ahead)
        if isinstance(found, Refusal):
            raise found.error
        self._keep(found)
        return found

    def reserve(self, ahead: float) -> datetime:
        """Set a turn aside with the rates of the policy, for who waits elsewhere and comes back with :meth:`use_turn`.

        Args:
            ahead: How far ahead it may be, in seconds.

        Raises:
            LimitExceeded: It would be later.
        """

        def decide(docs: Docs, now: float) -> Decision[float | Refusal]:
            return self._admission.reserve(docs, now, ahead)

        found = self._shared.update(
            self._admission.limit_keys(), decide, without_store=self.policy.without_store
        )
        if isinstance(found, Refusal):
            raise found.error
        return datetime.fromtimestamp(found, UTC)

    @property
    def limit_names(self) -> frozenset[str]:
        """Names of the rates, as refusals say them."""
        return frozenset(key.name for key in self._admission.limit_keys())

    def use_turn(self) -> None:
        """Say that the next try has a turn that was set aside: rates do not count again."""
        self._has_turn = True

    def end(self, attempt: Attempt, error: BaseException | None = None) -> None:
        """Tell how a try ended, and give back what it held. A second time it does nothing."""
        if attempt.ended:
            return
        attempt.ended = True
        seconds = time.monotonic() - attempt.began_at
        failure = None if error is None else self.classifier.failure(error)
        self._finish(attempt, seconds, failure)
        if self._on_attempt is not None:
            try:
                self._on_attempt(self.key, seconds, failure)
            except Exception:  # noqa: BLE001  # measuring is no part of the work
                _log.debug("a guarded call of %r was not measured", self.key, exc_info=True)

    # -- one try ---------------------------------------------------------------------------------------

    def _try(self, work: Callable[[], T]) -> T:
        entry = self._enter()
        limit = self._time_for_a_try()
        attempt = Attempt(entry, time.monotonic())
        token = GOING_ON.set((*GOING_ON.get(), attempt))
        try:
            result = work() if limit is None else within(limit, work, self.key)
        except BaseException as error:
            GOING_ON.reset(token)
            self.end(attempt, error)
            raise
        GOING_ON.reset(token)
        self.end(attempt)
        return result

    async def _atry(self, work: Callable[[], Awaitable[T]]) -> T:
        entry = await self._aenter()
        limit = self._time_for_a_try()
        attempt = Attempt(entry, time.monotonic())
        token = GOING_ON.set((*GOING_ON.get(), attempt))
        error: BaseException | None = None
        try:
            if limit is None:
                return await work()
            try:
                async with asyncio.timeout(limit) as scope:
                    with deadlines.deadline(limit):
                        return await work()
            except TimeoutError as late:
                if scope.expired():
                    raise too_late(self.key, limit) from late
                raise
        except BaseException as raised:
            error = raised
            raise
        finally:
            GOING_ON.reset(token)
            if self._is_quick(attempt, error):
                self.end(attempt, error)
            else:
                # Whatever becomes of the task, what it held is given back.
                await to_the_end(self.end, attempt, error)

    def _time_for_a_try(self) -> float | None:
        # A deadline that others set is theirs to keep: the call sees it, and is not cut.
        mine = self.policy.timeout
        if self.policy.deadline is not None:
            left = deadlines.remaining()
            mine = left if mine is None or (left is not None and left < mine) else mine
        return mine

    def _within_deadline(self) -> contextlib.AbstractContextManager[object]:
        seconds = self.policy.deadline
        return _NO_HURRY if seconds is None else deadlines.deadline(seconds)

    # -- admission -------------------------------------------------------------------------------------

    def _enter(self) -> Entry:
        """Be admitted, or wait for it as long as the policy lets."""
        deadlines.check()
        if (free := self._free()) is not None:
            return free
        began, waited = time.monotonic(), False
        while True:
            left = self._patience(began)
            found = self._ask(limited=True, ahead=left, fresh=waited)
            if isinstance(found, Entry):
                break
            deadlines.pause(self._pause_of(found, began, left))
            waited = True
        if found.token:
            try:
                self._keep(found)
                if (wait := found.go_at - self._shared.now()) > 0:
                    deadlines.pause(wait)
                deadlines.check()
            except BaseException:
                self._give_back(found)
                raise
        return found

    async def _aenter(self) -> Entry:
        deadlines.check()
        if (free := self._free()) is not None:
            return free
        began, waited = time.monotonic(), False
        while True:
            left = self._patience(began)
            found = await self._aask(left, fresh=waited)
            if isinstance(found, Entry):
                break
            await asyncio.sleep(self._pause_of(found, began, left))
            deadlines.check()
            waited = True
        try:
            self._keep(found)
            await asyncio.sleep(max(0.0, found.go_at - self._shared.now()))
            deadlines.check()
        except BaseException:
            await to_the_end(self._give_back, found)
            raise
        return found

    async def _aask(self, ahead: float, *, fresh: bool) -> Entry | Refusal:
        """Ask in a thread. If nobody waits for the answer any more, what was admitted is given back."""
        lock, gone, came = threading.Lock(), threading.Event(), list[Entry]()

        def ask() -> Entry | Refusal:
            found = self._ask(limited=True, ahead=ahead, fresh=fresh)
            if isinstance(found, Entry):
                with lock:
                    came.append(found)
                    is_late = gone.is_set()
                if is_late:
                    self._give_back(found)
            return found

        try:
            return await asyncio.to_thread(ask)
        except BaseException:
            with lock:
                gone.set()
                left = list(came)
            for entry in left:
                await to_the_end(self._give_back, entry)
            raise

    def _give_back(self, entry: Entry) -> None:
        """Give back what was admitted and never began."""
        if entry.token:
            self._finish(Attempt(entry, time.monotonic(), Spending(0)), 0.0, _NOT_BEGUN)

    def _ask(self, *, limited: bool, ahead: float, fresh: bool = False) -> Entry | Refusal:
        if (free := self._free()) is not None:
            return free
        limited = limited and not self._has_turn
        token, now = uuid.uuid4().hex, self._shared.now()
        keys = self._admission.keys(now, limited=limited)

        def decide(docs: Docs, at: float) -> Decision[Entry | Refusal]:
            return self._admission.admit(docs, at, token, ahead=ahead, limited=limited, budget_at=now)

        found = self._shared.update(keys, decide, without_store=self.policy.without_store, fresh=fresh)
        if isinstance(found, Entry):
            self._has_turn = False
        return found

    def _free(self) -> Entry | None:
        """Return an admission for which nobody need be asked.

        That is so where no guard is shared, and where a breaker alone decides, and this process knows from not long ago
        that it lets calls go.
        """
        if self._admission.asks_nothing:
            return _FREE
        settings = self._admission.breaker
        if settings is None or not self._admission.asks_nothing_but_breaker:
            return None
        known = self._shared.peek(self._admission.breaker_key)
        if known is None or not known[0] or known[0]["state"] != breaker.BreakerState.CLOSED:
            return None
        doc, now = known
        counted = breaker.tally(doc, settings, now)
        if settings.slow_call_seconds is not None and counted.slow_call_rate * 2 >= settings.slow_call_rate:
            return None
        # Near the edge every call asks.
        if counted.calls < settings.minimum_calls or counted.failure_rate * 2 >= settings.failure_rate:
            return None
        return Entry("", 0.0, era=doc["era"])

    def _patience(self, began: float) -> float:
        left = max(0.0, self.policy.max_wait - (time.monotonic() - began))
        end = deadlines.remaining()
        return left if end is None else min(left, end)

    def _pause_of(self, refusal: Refusal, began: float, patience: float) -> float:
        """Return how long to wait before asking again.

        Raises:
            NotAdmitted: That would be too long.
        """
        wait = 0.0 if refusal.retry_at is None else max(0.0, refusal.retry_at - self._shared.now())
        if refusal.warming and self._admission.breaker is not None:
            # Others are asking for all of us: their answers, or the ends of their leases, come soon.
            patience = max(patience, self._admission.breaker.probe_lease_seconds - (time.monotonic() - began))
        if refusal.retry_at is None or wait > patience or patience <= 0:
            raise refusal.error
        return min(wait, _LONGEST_PAUSE) + random.uniform(0, min(0.05, patience))  # noqa: S311  # not all at once

    def _keep(self, entry: Entry) -> None:
        if not entry.is_leased:
            return
        every = self._admission.shortest_lease() / 3
        KEEPER.keep(entry.token, every, functools.partial(self._renew, entry))

    def _renew(self, entry: Entry) -> bool:
        keys = self._admission.finish_keys(entry, judged=True)
        there = self._shared.update(keys, lambda docs, now: self._admission.renew(docs, now, entry))
        # Without the store nobody knows: it may be back before the lease ends.
        return there or self._shared.is_alone

    # -- results ---------------------------------------------------------------------------------------

    def _is_quick(self, attempt: Attempt, error: BaseException | None) -> bool:
        return self._admission.asks_nothing or (error is None and not attempt.entry.is_leased)

    def _finish(self, attempt: Attempt, seconds: float, failure: Failure | None) -> None:
        entry = attempt.entry
        if entry.is_leased:
            KEEPER.drop(entry.token)
        if self._admission.asks_nothing:
            return
        outcomes: list[Outcome] = []
        if self._admission.breaker is not None:
            failed = False if failure is None else failure.is_unhealthy
            if failed is False and not entry.is_leased and self._results is not None:
                self._results.add(entry.era, seconds)
                return
            outcomes = [] if self._results is None else self._results.take()
            outcomes.append(Outcome(failed, seconds, entry.token if entry.counted else "", entry.era))
        self._record(entry, outcomes, failure, attempt.spent)

    def _record(
        self, entry: Entry, outcomes: Sequence[Outcome], failure: Failure | None, spent: Spending
    ) -> None:
        keys = self._admission.finish_keys(entry, judged=bool(outcomes))
        if not keys:
            return
        is_counting = self.policy.retry is not None and self.policy.retry.budget is not None
        calls = self._calls.take(self._shared.now()) if is_counting else 0

        def decide(docs: Docs, now: float) -> Decision[None]:
            done = self._admission.finish(docs, now, entry, outcomes, failure, spent)
            if not calls:
                return done
            counted = retries.counted(docs.get(self._retries_key), now, calls, 0)
            return Decision(None, {**done.docs, self._retries_key: counted}, done.events)

        self._shared.update([*keys, *([self._retries_key] if calls else [])], decide)

    # -- retries ---------------------------------------------------------------------------------------

    def _count_call(self) -> None:
        if self.policy.retry is not None and self.policy.retry.budget is not None:
            self._calls.add(self._shared.now())

    def _may_retry(self) -> bool:
        settings = self.policy.retry
        if settings is None or settings.budget is None:
            return True
        calls = self._calls.take(self._shared.now())

        def decide(docs: Docs, now: float) -> Decision[bool]:
            doc = retries.counted(docs.get(self._retries_key), now, calls, 0)
            may = retries.allowed(doc, settings, now)
            return Decision(may, {self._retries_key: retries.counted(doc, now, 0, int(may))})

        return self._shared.update([self._retries_key], decide)
