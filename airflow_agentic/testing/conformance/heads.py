"""Heads of durable runs: who works on what, how it stands, and many who want the same run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from airflow_agentic.persistence.journal import Draft, Journal
from airflow_agentic.persistence.ports import RunHead, RunStatus, RunStores
from airflow_agentic.persistence.verification import verified
from airflow_agentic.testing.conformance.bench import Bench, equal, true
from airflow_agentic.testing.conformance.journals import (
    ANA,
    BEN,
    NOW_MS,
    append,
    everything,
    head_of,
    key,
    write_of,
)
from airflow_agentic.testing.conformance.listings import listed
from airflow_agentic.testing.conformance.promises import Capability, Chapter
from airflow_agentic.testing.conformance.together import PATIENCE_SECONDS, together

heads = Chapter()
RUNS, THREADS, SHARED = Capability.RUNS, Capability.THREADS, Capability.SHARED
_LEASE, _OVER = timedelta(hours=1), timedelta(0)
_LEASE_MS = 3_600_000
_SLACK_MS = 1_000
_WORKERS, _ROUNDS = 4, 15


def _hold(bench: Bench, owner: str, lease: timedelta = _LEASE, instead_of: str | None = None) -> bool:
    """Ask for the first stream; say whether it was given."""
    return bench.runs.runs.hold(key(bench), owner, lease, instead_of).taken


def _held(bench: Bench, stream: str = "a") -> tuple[str, bool]:
    """Return who has a stream, and whether that is so for some time."""
    head = head_of(bench, stream)
    assert head is not None
    return head.owner, head.lease_until_ms > 0


# -- how runs stand ----------------------------------------------------------------------------------------


@heads.promise(RUNS)
def a_head_is_as_it_was_written_last(bench: Bench) -> None:
    """A head has all that the last append said; agent, correlation and beginning stay as they were."""
    first = write_of(
        bench,
        mode="events",
        correlation="dag/run \U0001f600",
        task="dag/run/task[3]",
        total=7,
        lease_until_ms=5,
    )
    true(bench.runs.journals.append(first), "the first record was refused")
    equal(head_of(bench), first.head, "the head of a new run")
    second = write_of(
        bench, status="waiting", step="s#2", done=2, total=2**40, waiting="ben: 'is it?'", error="e" * 2_000,
        category="permanent", task="other", mode="snapshot", lease_until_ms=0,
    )  # fmt: skip
    true(bench.runs.journals.append(second), "the second record was refused")
    equal(head_of(bench), second.head, "the head after the second record")
    other = replace(second.head, agent="x", correlation="y", created_at_ms=1)
    third = write_of(bench)
    true(bench.runs.journals.append(replace(third, head=replace(other, version=3, digest=b"d"))), "the third")
    wanted = replace(second.head, version=3, digest=b"d")
    equal(head_of(bench), wanted, "the head after one that says another agent, correlation and beginning")
    equal(listed(bench, correlation=first.head.correlation), ["a"], "what is found by the correlation")


@heads.promise(RUNS)
def texts_for_people_may_be_any(bench: Bench) -> None:
    """An error or a wait is taken whatever characters it has; what no store keeps may come back as something else."""
    strange = "first\0second\ud800third"
    true(
        append(bench, error=strange, waiting=strange, step=strange), "a record with strange texts was refused"
    )
    true(bench.runs.runs.mark(key(bench), RunStatus.FAILED, strange, "x"), "a strange error was refused")
    head = head_of(bench)
    assert head is not None
    for text in (head.error, head.waiting):
        true(text.startswith("first") and text.endswith("third"), f"a text came back as {text!r}")
    true(append(bench), "the next record was refused")


@heads.promise(RUNS)
def a_run_can_be_marked(bench: Bench) -> None:
    """Marking changes status, error and category, whoever has the run, and nothing else."""
    runs = bench.runs.runs
    true(not runs.mark(key(bench), RunStatus.FAILED, "x", "y"), "a run that is not there was marked")
    append(bench, "x", snapshot=b"{}", lease_until_ms=NOW_MS, step="s", waiting="w")
    before, *rest = everything(bench)
    true(runs.mark(key(bench), RunStatus.QUARANTINED, "damaged", "permanent"), "a run was not marked")
    wanted = replace(before, status="quarantined", error="damaged", category="permanent")
    equal(everything(bench), (wanted, *rest), "what is read after it")
    equal(listed(bench, statuses=(RunStatus.QUARANTINED,)), ["a"], "those that stand as it was marked")
    equal(listed(bench, statuses=(RunStatus.RUNNING,)), [], "those that stand as it did before")


@heads.promise(RUNS)
def a_run_can_be_forgotten(bench: Bench) -> None:
    """What is forgotten is gone whole, and begins anew as if it had never been; others stay."""
    for stream in ("a", "b"):
        append(bench, "x", "y", stream=stream, snapshot=b"{}", keep=True, correlation="c")
    other = everything(bench, "b")
    true(bench.runs.runs.forget(key(bench)), "a run was not forgotten")
    true(not bench.runs.runs.forget(key(bench)), "a run was forgotten twice")
    equal(everything(bench), (None, [], [], None), "what is read of what was forgotten")
    equal((listed(bench), listed(bench, prefix=key(bench, ""))), (["b"], ["b"]), "what is listed")
    equal(everything(bench, "b"), other, "the other run")
    again = write_of(bench, "z", expected=0, agent=bench.other)
    true(bench.runs.journals.append(again), "what was forgotten did not begin anew")
    equal(everything(bench)[:2], (again.head, [*again.records]), "what is read of what began anew")
    equal(everything(bench)[3], None, "its snapshot")


# -- who has a run -----------------------------------------------------------------------------------------


@heads.promise(RUNS)
def a_run_belongs_to_one(bench: Bench) -> None:
    """A run is taken by one, who may take it again; nobody else may, and is told who has it."""
    hold = bench.runs.runs.hold(key(bench), ANA, _LEASE)
    equal((hold.head, hold.taken), (None, False), "what is said of a run that is not there")
    equal(head_of(bench), None, "the head after it")
    append(bench, lease_until_ms=0)
    for _ in range(2):
        hold = bench.runs.runs.hold(key(bench), ANA, _LEASE)
        true(hold.taken, "a run that is free, or one's own, was not given")
        equal(hold.head, head_of(bench), "the head that is told")
        assert hold.head is not None
        equal(hold.head.owner, ANA, "the owner")
        left = hold.head.lease_until_ms - hold.now_ms
        true(abs(left - _LEASE_MS) <= _SLACK_MS, f"a lease of an hour ends in {left} ms")
    other = bench.runs.runs.hold(key(bench), BEN, _LEASE)
    equal((other.taken, other.head), (False, hold.head), "what somebody else is told")
    true(hold.now_ms <= other.now_ms <= hold.now_ms + 60_000, "the times that two are told")
    equal(_held(bench), (ANA, True), "who has it then")


@heads.promise(RUNS)
def a_run_is_given_back_by_its_owner(bench: Bench) -> None:
    """Whoever has a run gives it back, and others may have it at once; nobody else can give it back."""
    append(bench, lease_until_ms=0)
    true(_hold(bench, ANA), "a run that is free was not given")
    before = head_of(bench)
    for lease in (_OVER, -_LEASE):
        true(not _hold(bench, BEN, lease), "somebody else gave a run back")
        equal(head_of(bench), before, "the head after somebody else gave it back")
    true(not _hold(bench, BEN, _OVER, instead_of=ANA), "somebody else gave a run back, instead of its owner")
    true(_hold(bench, ANA, _OVER), "its owner could not give a run back")
    equal(_held(bench), (ANA, False), "who has it then")
    true(
        append(bench, owner=ANA, lease_until_ms=0), "who gave it back, and lost it to nobody, could not write"
    )
    true(_hold(bench, BEN), "a run that was given back was not given to somebody else")
    true(not _hold(bench, ANA), "a run was given back to the one who had it before")


@heads.promise(RUNS)
def the_run_of_one_who_is_gone_is_taken_over(bench: Bench) -> None:
    """A lease is taken from an owner that is known to be gone, and from nobody else."""
    append(bench, lease_until_ms=0)
    _hold(bench, ANA)
    true(
        not _hold(bench, BEN, instead_of="carl@host:3"),
        "a run was taken instead of somebody who did not have it",
    )
    true(not _hold(bench, BEN, instead_of=""), "a run was taken instead of nobody")
    true(_hold(bench, BEN, instead_of=ANA), "a run was not taken over from one who is gone")
    equal(_held(bench), (BEN, True), "who has it then")
    true(not append(bench, owner=ANA), "who lost it could write")
    true(not _hold(bench, "carl@host:3", instead_of=ANA), "a run was taken from one who has it no more")


@heads.promise(RUNS)
def a_lease_ends(bench: Bench) -> None:
    """When a lease ends, another may have the run; until then its owner can make it longer."""
    append(bench, lease_until_ms=0)
    long = 4 * bench.short
    true(_hold(bench, ANA, long), "a run that is free was not given")
    bench.let_pass()
    true(not _hold(bench, BEN), "a run was given to somebody else before its lease ended")
    true(_hold(bench, ANA, long), "a lease was not renewed")
    bench.let_pass(2)
    true(not _hold(bench, BEN), "a run was given to somebody else before its longer lease ended")
    bench.let_pass(3)
    true(append(bench, owner=ANA), "who had a run, and lost it to nobody, could not write")
    true(_hold(bench, BEN), "a run whose lease ended was not given to somebody else")
    true(not append(bench, owner=ANA), "who lost a run could write")


# -- many --------------------------------------------------------------------------------------------------


def _race(bench: Bench, runs: RunStores, start: threading.Barrier) -> list[bool]:
    """Append a record each round, as all others do; say when that succeeded."""
    won = []
    for _ in range(_ROUNDS):
        start.wait(PATIENCE_SECONDS)
        write = write_of(bench, f"n-{threading.get_ident()}", snapshot=b"{}")
        start.wait(PATIENCE_SECONDS)
        won.append(runs.journals.append(write))
    return won


def _raced(bench: Bench, stores: Sequence[RunStores]) -> None:
    start = threading.Barrier(_WORKERS)
    wins = together([partial(_race, bench, stores[i % len(stores)], start) for i in range(_WORKERS)])
    equal([sum(each) for each in zip(*wins, strict=True)], [1] * _ROUNDS, "how many won, round by round,")
    head, records, index, snapshot = everything(bench)
    equal([each.version for each in records], list(range(1, _ROUNDS + 1)), "the versions")
    equal((head.version, len(index), snapshot.version), (_ROUNDS,) * 3, "where head, index and snapshot end")
    equal(verified(bench.runs, key(bench)), [], "what is wrong with the journal")


def _taken(bench: Bench, stores: Sequence[RunStores]) -> None:
    append(bench, lease_until_ms=0)
    for _ in range(_ROUNDS):
        shares = [stores[i % len(stores)].runs for i in range(_WORKERS)]
        holds = together(
            [partial(runs.hold, key(bench), f"w@host:{i}", _LEASE) for i, runs in enumerate(shares)]
        )
        owners = [i for i, each in enumerate(holds) if each.taken]
        equal(len(owners), 1, "how many got a run that all of them wanted")
        equal({each.head.owner for each in holds}, {f"w@host:{owners[0]}"}, "whom all of them were told")
        true(bench.runs.runs.hold(key(bench), f"w@host:{owners[0]}", _OVER).taken, "it was not given back")


@heads.promise(RUNS, THREADS)
def of_many_threads_one_appends_a_version(bench: Bench) -> None:
    """Of many threads that append to one version of a journal, one does."""
    _raced(bench, [bench.runs])


@heads.promise(RUNS, THREADS, SHARED)
def of_many_openings_one_appends_a_version(bench: Bench) -> None:
    """Of several openings that append to one version of a journal, one does."""
    _raced(bench, [bench.runs, bench.other_runs()])


@heads.promise(RUNS, THREADS)
def of_many_threads_one_takes_a_run(bench: Bench) -> None:
    """Of many threads that want one run, one gets it, and the others are told who has it."""
    _taken(bench, [bench.runs])


@heads.promise(RUNS, THREADS, SHARED)
def of_many_openings_one_takes_a_run(bench: Bench) -> None:
    """Of several openings that want one run, one gets it, and the others are told who has it."""
    _taken(bench, [bench.runs, bench.other_runs()])


@heads.promise(RUNS, THREADS)
def commits_are_read_whole(bench: Bench) -> None:
    """Who reads while somebody appends sees each append whole: its records, and a head that fits them."""
    runs, over = bench.runs, threading.Event()

    def write() -> None:
        journal = Journal(runs, RunHead(key(bench), bench.box, owner=ANA), NOW_MS, _LEASE)
        for _ in range(3 * _ROUNDS):
            journal.write([Draft("event", name, b"{}") for name in "xyz"], state=b"{}", keep=True)
        over.set()

    def look() -> None:
        while not over.is_set():
            head = head_of(bench)
            found = runs.journals.read(key(bench), 0, 10_000)
            equal(len(found) % 3, 0, "how many records are there beyond whole appends")
            true(len(found) >= (head.version if head else 0), "a head is there before its records")
            snapshot = runs.journals.latest_snapshot(key(bench))
            true(
                (snapshot.version if snapshot else 0) >= len(found), "records are there before their snapshot"
            )
            equal(verified(runs, key(bench)), [], "what is wrong while it is written")

    together([write, look])
    equal(len(runs.journals.index(key(bench))), 9 * _ROUNDS, "the number of records at the end")


@heads.promise(RUNS, Capability.DURABLE)
def runs_are_there_later(bench: Bench) -> None:
    """When the runs are closed and opened again, what was appended is there, and goes on."""
    append(bench, "x", "y", snapshot=b"{}", keep=True, lease_until_ms=0)
    append(bench, "z", snapshot=b"[]")
    append(bench, stream="b")
    bench.runs.runs.forget(key(bench, "b"))
    _hold(bench, ANA)
    before = everything(bench)
    bench.close()
    equal(everything(bench), before, "the run after it was opened again")
    equal(listed(bench), ["a"], "what is listed")
    true(not _hold(bench, BEN), "the run was given to somebody else when it was opened again")
    true(append(bench, owner=ANA), "it did not go on")
