"""Journals of durable runs: records, snapshots, and what leaves with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from airflow_agentic.errors import MailboxFull
from airflow_agentic.persistence.integrity import genesis, seal, seal_snapshot
from airflow_agentic.persistence.journal import Draft, Journal
from airflow_agentic.persistence.ports import (
    Append,
    IndexEntry,
    Record,
    RunHead,
    RunQuery,
    RunStores,
    SnapshotRecord,
)
from airflow_agentic.persistence.verification import verified
from airflow_agentic.testing.conformance.bench import Bench, equal, refused, said, true
from airflow_agentic.testing.conformance.guards import NAMES
from airflow_agentic.testing.conformance.promises import Capability, Chapter

journals = Chapter()
RUNS = Capability.RUNS
ANA, BEN = "ana@host:1", "ben@host:2"
NOW_MS = 1_900_000_000_000
"""Times in records are those of their writers: a store takes them as they come."""

_LEASE = timedelta(hours=1)
_MANY = 1_100
_LARGE = 1024 * 1024


def key(bench: Bench, stream: str = "a") -> str:
    """Return the name of a stream of this bench."""
    return f"{bench.box}/{stream}"


def head_of(bench: Bench, stream: str = "a", runs: RunStores | None = None) -> RunHead | None:
    """Read one head."""
    query = RunQuery(streams=(key(bench, stream),), limit=1)
    return next(iter((runs or bench.runs).runs.heads(query)), None)


def write_of(
    bench: Bench,
    *names: str,
    stream: str = "a",
    expected: int | None = None,
    snapshot: bytes | None = None,
    keep: bool = False,
    outgoing: Sequence[Any] = (),
    **head: Any,
) -> Append:
    """Return what adds records of such names; it follows what is there, if nothing else is said."""
    found = head_of(bench, stream) or RunHead(key(bench, stream), bench.box, owner=ANA, created_at_ms=NOW_MS)
    version = found.version if expected is None else expected
    digest, records = found.digest or genesis(found.stream), []
    after = version
    for name in names or ("one",):
        after += 1
        data = f'{{"n":{after}}}'.encode()
        digest = seal(digest, after, "event", NOW_MS + after, name, data)
        records.append(Record(after, "event", NOW_MS + after, name, data, digest))
    made = None
    if snapshot is not None:
        sealed = seal_snapshot(digest, after, NOW_MS, snapshot)
        made = SnapshotRecord(after, NOW_MS, snapshot, digest, sealed, keep)
    changes = {"version": after, "digest": digest, "updated_at_ms": NOW_MS + after, **head}
    return Append(replace(found, **changes), version, records, made, outgoing)


def append(bench: Bench, *names: str, **values: Any) -> bool:
    """Add records; say whether that was done."""
    return bench.runs.journals.append(write_of(bench, *names, **values))


def _read(bench: Bench, stream: str = "a", after: int = 0, limit: int = 1000) -> list[Record]:
    return bench.runs.journals.read(key(bench, stream), after, limit)


def everything(bench: Bench, stream: str = "a") -> tuple[Any, ...]:
    """Return all that there is of a stream."""
    journal, name = bench.runs.journals, key(bench, stream)
    read = journal.read(name, 0, 10_000)
    return head_of(bench, stream), read, journal.index(name), journal.latest_snapshot(name)


# -- records -----------------------------------------------------------------------------------------------


@journals.promise(RUNS)
def a_journal_has_what_was_appended(bench: Bench) -> None:
    """Records are read as they were appended, in their order; of a stream that is not there, none."""
    equal(everything(bench), (None, [], [], None), "what is read before the first record")
    first = write_of(bench, "x", "y")
    true(bench.runs.journals.append(first), "the first records were refused")
    second = write_of(bench, "z")
    true(bench.runs.journals.append(second), "a record that follows was refused")
    equal(_read(bench), [*first.records, *second.records], "what is read")
    equal(head_of(bench), second.head, "the head")
    equal(_read(bench, "b"), [], "what is read of another stream")


@journals.promise(RUNS)
def what_is_not_expected_is_not_appended(bench: Bench) -> None:
    """An append that expects the journal to end elsewhere is refused, and changes nothing."""
    for expected in (1, 2):
        true(not append(bench, expected=expected), f"what is not there was taken for version {expected}")
    equal(everything(bench), (None, [], [], None), "what is read of a stream that never began")
    append(bench, "x", "y", snapshot=b"{}")
    before = everything(bench)
    for expected in (0, 1, 3):
        done = append(bench, "w", expected=expected, snapshot=b"[]", status="failed", error="no")
        true(not done, f"a journal of version 2 was continued as if it had {expected}")
        equal(everything(bench), before, f"what is read after an append that expected version {expected}")


@journals.promise(RUNS)
def only_its_owner_appends(bench: Bench) -> None:
    """Whoever lost a run cannot write to it, and whoever has it now can."""
    append(bench, "x", owner=ANA, lease_until_ms=0)
    before = everything(bench)
    true(not append(bench, owner=BEN), "a record of somebody who does not have the run was taken")
    equal(everything(bench), before, "what is read after it")
    hold = bench.runs.runs.hold(key(bench), BEN, _LEASE)
    true(hold.taken, "a run that was given back was not taken over")
    true(not append(bench, owner=ANA), "a record of somebody who lost the run was taken")
    true(append(bench, owner=BEN), "a record of the one who took the run over was refused")
    equal([each.version for each in _read(bench)], [1, 2], "the versions")


@journals.promise(RUNS)
def records_are_read_from_any_version(bench: Bench) -> None:
    """Reading begins behind any version, and gives at most so many as were asked for."""
    for _ in range(4):
        append(bench, "x", "y")
    for after in range(10):
        for limit in (1, 3, 8, 100):
            wanted = list(range(after + 1, 9))[:limit]
            found = [each.version for each in _read(bench, after=after, limit=limit)]
            equal(found, wanted, f"the first {limit} versions after {after}")
    append(bench, *[""] * _MANY, stream="b")
    for after in (0, 1, _MANY - 1, _MANY, 2**31, 2**40):
        found = [each.version for each in _read(bench, "b", after, 2 * _MANY)]
        equal(found, list(range(after + 1, _MANY + 1)), f"the versions of a long journal after {after}")


@journals.promise(RUNS)
def records_come_back_as_they_were(bench: Bench) -> None:
    """Data and digests come back byte by byte, names and types letter by letter, times to the millisecond."""
    data = (b"", b"{}", b"\0", b" 1 2 3", '{"ü":"\U0001f600"}'.encode(), bytes(range(256)), b"x" * _LARGE)
    names = (*NAMES, "x" * 1_000, "\U0001f600" * 250, "fetch#2", "\ufffd", "\\xff", "'); --")
    write = write_of(bench, *names)
    records = [
        replace(
            each,
            data=data[n % len(data)],
            digest=bytes((n + i) % 256 for i in range(32)),
            at_ms=(0, 1, NOW_MS, 2**52)[n % 4],
            type=("event", "step.done", "x" * 40, "ünknown")[n % 4],
        )
        for n, each in enumerate(write.records)
    ]
    true(bench.runs.journals.append(replace(write, records=records)), "the records were refused")
    for have, want in zip(_read(bench), records, strict=True):
        true(have == want, f"the record {want.version} ({want.name[:20]!r}) came back as another one")
        equal((type(have.data), type(have.digest)), (bytes, bytes), "the types of data and digest")


@journals.promise(RUNS)
def streams_are_told_apart(bench: Bench) -> None:
    """Streams are told apart whatever characters their names are of; none of them is a pattern."""
    for name in NAMES:
        true(append(bench, name, stream=name, expected=0), f"the stream {name!r} was taken for another one")
    for name in NAMES:
        found = [each.name for each in _read(bench, name)]
        equal(found, [name], f"the names of the records of the stream {name!r}")
        head = head_of(bench, name)
        equal(head and head.stream, key(bench, name), "the name of a head")
    last = NAMES[-1]
    true(bench.runs.runs.forget(key(bench, last)), "a stream was not forgotten")
    left = [name for name in NAMES if head_of(bench, name)]
    equal(left, [*NAMES[:-1]], "the streams that are left when one was forgotten")


@journals.promise(RUNS)
def the_index_has_all_that_has_a_name(bench: Bench) -> None:
    """The index has the type and name of each record that has one, in their order, however many there are."""
    append(bench, "x", "", "y", "x")
    wanted = [IndexEntry(version, "event", name) for version, name in ((1, "x"), (3, "y"), (4, "x"))]
    equal(bench.runs.journals.index(key(bench)), wanted, "the index")
    names = [f"n-{n}" if n % 7 else "" for n in range(_MANY)]
    append(bench, *names, stream="b")
    wanted = [IndexEntry(n, "event", name) for n, name in enumerate(names, 1) if name]
    equal(bench.runs.journals.index(key(bench, "b")), wanted, "the index of a long journal")
    equal(bench.runs.journals.index(key(bench, "c")), [], "the index of a stream that is not there")


# -- snapshots ---------------------------------------------------------------------------------------------


def _snapshots(bench: Bench, stream: str = "a") -> list[tuple[int, bool]]:
    """Return version and whether it is kept of all snapshots, the newest first."""
    found, at = [], None
    while (each := bench.runs.journals.latest_snapshot(key(bench, stream), at)) is not None:
        true(
            at is None or each.version <= at,
            f"the newest snapshot up to {at} is one of version {each.version}",
        )
        found.append((each.version, each.kept))
        at = each.version - 1
    return found


@journals.promise(RUNS)
def a_snapshot_comes_back_as_it_was(bench: Bench) -> None:
    """A snapshot is read as it was made, with the append that it went with."""
    for state in (b"{}", b"", bytes(range(256)), b" 1 2 ", b"x" * _LARGE):
        for keep in (False, True):
            write = write_of(bench, snapshot=state, keep=keep)
            true(bench.runs.journals.append(write), "an append with a snapshot was refused")
            found = bench.runs.journals.latest_snapshot(key(bench))
            true(found == write.snapshot, f"a snapshot of {len(state)} bytes came back as another one")


@journals.promise(RUNS)
def a_snapshot_takes_the_place_of_the_one_before(bench: Bench) -> None:
    """A new snapshot takes the place of older ones, but not of those that are kept; the newest up to a version is read."""
    for keep in (False, True, False, False, True):
        append(bench, "x", "y", snapshot=b"{}", keep=keep)
        append(bench, "z")
    equal(_snapshots(bench), [(14, True), (5, True)], "the snapshots that are left")
    append(bench, snapshot=b"{}")
    equal(_snapshots(bench), [(16, False), (14, True), (5, True)], "the snapshots after one more")
    for at, wanted in ((None, 16), (2**40, 16), (16, 16), (15, 14), (14, 14), (13, 5), (5, 5)):
        found = bench.runs.journals.latest_snapshot(key(bench), at)
        equal(found and found.version, wanted, f"the version of the newest snapshot up to {at}")
    for at in (4, 0, -1):
        equal(bench.runs.journals.latest_snapshot(key(bench), at), None, f"the newest snapshot up to {at}")
    equal(bench.runs.journals.latest_snapshot(key(bench, "b")), None, "that of a stream that is not there")


def _journal(bench: Bench) -> Journal:
    """Return a journal as those who work on runs write it."""
    hold = bench.runs.runs.hold(key(bench), ANA, _LEASE)
    new = RunHead(key(bench), bench.box, "snapshot", owner=ANA)
    return Journal(bench.runs, hold.head or new, hold.now_ms, _LEASE)


def _written(journal: Journal, count: int, state: bytes | None = None, *, keep: bool = False) -> int:
    return journal.write([Draft("event", f"n-{n}", b"{}") for n in range(count)], state=state, keep=keep)


@journals.promise(RUNS)
def what_is_pruned_is_forgotten_and_the_rest_is_whole(bench: Bench) -> None:
    """Pruning forgets records up to a snapshot, which is kept; what is left, and what comes then, can be verified."""
    journal, store = _journal(bench), bench.runs.journals
    _written(journal, 3, b"1", keep=True)
    _written(journal, 4)
    equal(store.prune(key(bench), 7), 0, "what is pruned through a version without a snapshot")
    _written(journal, 3, b"2")
    _written(journal, 2)
    equal(store.prune(key(bench), 10), 10, "how many records were pruned")
    equal([each.version for each in _read(bench)], [11, 12], "the versions that are left")
    equal(_snapshots(bench), [(10, True), (3, True)], "the snapshots that are left")
    equal(verified(bench.runs, key(bench)), [], "what is wrong after pruning")
    equal(store.prune(key(bench), 10), 0, "what is pruned the second time")
    _written(journal, 1, b"3")
    _written(journal, 1, b"4")
    equal(_snapshots(bench), [(14, False), (10, True), (3, True)], "the snapshots after two more")
    equal(verified(bench.runs, key(bench)), [], "what is wrong after further records")
    equal(store.prune(key(bench), 14), 4, "how many records are pruned with the last one")
    equal(_read(bench), [], "what is left then")
    equal(verified(bench.runs, key(bench)), [], "what is wrong when all is pruned")
    _written(journal, 1)
    equal([each.version for each in _read(bench)], [15], "the versions after one more record")
    equal(verified(bench.runs, key(bench)), [], "what is wrong after that")


@journals.promise(RUNS)
def pruning_touches_nothing_else(bench: Bench) -> None:
    """What cannot be pruned is not, and other streams keep what they have."""
    for stream in ("a", "b", "c"):
        append(bench, "x", "y", stream=stream, snapshot=b"{}")
    before = [everything(bench, stream) for stream in ("a", "c")]
    for through in (-1, 0, 1, 3, 2**31, 2**31 + 2, 2**40):
        equal(bench.runs.journals.prune(key(bench), through), 0, f"what is pruned through {through}")
    equal(bench.runs.journals.prune(key(bench, "z"), 1), 0, "what is pruned of a stream that is not there")
    equal(bench.runs.journals.prune(key(bench, "b"), 2), 2, "what is pruned of a stream")
    equal([everything(bench, stream) for stream in ("a", "c")], before, "the other streams")


# -- messages ----------------------------------------------------------------------------------------------


@journals.promise(RUNS, Capability.ONE_COMMIT)
def messages_leave_with_the_records_or_not_at_all(bench: Bench) -> None:
    """Messages leave when the records are appended, and do not when they are refused."""
    mine = [bench.outgoing(1), bench.outgoing(2, bench.to(bench.other))]
    true(append(bench, "x", outgoing=mine), "records with messages were refused")
    equal(said(bench.claim(9)), [1], "what was sent to the first mailbox")
    equal(said(bench.claim(9, mailbox=bench.other)), [2], "what was sent to the second one")
    true(append(bench, "y", snapshot=b"{}", outgoing=[bench.outgoing(3)]), "a snapshot with it was refused")
    equal(said(bench.claim(9)), [3], "what was sent with a snapshot")
    for values in ({"expected": 0}, {"expected": 5}, {"owner": BEN}):
        true(not append(bench, outgoing=[bench.outgoing(4)], **values), "an append was not refused")
    equal(said(bench.claim(9)), [], "what was sent with appends that were refused")


@journals.promise(RUNS, Capability.ONE_COMMIT, Capability.BACK_PRESSURE)
def a_full_mailbox_refuses_the_whole_append(bench: Bench) -> None:
    """When a message finds no room, nothing is appended, nothing is sent, and the head is as it was."""
    full = bench.to(limit=1, overflow="refuse")
    bench.send(0, full)
    for stream in ("a", "b"):
        if stream == "b":
            append(bench, "x", stream=stream, snapshot=b"{}")
        before, box = everything(bench, stream), f"{bench.other}-{stream}"
        sent = [bench.outgoing(1, bench.to(box)), bench.outgoing(2, full)]
        with refused(MailboxFull, "an append with a message to a full mailbox"):
            append(bench, "y", stream=stream, snapshot=b"[]", status="failed", outgoing=sent)
        equal(everything(bench, stream), before, "what is read after it")
        equal(bench.counts(box), (0, 0, 0, 0), "the counts of the mailbox that had room")
        true(append(bench, "z", stream=stream, outgoing=sent[:1]), "the next append was refused")
        equal(bench.counts(box), (1, 0, 0, 0), "the counts after a message that finds room")
