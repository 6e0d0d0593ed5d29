"""Several at one store: threads, openings, processes, and processes that are killed."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from airflow_agentic.errors import StateConflict
from airflow_agentic.messaging.ports import BusStore
from airflow_agentic.testing.conformance.bench import LONG, Bench, Open, equal, said, true
from airflow_agentic.testing.conformance.promises import Capability, Chapter
from airflow_agentic.testing.conformance.together import PATIENCE_SECONDS, together

sharing = Chapter()
THREADS, SHARED, DURABLE = Capability.THREADS, Capability.SHARED, Capability.DURABLE
_WORKERS, _PROCESSES = 4, 2


def _together(bench: Bench, work: Callable[[], Any]) -> list[Any]:
    """Let several threads do the same with one opening, at the same time; return what each of them got."""
    assert bench.store is not None  # it is open before they begin
    return together([work] * _WORKERS)


def _take_all(bench: Bench) -> list[Any]:
    taken: list[Any] = []
    while claims := bench.claim(3):
        taken += said(claims)
        for claim in claims:
            bench.settle(claim)
    return taken


@sharing.promise(THREADS)
def many_threads_claim_each_delivery_once(bench: Bench) -> None:
    """Many threads that receive from one mailbox get each delivery once."""
    bench.send_all(*range(60))
    taken = [each for part in _together(bench, lambda: _take_all(bench)) for each in part]
    equal(sorted(taken), list(range(60)), "what all of them handled")
    equal(bench.counts(), (0, 0, 60, 0), "(ready, leased, done, dead)")


@sharing.promise(THREADS, Capability.ORDERING)
def many_threads_keep_the_order_of_lanes(bench: Bench) -> None:
    """Many threads that receive from one mailbox keep the order in each lane."""
    keys = ("k", "l", "m")
    for number in range(10):
        for key in keys:
            bench.send([key, number], key=key)
    handled: list[list[Any]] = []

    def take() -> None:
        while bench.stats().open:
            for claim in bench.claim(2):
                handled.extend(said([claim]))  # before the ack: nobody can have the next one yet
                bench.settle(claim)

    _together(bench, take)
    by_key = {key: [number for name, number in handled if name == key] for key in keys}
    equal(by_key, {key: list(range(10)) for key in keys}, "what was handled, key by key")


@sharing.promise(THREADS, Capability.DEDUP)
def many_threads_store_a_message_once(bench: Bench) -> None:
    """Of many threads that send the same message, one is told that it is new."""
    answers = _together(bench, lambda: [bench.send(number, id=f"m-{number}") for number in range(10)])
    news = [sum(answer[number] for answer in answers) for number in range(10)]
    equal(news, [1] * 10, "how many were told that a message is new, message by message")
    equal(bench.stats().total, 10, "the number of deliveries")


@sharing.promise(THREADS, Capability.STATE)
def many_threads_lose_no_change(bench: Bench) -> None:
    """Of many threads that change a value with the version they read, none overwrites the change of another."""

    def count() -> None:
        done = 0
        while done < 10:
            entry = bench.store.state.read(bench.box, "total")
            value, version = (int(entry.value), entry.version) if entry else (0, 0)
            time.sleep(0.001)  # time for the others
            with contextlib.suppress(StateConflict):
                bench.store.state.write([bench.change("total", str(value + 1).encode(), version)])
                done += 1

    _together(bench, count)
    entry = bench.store.state.read(bench.box, "total")
    equal(
        entry and (entry.value, entry.version),
        (str(10 * _WORKERS).encode(), 10 * _WORKERS),
        "(value, version)",
    )


@sharing.promise(THREADS, Capability.BACK_PRESSURE)
def many_threads_keep_to_the_limit(bench: Bench) -> None:
    """Many threads that send to one mailbox do not fill it beyond its limit."""
    address = bench.to(limit=5, overflow="dead-letter")
    _together(bench, lambda: [bench.send(number, address) for number in range(5)])
    equal(bench.counts(), (5, 0, 0, 5 * _WORKERS - 5), "(ready, leased, done, dead)")


@sharing.promise()
def waiting_ends(bench: Bench) -> None:
    """Waiting ends in its time when nothing comes, and at once when something is there."""
    start = time.monotonic()
    bench.store.messages.wait(bench.box, timedelta(seconds=0.05))
    bench.send("there")
    bench.store.messages.wait(bench.box, timedelta(seconds=5))
    true(
        time.monotonic() - start < 5,
        "wait() waits for a mailbox that has something, or longer than it was asked to",
    )


@sharing.promise(Capability.WAKE_UP, THREADS)
def who_waits_is_woken(bench: Bench) -> None:
    """Who waits for a mailbox is woken when something comes."""
    # Whoever waits for the first time may have to tell the store that it does.
    bench.store.messages.wait(bench.box, timedelta(seconds=0.05))
    sender = threading.Timer(0.2, bench.send, ["here"])
    sender.start()
    start = time.monotonic()
    while not bench.claim():  # a wait is a hint, and may end early
        bench.store.messages.wait(bench.box, timedelta(seconds=6))
    sender.join()
    passed = time.monotonic() - start
    true(passed < 4, f"wait() returned after {passed:.1f} s, and a message came after 0.2 s")


@sharing.promise(DURABLE)
def what_was_stored_is_there_later(bench: Bench) -> None:
    """When a store is closed and opened again, its deliveries are there, and leases hold."""
    bench.send_all("acked", "dead", "leased", "ready")
    acked, dead, leased = bench.claim(3)
    bench.settle(acked)
    bench.settle(dead, "reject", reason="no")
    before = bench.find()
    bench.close()
    equal(bench.find(), before, "the deliveries after the store was opened again")
    equal(bench.send("later"), True, "the answer to a new message")
    equal(said(bench.claim(9)), ["ready", "later"], "what can be claimed")
    bench.settle(leased)
    equal(bench.counts(), (0, 2, 2, 1), "(ready, leased, done, dead)")


@sharing.promise(DURABLE, Capability.DEDUP)
def duplicates_are_known_later(bench: Bench) -> None:
    """A store that is opened again knows what it has had."""
    bench.send("one", id="m-1")
    bench.settle(bench.one())
    bench.close()
    equal(bench.send("one", id="m-1"), False, "the answer to a duplicate")


@sharing.promise(SHARED)
def two_openings_are_one_store(bench: Bench) -> None:
    """What one opening of a store does, another one sees; a lease belongs to whoever has the token."""
    mine, theirs = bench.store, bench.another()
    bench.send_all(1, 2)
    claims = theirs.messages.claim(bench.wanted(1))
    equal(said(claims), [1], "what the other opening claims")
    equal(said(bench.claim(9)), [2], "what this one can claim then")
    mine.messages.settle([bench.settlement(claims[0])])
    [stats] = theirs.books.stats(bench.box)
    equal(
        (stats.ready, stats.leased, stats.done), (0, 1, 1), "(ready, leased, done), as the other one sees it"
    )


def _opened(open: Open) -> contextlib.AbstractContextManager[BusStore]:  # noqa: A002  # as in Bench
    found = open()
    return contextlib.nullcontext(found) if isinstance(found, BusStore) else found


def _work(open: Open, mailbox: str, answer: Any) -> None:  # noqa: A002  # as in Bench
    """Handle a mailbox, in a process of its own; say what was handled."""
    bench = Bench(open)
    bench.box = mailbox
    answer.send("begun")
    answer.recv()
    answer.send(_take_all(bench))
    bench.close()


def _seize(open: Open, mailbox: str, lease: timedelta, answer: Any) -> None:  # noqa: A002  # as in Bench
    """Claim something, in a process of its own, and never end."""
    with _opened(open) as store:
        bench = Bench(lambda: store)
        answer.send(said(bench.claim(1, lease, mailbox)))
        time.sleep(PATIENCE_SECONDS)


@contextlib.contextmanager
def _process(bench: Bench, work: Callable[..., None], *arguments: Any) -> Iterator[tuple[Any, Any]]:
    """Start a process; yield it and the line to it."""
    try:
        pickle.dumps(bench.open)
    except Exception as error:  # noqa: BLE001  # whatever cannot be given to another process raises
        raise AssertionError(
            "the store says that it is shared, and open() cannot be given to another process: make it a function "
            f"of a module, or functools.partial of one ({type(error).__name__}: {error})"
        ) from None
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(bench.open, *arguments, there), daemon=True)
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()


def _heard(line: Any) -> Any:
    true(line.poll(PATIENCE_SECONDS), "a process that opened the store said nothing")
    try:
        return line.recv()
    except EOFError:
        raise AssertionError(
            "a process that opened the store ended with an error: see what it printed"
        ) from None


@sharing.promise(SHARED, DURABLE)
def processes_claim_each_delivery_once(bench: Bench) -> None:
    """Several processes that receive from one mailbox get each delivery once."""
    bench.send_all(*range(60))
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(_PROCESSES):
            _, line = stack.enter_context(_process(bench, _work, bench.box))
            _heard(line)
            lines.append(line)
        for line in lines:
            line.send("go")
        taken = [each for line in lines for each in _heard(line)]
    equal(sorted(taken), list(range(60)), "what all of them handled")
    equal(bench.counts(), (0, 0, 60, 0), "(ready, leased, done, dead)")


@sharing.promise(SHARED, DURABLE)
def a_killed_process_loses_nothing(bench: Bench) -> None:
    """What a process held that was killed comes again when its lease ends."""
    bench.send_all("first", "second")
    lease = max(bench.short, timedelta(seconds=1))
    with _process(bench, _seize, bench.box, lease) as (process, line):
        equal(_heard(line), ["first"], "what the process claimed")
        process.kill()
        process.join()
    if bench.clock is None:
        time.sleep(lease.total_seconds())
    bench.let_pass()
    claims = bench.claim(9, LONG)
    equal(sorted(said(claims)), ["first", "second"], "what can be claimed after its lease ended")
    equal(sorted(claim.attempt for claim in claims), [1, 2], "their attempts")
