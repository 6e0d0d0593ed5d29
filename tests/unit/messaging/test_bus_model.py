"""The same random operations on a SQL store and on the model in memory, with one clock: both must agree.

The memory store is written from the state machine, not from the SQL; what one of them gets wrong shows here.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import clocked
import postgres
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from airflow_agentic.errors import AgenticError
from airflow_agentic.messaging import BusOptions, DeliveryState, Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores import open_store
from airflow_agentic.testing import FakeClock

BOXES = ("north", "north", "north", "south")
ALL = DeliveryQuery(limit=100_000)
OPEN = (DeliveryState.READY, DeliveryState.LEASED)

boxes = st.sampled_from(BOXES)
kinds = st.sampled_from(["ack", "nack", "reject", "release", "extend"])
spans = st.integers(0, 40).map(lambda ms: timedelta(milliseconds=ms))
leases = st.integers(1, 200).map(lambda ms: timedelta(milliseconds=ms))
words = st.sampled_from(["", "service down", "ü 'quoted' \"text\""])
picks = st.randoms(use_true_random=False)


def compared(record):
    """Leave out when an ended delivery would be visible: it means nothing."""
    return record if record.state in OPEN else replace(record, visible_at=record.updated_at)


def outcome(call, *arguments, **values):
    """Return the result or the kind of error, without what is random by design."""
    try:
        return call(*arguments, **values)
    except AgenticError as error:
        return type(error)


OPTIONS = BusOptions(max_attempts=2)


@contextlib.contextmanager
def sqlite(folder):
    """Yield what opens an empty store on a clock, time and again: quickly, each from a file that was made once."""
    template = folder / "template.db"
    open_store(f"sqlite:///{template}").close()

    @contextlib.contextmanager
    def empty(clock):
        with tempfile.TemporaryDirectory(prefix="agentic-model-") as here:
            path = Path(shutil.copy(template, here))
            with clocked.sqlite(path, clock, OPTIONS) as store:
                # What is tested is what the SQL means, not the disk.
                store.agents._db.execute("PRAGMA synchronous=OFF")
                yield store

    yield empty


@contextlib.contextmanager
def postgresql(_folder):
    """Yield what opens an empty store on a clock, time and again: quickly, always in one schema."""
    with postgres.schema() as name, clocked.postgresql(name, FakeClock(), OPTIONS) as store:
        database = store.agents._db
        database.execute("SET synchronous_commit = off")

        @contextlib.contextmanager
        def empty(clock):
            database.execute("TRUNCATE agentic_delivery, agentic_message RESTART IDENTITY")
            database.clock = clock
            yield store

        yield empty


class Comparison(RuleBasedStateMachine):
    empty: Any

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.model = clocked.memory(self.clock, OPTIONS)
        self.opened = contextlib.ExitStack()
        self.sql = self.opened.enter_context(self.empty(self.clock))
        self.handed_out: list[tuple[Any, Any]] = []
        self.sent: set[str] = set()
        self.numbers = 0

    def teardown(self):
        self.opened.close()

    def both(self, method, *arguments, **values):
        mine = outcome(getattr(self.model.bus, method), *arguments, **values)
        theirs = outcome(getattr(self.sql.bus, method), *arguments, **values)
        return mine, theirs

    def message(self, box, *, duplicate=False):
        self.numbers += 1
        identity = min(self.sent) if duplicate and self.sent else f"m-{self.numbers:05}"
        return Message(source="scanner", recipient=box, id=identity, data=self.numbers)

    @initialize(count=st.integers(0, 5))
    def something_to_begin_with(self, count):
        for _ in range(count):
            self.send("north", timedelta(0), duplicate=False)

    @rule(box=boxes, delay=spans, duplicate=st.booleans())
    def send(self, box, delay, duplicate):
        message = self.message(box, duplicate=duplicate)
        mine, theirs = self.both("send", message, delay=delay)
        assert mine == theirs == (message.id not in self.sent)
        self.sent.add(message.id)

    @rule(box=boxes, limit=st.integers(1, 3), lease=leases)
    def receive(self, box, limit, lease):
        self.take(box, limit, lease)

    def take(self, box, limit, lease):
        mine, theirs = self.both("receive", box, max_messages=limit, lease=lease)
        assert [replace(d, token="", bus=None) for d in mine] == [
            replace(d, token="", bus=None) for d in theirs
        ]
        self.handed_out += zip(mine, theirs, strict=True)
        return mine

    @rule(box=boxes, kinds=st.lists(kinds, min_size=1, max_size=3), word=words)
    def work(self, box, kinds, word):
        """Receive and settle at once, as a worker does: a few times, so that attempts are spent."""
        for kind in kinds:
            if self.take(box, 1, timedelta(seconds=1)):
                self.settle_one(self.handed_out[-1], kind, word, timedelta(0))

    @rule(box=boxes, kind=kinds, word=words, together=st.booleans())
    def come_too_late(self, box, kind, word, together):
        """Lose a lease to somebody else, and settle with it all the same."""
        if self.take(box, 1, timedelta(milliseconds=1)):
            late = self.handed_out[-1]
            self.clock.advance(timedelta(milliseconds=1))
            taken = len(self.take(box, 2, timedelta(seconds=1)))
            if together:
                self.ack([*self.handed_out[-taken:], late], self.message(box))
            else:
                self.settle_one(late, kind, word, timedelta(0))

    @precondition(lambda self: self.handed_out)
    @rule(pick=picks, kind=kinds, word=words, span=leases)
    def settle(self, pick, kind, word, span):
        """Settle something that was handed out: many of the leases are stale."""
        self.settle_one(pick.choice(self.handed_out[-4:]), kind, word, span)

    def settle_one(self, pair, kind, word, span):
        mine, theirs = pair
        values = {
            "nack": {"delay": span, "reason": word},
            "reject": {"reason": word},
            "extend": {"lease": span + timedelta(milliseconds=1)},
        }.get(kind, {})
        assert outcome(getattr(mine, kind), **values) == outcome(getattr(theirs, kind), **values)

    @precondition(lambda self: self.handed_out)
    @rule(pick=picks, count=st.integers(1, 3), box=boxes, duplicate=st.booleans())
    def ack_several_and_send(self, pick, count, box, duplicate):
        pairs = [pick.choice(self.handed_out[-4:]) for _ in range(count)]
        self.ack(pairs, self.message(box, duplicate=duplicate))

    def ack(self, pairs, message):
        mine = outcome(self.model.bus.ack, *(pair[0] for pair in pairs), send=[message])
        theirs = outcome(self.sql.bus.ack, *(pair[1] for pair in pairs), send=[message])
        assert mine == theirs
        if mine is None:
            self.sent.add(message.id)

    @rule(span=spans)
    def wait(self, span):
        self.clock.advance(span)

    @rule(box=boxes, word=words)
    def redrive_a_mailbox(self, box, word):
        mine, theirs = self.both("redrive", mailbox=box, actor="ana", reason=word)
        assert mine == theirs

    @rule(pick=picks, ids=st.lists(st.integers(1, 12), max_size=2))
    def redrive_numbers(self, pick, ids):
        dead = [found.delivery_id for found in self.model.bus.dead_letters()]
        wanted = [*ids, *pick.sample(dead, min(len(dead), 1))] if ids else dead[:1]
        mine, theirs = self.both("redrive", wanted, actor="ana", reason="why not")
        assert mine == theirs

    @rule(box=boxes, state=st.sampled_from(list(DeliveryState)), limit=st.integers(0, 3))
    def find_some(self, box, state, limit):
        mine, theirs = self.both("find", DeliveryQuery(mailbox=box, states=(state,), limit=limit))
        assert [compared(r) for r in mine] == [compared(r) for r in theirs]

    @invariant()
    def both_know_the_same(self):
        mine, theirs = self.both("find", ALL)
        assert [compared(r) for r in mine] == [compared(r) for r in theirs]
        assert self.model.bus.mailboxes() == self.sql.bus.mailboxes()

    @invariant()
    def every_delivery_is_in_exactly_one_state(self):
        for store in (self.model, self.sql):
            stats = store.bus.mailboxes()
            assert sum(s.ready + s.leased + s.done + s.dead for s in stats) == len(self.sent)
            assert all(s.total == s.open + s.done + s.dead for s in stats)
            assert all(0 <= s.delayed <= s.ready and 0 <= s.expired <= s.leased for s in stats)


@pytest.mark.timeout(600)  # finding the smallest example of a disagreement takes a while
@pytest.mark.parametrize("stores", [sqlite, postgresql], ids=["sqlite", "postgresql"])
def test_the_store_and_the_model_agree_whatever_is_done_to_them(stores, tmp_path):
    with stores(tmp_path) as empty:
        machine = type("Comparison", (Comparison,), {"empty": staticmethod(empty)})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=80,
                stateful_step_count=30,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
