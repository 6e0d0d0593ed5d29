"""What a check works with: a store on trial, a clock, and the small steps that all checks are made of."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from airflow_agentic.messaging.codec import decode, encode
from airflow_agentic.messaging.delivery import DeliveryRecord, MailboxStats
from airflow_agentic.messaging.message import DEFAULT_PRIORITY, Message
from airflow_agentic.messaging.ports import (
    Address,
    BusStore,
    Claim,
    DeliveryQuery,
    Outgoing,
    Settlement,
    StateChange,
    Wanted,
)
from airflow_agentic.persistence.ports import RunStores
from airflow_agentic.resilience.ports import GuardStore

ATTEMPTS = 3
"""Attempts of a message that says nothing else."""

LONG = timedelta(hours=1)
"""No check waits for so long."""

_NO_TIME = timedelta(0)
_MOVED = timedelta(seconds=10)
Outcome = Literal["ack", "nack", "reject", "release"]

Open = Callable[[], "BusStore | AbstractContextManager[BusStore]"]
"""Opens the store on trial; each time the same one, if it is durable or shared."""

OpenGuards = Callable[[], "GuardStore | AbstractContextManager[GuardStore]"]
"""Opens the documents of guards; each time the same ones, if they are durable or shared."""


OpenRuns = Callable[[], "RunStores | AbstractContextManager[RunStores]"]
"""Opens the durable runs; each time the same ones, if they are durable or shared."""


class MovableClock(Protocol):
    """The clock of a store, in the hands of a test. ``FakeClock`` is one."""

    def __call__(self) -> datetime:
        """Return the time."""
        ...

    def advance(self, span: timedelta, /) -> object:
        """Move on."""
        ...


class Bench:
    """A store on trial. Names are new for each bench, so one store can take all checks, one after the other.

    A context manager; closing it closes what it opened.

    Args:
        open: Opens the store: returns it, or a context manager that yields it. For a store that is ``shared`` it must
            be something that another process can be given: a function of a module, or ``functools.partial`` of one.
        clock: The clock of the store, if it can be moved. Otherwise the checks wait for short times to pass.
        short: A time that is long enough for the store to tell it from none; does not matter if there is a clock.
        guards: Opens the documents of guards, if the store keeps any: as ``open`` does.
        runs: Opens the durable runs, if the store keeps any: as ``open`` does.
    """

    def __init__(
        self,
        open: Open,  # noqa: A002  # what it does
        clock: MovableClock | None = None,
        short: timedelta = timedelta(seconds=0.1),
        guards: OpenGuards | None = None,
        runs: OpenRuns | None = None,
    ) -> None:
        self.open = open
        self.open_guards = guards
        self.open_runs = runs
        self.clock = clock
        self.short = short if clock is None else _MOVED
        name = uuid.uuid4().hex[:12]
        self.box, self.other, self.third = (f"{letter}-{name}" for letter in "abc")
        self.source = f"bench-{name}"
        self._opened = contextlib.ExitStack()
        self._store: BusStore | None = None
        self._guards: GuardStore | None = None
        self._runs: RunStores | None = None
        self._sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what was opened; what is asked of the bench next opens the store again."""
        self._store = self._guards = self._runs = None
        self._opened.close()

    @property
    def store(self) -> BusStore:
        """The store."""
        if self._store is None:
            self._store = self.another()
        return self._store

    def another(self) -> BusStore:
        """Open the store once more."""
        found = self.open()
        return found if isinstance(found, BusStore) else self._opened.enter_context(found)

    @property
    def guards(self) -> GuardStore:
        """The documents of guards, which a check uses that needs ``guards``."""
        if self._guards is None:
            self._guards = self.other_guards()
        return self._guards

    def other_guards(self) -> GuardStore:
        """Open the documents of guards once more.

        Raises:
            ValueError: Nobody said how.
        """
        if self.open_guards is None:
            raise ValueError(
                "this check is about documents of guards: give the bench guards=, or leave the check out"
            )
        found = self.open_guards()
        return self._opened.enter_context(found) if isinstance(found, AbstractContextManager) else found

    @property
    def runs(self) -> RunStores:
        """The durable runs, which a check uses that needs ``runs``."""
        if self._runs is None:
            self._runs = self.other_runs()
        return self._runs

    def other_runs(self) -> RunStores:
        """Open the durable runs once more.

        Raises:
            ValueError: Nobody said how.
        """
        if self.open_runs is None:
            raise ValueError("this check is about durable runs: give the bench runs=, or leave the check out")
        found = self.open_runs()
        return self._opened.enter_context(found) if isinstance(found, AbstractContextManager) else found

    def let_pass(self, times: int = 1) -> None:
        """Let so many ``short`` times pass, and a little more."""
        if self.clock is None:
            time.sleep((times + 0.5) * self.short.total_seconds())
        else:
            self.clock.advance(times * self.short + timedelta(seconds=1))

    def own_clock(self) -> MovableClock:
        """Return the clock, which a check moves that needs ``movable_clock``.

        Raises:
            ValueError: There is none.
        """
        if self.clock is None:
            raise ValueError(
                "this check moves the clock of the store: give the bench one, or leave the check out"
            )
        return self.clock

    # -- sending ---------------------------------------------------------------------------------------

    def to(self, mailbox: str | None = None, **values: Any) -> Address:
        """Return an address; by default of the first mailbox."""
        return Address(mailbox or self.box, values.pop("max_attempts", ATTEMPTS), **values)

    def outgoing(
        self,
        data: Any = None,
        *addresses: Address,
        id: str | None = None,  # noqa: A002  # as in a message
        source: str | None = None,
        key: str | None = None,
        priority: int = DEFAULT_PRIORITY,
        delay: timedelta = _NO_TIME,
        ttl: timedelta | None = None,
        talk: str | None = None,
        envelope: bytes | None = None,
    ) -> Outgoing:
        """Return a message as a store takes it; by default for the first mailbox."""
        self._sent += 1
        addresses = addresses or (self.to(),)
        message = Message(
            source=source or self.source,
            recipient=addresses[0].mailbox,
            data=data,
            id=id or f"{self.source}-{self._sent}",
            correlation_id=talk or self.source,
            ordering_key=key,
            priority=priority,
        )
        return Outgoing(
            message_id=message.id,
            source=message.source,
            correlation_id=message.correlation_id,
            envelope=encode(message) if envelope is None else envelope,
            addresses=addresses,
            ordering_key=key,
            priority=priority,
            delay=delay,
            ttl=ttl,
        )

    def send(self, data: Any = None, *addresses: Address, **values: Any) -> bool:
        """Store one message; say whether it was new."""
        [new] = self.store.messages.append([self.outgoing(data, *addresses, **values)])
        return new

    def send_all(self, *data: Any, **values: Any) -> None:
        """Store several messages in one transaction."""
        self.store.messages.append([self.outgoing(each, **values) for each in data])

    # -- receiving and settling ------------------------------------------------------------------------

    def wanted(
        self, limit: int = 1, lease: timedelta = LONG, mailbox: str | None = None, owner: str = "worker"
    ) -> Wanted:
        """Return what a claim asks for."""
        return Wanted(mailbox or self.box, limit, lease, owner)

    def claim(self, limit: int = 1, lease: timedelta = LONG, mailbox: str | None = None) -> list[Claim]:
        """Claim deliveries."""
        return self.store.messages.claim(self.wanted(limit, lease, mailbox))

    def one(self, lease: timedelta = LONG, mailbox: str | None = None) -> Claim:
        """Claim one delivery, which must be there."""
        claims = self.claim(1, lease, mailbox)
        equal(len(claims), 1, f"the number of deliveries that a claim of {mailbox or self.box!r} gives")
        return claims[0]

    def settlement(
        self,
        claim: Claim,
        outcome: Outcome = "ack",
        *,
        mailbox: str | None = None,
        delay: timedelta = _NO_TIME,
        reason: str = "",
        token: str | None = None,
    ) -> Settlement:
        """Return how a delivery is to end."""
        return Settlement(
            claim.delivery_id,
            claim.token if token is None else token,
            outcome,
            delay=delay,
            reason=reason,
            mailbox=mailbox or self.box,
            ordering_key=claim.ordering_key,
        )

    def settle(self, claim: Claim, outcome: Outcome = "ack", **values: Any) -> None:
        """End a delivery."""
        self.store.messages.settle([self.settlement(claim, outcome, **values)])

    def bury(self, data: Any = None, *addresses: Address, **values: Any) -> int:
        """Make a dead letter of a new message; return its number."""
        self.send(data, *addresses, **values)
        mailbox = addresses[0].mailbox if addresses else self.box
        claim = self.one(mailbox=mailbox)
        self.settle(claim, "reject", mailbox=mailbox, reason="no use")
        return claim.delivery_id

    # -- looking ---------------------------------------------------------------------------------------

    def find(self, **conditions: Any) -> list[DeliveryRecord]:
        """Read deliveries; by default of the first mailbox."""
        if not conditions:
            conditions = {"mailbox": self.box}
        return self.store.books.find(DeliveryQuery(**conditions))

    def record(self, delivery_id: int) -> DeliveryRecord:
        """Read one delivery, which must be there."""
        found = self.find(ids=(delivery_id,))
        equal(len(found), 1, f"the number of deliveries with the number {delivery_id}")
        return found[0]

    def stats(self, mailbox: str | None = None) -> MailboxStats:
        """Count the deliveries of a mailbox; zeros if there is none."""
        mailbox = mailbox or self.box
        return next(iter(self.store.books.stats(mailbox)), MailboxStats(mailbox))

    def counts(self, mailbox: str | None = None) -> tuple[int, int, int, int]:
        """Return how many are ready, leased, done and dead."""
        stats = self.stats(mailbox)
        return stats.ready, stats.leased, stats.done, stats.dead

    def redrive(self, **values: Any) -> list[int]:
        """Redrive dead letters; by default of the first mailbox."""
        query = values.pop("query", None) or DeliveryQuery(mailbox=self.box)
        return self.store.books.redrive(query, actor="ana", reason="mended", **values)

    def change(self, key: str, value: bytes | None, expected: int | None = None) -> StateChange:
        """Return a change of a value in the scope of the first mailbox."""
        return StateChange(self.box, key, value, expected)


def said(claims: Sequence[Claim]) -> list[Any]:
    """Return the data of claims, in their order."""
    return [decode(claim.envelope).data for claim in claims]


def data(records: Sequence[DeliveryRecord]) -> list[Any]:
    """Return the data of records, in their order."""
    return [record.message.data if record.message else None for record in records]


def equal(have: Any, want: Any, what: str) -> None:
    """Hold a value against the one it must be.

    Raises:
        AssertionError: It is another.
    """
    true(have == want, f"{what} is {have!r}, and must be {want!r}")


def true(holds: bool, text: str) -> None:
    """Hold a store to something.

    Raises:
        AssertionError: It does not hold; ``text`` says what is wrong.
    """
    if not holds:
        raise AssertionError(text)


@contextlib.contextmanager
def refused(expected: type[Exception], what: str) -> Iterator[None]:
    """Expect an error.

    Raises:
        AssertionError: There is none, or another one.
    """
    try:
        yield
    except expected:
        return
    except Exception as error:
        raise AssertionError(
            f"{what} must raise {expected.__name__}, it raised {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"{what} must raise {expected.__name__}, it did not raise")
