"""Documents of guards: versions, changes of several at once, names, times, and many who change them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from airflow_agentic.errors import StoreError
from airflow_agentic.resilience.ports import KEEP, GuardChange, GuardEntry, GuardKey, GuardStore, Kind
from airflow_agentic.stores.documents import NAME_CHARACTERS, VALUE_BYTES
from airflow_agentic.testing.conformance.bench import Bench, equal, refused, true
from airflow_agentic.testing.conformance.promises import Capability, Chapter
from airflow_agentic.testing.conformance.together import PATIENCE_SECONDS, together

guards = Chapter()
GUARDS, THREADS, SHARED = Capability.GUARDS, Capability.THREADS, Capability.SHARED
_WORKERS, _ROUNDS, _TIMES = 4, 20, 50
_MOMENT = timedelta(seconds=1)

# Whatever takes a name for a pattern, or sorts or compares it in a way of its own, is found out by one of these.
NAMES = (
    "",
    "%",
    "%a",
    "*",
    "A",
    "[a]",
    "[b]",
    "\\",
    "\\%",
    "_",
    "a",
    "a b",
    "a'b\"c",
    "a/b:c?d#e",
    "ab",
    "a\n",
    "e\u0301",
    "\u00e9",
    "\u00df",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\U0001f600",
    "\U0010ffff",
    "\U0010ffffz",
)
"""Names that a store may mistake for each other."""


def _key(bench: Bench, name: str = "a", kind: Kind = "breaker") -> GuardKey:
    return GuardKey(kind, f"{bench.box}/{name}")


def _put(bench: Bench, value: bytes | None, expected: int, name: str = "a", kind: Kind = "breaker") -> bool:
    """Change one document; say whether it was changed."""
    return _changed(bench.guards, GuardChange(_key(bench, name, kind), value, expected))


def _changed(store: GuardStore, *changes: GuardChange) -> bool:
    at = store.change(changes)
    true(at is None or isinstance(at, datetime), f"a change returns {at!r}, and must return a time or None")
    return at is not None


def _kept(bench: Bench, *names: str, kind: Kind = "breaker") -> dict[str, tuple[bytes, int]]:
    """Return value and version of what there is."""
    reading = bench.guards.read([_key(bench, name, kind) for name in names])
    return {
        key.name.removeprefix(f"{bench.box}/"): (entry.value, entry.version)
        for key, entry in reading.entries.items()
    }


def _entry(bench: Bench, name: str = "a", kind: Kind = "breaker") -> GuardEntry:
    key = _key(bench, name, kind)
    found = bench.guards.read([key]).entries.get(key)
    true(found is not None, f"the {kind} {key.name!r} is not there")
    assert found is not None
    return found


def _listed(bench: Bench, prefix: str = "", limit: int = 1000, kind: Kind = "breaker") -> list[str]:
    """Return the names of what begins so, among those of this bench."""
    found = bench.guards.entries(kind, f"{bench.box}/{prefix}", limit)
    return [name.removeprefix(f"{bench.box}/") for name, _ in found]


# -- versions ----------------------------------------------------------------------------------------------


@guards.promise(GUARDS)
def a_document_counts_its_versions_from_one(bench: Bench) -> None:
    """A document has version 1 when it is made, and one more with each change; forgotten and made anew it has 1."""
    equal(_kept(bench, "a"), {}, "what is read before it is made")
    for version, value in enumerate((b"{}", b'{"n":2}', b'{"n":2}'), start=1):
        true(_put(bench, value, version - 1), f"a change that expects the version {version - 1} was not made")
        equal(_kept(bench, "a"), {"a": (value, version)}, "(value, version)")
    true(_put(bench, None, 3), "what has version 3 was not forgotten")
    equal(_kept(bench, "a"), {}, "what is read after it was forgotten")
    equal(_listed(bench), [], "what is listed after it was forgotten")
    true(_put(bench, b"{}", 0), "what was forgotten was not made anew")
    equal(_kept(bench, "a"), {"a": (b"{}", 1)}, "(value, version) of what was made anew")


@guards.promise(GUARDS)
def what_is_not_as_expected_is_not_changed(bench: Bench) -> None:
    """A document of another version than expected, or that is not there, is not changed, made or forgotten."""
    for expected in (1, 2):
        for value in (b"x", None):
            true(not _put(bench, value, expected), f"what is not there was taken for version {expected}")
    equal(_kept(bench, "a"), {}, "what is read after changes of what is not there")
    _put(bench, b"1", 0)
    _put(bench, b"2", 1)
    for expected in (0, 1, 3):
        for value in (b"x", None):
            true(not _put(bench, value, expected), f"version 2 was changed as if it were {expected}")
    equal(_kept(bench, "a"), {"a": (b"2", 2)}, "(value, version) after changes that were refused")


@guards.promise(GUARDS)
def documents_change_together_or_not_at_all(bench: Bench) -> None:
    """When one of several documents has another version, none of them is changed, made or forgotten."""
    for name in ("a", "b", "c"):
        _put(bench, b"1", 0, name)
    before = dict.fromkeys(("a", "b", "c"), (b"1", 1))
    right = {
        "a": GuardChange(_key(bench, "a"), b"2", 1),
        "b": GuardChange(_key(bench, "b"), b"2", 1),
        "c": GuardChange(_key(bench, "c"), None, 1),
        "d": GuardChange(_key(bench, "d"), b"2", 0),
    }
    for names in (("a", "b"), ("b", "a"), ("a", "b", "c", "d"), ("d", "c", "b", "a")):
        for wrong in names:
            changes = [
                GuardChange(each.key, each.value, each.expected + (name == wrong))
                for name, each in ((name, right[name]) for name in names)
            ]
            what = f"a change of {', '.join(names)} with another version of {wrong}"
            true(not _changed(bench.guards, *changes), f"{what} was made")
            equal(_kept(bench, *right), before, f"what is read after {what}")
    true(_changed(bench.guards, *right.values()), "a change of four documents as expected was not made")
    after = {"a": (b"2", 2), "b": (b"2", 2), "d": (b"2", 1)}
    equal(_kept(bench, *right), after, "what is read after it")
    true(
        _changed(
            bench.guards, *(GuardChange(_key(bench, name), b"3", after[name][1]) for name in ("d", "a", "b"))
        ),
        "a change of three documents that are there was not made",
    )
    equal(_kept(bench, *right), {"a": (b"3", 3), "b": (b"3", 3), "d": (b"3", 2)}, "what is read after that")


@guards.promise(GUARDS)
def that_a_document_is_not_there_can_be_required(bench: Bench) -> None:
    """Forgetting what is not there, and is expected not to be, changes nothing; beside others it is a condition."""
    true(_put(bench, None, 0), "forgetting what is not there, as expected, was refused")
    equal(_kept(bench, "a"), {}, "what is read after it")
    other = GuardChange(_key(bench, "b"), b"1", 0)
    absent = GuardChange(_key(bench, "a"), None, 0)
    true(_changed(bench.guards, other, absent), "a change with a condition that holds was not made")
    equal(_kept(bench, "a", "b"), {"b": (b"1", 1)}, "what is read after it")
    _put(bench, b"1", 0)
    other = GuardChange(_key(bench, "b"), b"2", 1)
    true(not _changed(bench.guards, absent, other), "a change with a condition that does not hold was made")
    equal(_kept(bench, "a", "b"), {"a": (b"1", 1), "b": (b"1", 1)}, "what is read after that")


@guards.promise(GUARDS)
def only_what_is_there_is_read(bench: Bench) -> None:
    """What is read is what there is of what was asked for; one name can be that of several kinds."""
    _put(bench, b"1", 0, "a", "breaker")
    _put(bench, b"2", 0, "a", "limit")
    _put(bench, b"3", 0, "b", "limit")
    asked = [_key(bench, name, kind) for kind in KEEP for name in ("a", "b")]
    found = {(key.kind, key.name): each.value for key, each in bench.guards.read(asked).entries.items()}
    a, b = _key(bench, "a").name, _key(bench, "b").name
    equal(found, {("breaker", a): b"1", ("limit", a): b"2", ("limit", b): b"3"}, "what is read")
    equal(dict(bench.guards.read([]).entries), {}, "what is read if nothing is asked for")
    true(_changed(bench.guards), "a change of nothing was not made")


@guards.promise(GUARDS)
def values_come_back_as_they_were(bench: Bench) -> None:
    """A value comes back byte by byte, up to the size that a store must take."""
    values = (b"{}", b"", b" 1 2 3", '{"ü":"\U0001f600"}'.encode(), bytes(range(256)), b"x" * VALUE_BYTES)
    for version, value in enumerate(values):
        true(_put(bench, value, version), f"a value of {len(value)} bytes was not taken")
        entry = _entry(bench)
        true(entry.value == value, f"a value of {len(value)} bytes came back as another one")
        equal(type(entry.value), bytes, "the type of a value")


@guards.promise(GUARDS)
def what_is_too_large_is_refused_whole(bench: Bench) -> None:
    """A name or value that is too long is refused with an error, and nothing of the change is made."""
    longest = "\U0001f600" * (NAME_CHARACTERS - len(_key(bench, "").name))
    true(_put(bench, b"1", 0, longest), f"a name of {NAME_CHARACTERS} characters was not taken")
    equal(_kept(bench, longest), {longest: (b"1", 1)}, "what is read by the longest name")
    fine = GuardChange(_key(bench), b"1", 0)
    for what, wrong in (
        ("a name that is too long", GuardChange(_key(bench, longest + "x"), b"1", 0)),
        ("a value that is too long", GuardChange(_key(bench, "b"), b"x" * (VALUE_BYTES + 1), 0)),
    ):
        for changes in ([wrong], [fine, wrong], [wrong, fine]):
            with refused(StoreError, what):
                bench.guards.change(changes)
    equal(_kept(bench, "a", "b"), {}, "what is read after changes that were refused")


# -- names -------------------------------------------------------------------------------------------------


@guards.promise(GUARDS)
def names_mean_nothing_to_the_store(bench: Bench) -> None:
    """Names are told apart whatever characters they are of; none of them is a pattern."""
    for name in NAMES:
        true(_put(bench, repr(name).encode(), 0, name), f"the name {name!r} was taken for another one")
    wanted = {name: (repr(name).encode(), 1) for name in NAMES}
    equal(_kept(bench, *NAMES), wanted, "what is read")


@guards.promise(GUARDS)
def documents_are_listed_in_order(bench: Bench) -> None:
    """The documents of a kind are listed by name, in the order of bytes, at most so many as were asked for."""
    for name in reversed(NAMES):
        _put(bench, repr(name).encode(), 0, name)
    _put(bench, b"1", 0, "a", "limit")
    ordered = sorted(NAMES, key=str.encode)
    equal(_listed(bench), ordered, "the names")
    equal(_listed(bench, limit=3), ordered[:3], "the names with a limit of 3")
    equal(_listed(bench, kind="limit"), ["a"], "the names of another kind")
    equal(_listed(bench, kind="bulkhead"), [], "the names of a kind that has none")
    found = bench.guards.entries("breaker", _key(bench, "").name)
    equal([each.value for _, each in found], [repr(name).encode() for name in ordered], "the values")
    equal({each.version for _, each in found}, {1}, "the versions")


@guards.promise(GUARDS)
def how_a_name_begins_is_taken_literally(bench: Bench) -> None:
    """Documents are listed by how their names begin; what is a pattern elsewhere is not one here."""
    for name in NAMES:
        _put(bench, b"1", 0, name)
    prefixes = {*NAMES, *(name[:1] for name in NAMES), "[a", "a/b:", "?", "[a-z]", "b", "e", ".*", "a*"}
    for prefix in prefixes:
        wanted = sorted((name for name in NAMES if name.startswith(prefix)), key=str.encode)
        equal(_listed(bench, prefix), wanted, f"the names that begin with {prefix!r}")


# -- times -------------------------------------------------------------------------------------------------


@guards.promise(GUARDS)
def times_are_those_of_one_clock(bench: Bench) -> None:
    """The times of readings, changes and documents are of one clock, which goes on, and have a zone."""
    store = bench.guards
    times = [store.read([]).now]
    for version in range(3):
        changed = store.change([GuardChange(_key(bench), b"1", version)])
        true(changed is not None, "a document was not changed")
        assert changed is not None
        reading = store.read([_key(bench)])
        times += [reading.entries[_key(bench)].updated_at, reading.now]
        true(
            times[-3] <= changed <= times[-1],
            "a change happened before the reading before it, or after the next",
        )
        bench.let_pass()
    true(all(each.tzinfo is not None for each in times), "a time has no zone")
    equal(times, sorted(times), "the times, as they were told,")
    true(times[0] < times[-1], "the clock stands still")
    both = [GuardChange(_key(bench, name), b"2", expected) for name, expected in (("a", 3), ("b", 0))]
    true(_changed(store, *both), "two documents were not changed")
    later = [_entry(bench, name).updated_at for name in ("a", "b")]
    true(min(later) >= times[-1], "what was changed with another one has an older time")


@guards.promise(GUARDS, Capability.MOVABLE_CLOCK)
def a_document_is_kept_for_its_time(bench: Bench) -> None:
    """What was not changed for longer than its kind is kept is not there any more, and can be made anew."""
    clock = bench.own_clock()
    for kind, span in KEEP.items():
        _put(bench, b"1", 0, "a", kind)
        _put(bench, b"1", 0, "b", kind)
        clock.advance(span - _MOMENT)
        true(_put(bench, b"2", 1, "b", kind), f"a {kind} was not changed at its last moment")
        clock.advance(_MOMENT)
        equal(_kept(bench, "a", "b", kind=kind), {"a": (b"1", 1), "b": (b"2", 2)}, f"each {kind} until then")
        equal(_listed(bench, kind=kind), ["a", "b"], f"the names of each {kind} until then")
        clock.advance(_MOMENT)
        equal(_kept(bench, "a", "b", kind=kind), {"b": (b"2", 2)}, f"each {kind} after that")
        equal(_listed(bench, kind=kind), ["b"], f"the names of each {kind} after that")
        equal(_listed(bench, limit=1, kind=kind), ["b"], f"the first name of a {kind} that is kept")
        for value in (b"x", None):
            true(not _put(bench, value, 1, "a", kind), f"a {kind} that is not kept any more was changed")
        true(_put(bench, b"3", 0, "a", kind), f"a {kind} that is not kept any more was not made anew")
        equal(_kept(bench, "a", kind=kind), {"a": (b"3", 1)}, f"a {kind} that was made anew")


@guards.promise(GUARDS, Capability.MOVABLE_CLOCK)
def documents_that_are_not_kept_are_forgotten(bench: Bench) -> None:
    """A purge forgets what is kept no longer, says how many that were, and nothing else."""
    clock = bench.own_clock()
    clock.advance(max(KEEP.values()) + _MOMENT)
    bench.guards.purge()
    _put(bench, b"1", 0, "a", "retries")
    _put(bench, b"1", 0, "b", "retries")
    _put(bench, b"1", 0, "a", "budget")
    clock.advance(KEEP["retries"] + _MOMENT)
    _put(bench, b"1", 0, "c", "retries")
    equal(bench.guards.purge(), 2, "how many a purge forgot")
    equal(bench.guards.purge(), 0, "how many the next purge forgot")
    equal(_listed(bench, kind="retries"), ["c"], "what is left of one kind")
    equal(_listed(bench, kind="budget"), ["a"], "what is left of another")


# -- many --------------------------------------------------------------------------------------------------


def _race(store: GuardStore, bench: Bench, start: threading.Barrier, name: str) -> list[bool]:
    """Change a document once each round, with the version that all others expect too; say when that succeeded."""
    won = []
    for version in range(_ROUNDS):
        start.wait(PATIENCE_SECONDS)
        won.append(_changed(store, GuardChange(_key(bench), f"{name} {version}".encode(), version)))
    return won


def _raced(bench: Bench, stores: Sequence[GuardStore]) -> None:
    start = threading.Barrier(_WORKERS)
    shares = [stores[i % len(stores)] for i in range(_WORKERS)]
    wins = together([partial(_race, store, bench, start, str(i)) for i, store in enumerate(shares)])
    equal([sum(each) for each in zip(*wins, strict=True)], [1] * _ROUNDS, "how many won, round by round,")
    winner = next(i for i, won in enumerate(wins) if won[-1])
    equal(
        _kept(bench, "a"), {"a": (f"{winner} {_ROUNDS - 1}".encode(), _ROUNDS)}, "what the last winner wrote"
    )


def _count(store: GuardStore, key: GuardKey) -> None:
    """Add one, so many times."""
    done = 0
    while done < _TIMES:
        found = store.read([key]).entries.get(key)
        value, version = (int(found.value), found.version) if found else (0, 0)
        done += _changed(store, GuardChange(key, str(value + 1).encode(), version))


def _counted(bench: Bench, stores: Sequence[GuardStore]) -> None:
    key = _key(bench, "total")
    together([partial(_count, stores[i % len(stores)], key) for i in range(_WORKERS)])
    total = _WORKERS * _TIMES
    equal(
        _kept(bench, "total"), {"total": (str(total).encode(), total)}, "(value, version) after all counted"
    )


@guards.promise(GUARDS, THREADS)
def of_many_threads_one_changes_a_version(bench: Bench) -> None:
    """Of many threads that change a document with the same expected version, one does."""
    _raced(bench, [bench.guards])


@guards.promise(GUARDS, THREADS)
def many_threads_lose_no_count(bench: Bench) -> None:
    """A number that many threads add to, each with the version that it read, loses nothing."""
    _counted(bench, [bench.guards])


@guards.promise(GUARDS, THREADS, SHARED)
def of_many_openings_one_changes_a_version(bench: Bench) -> None:
    """Of several openings that change a document with the same expected version, one does."""
    _raced(bench, [bench.guards, bench.other_guards()])


@guards.promise(GUARDS, THREADS, SHARED)
def many_openings_lose_no_count(bench: Bench) -> None:
    """A number that several openings add to, each with the version that it read, loses nothing."""
    _counted(bench, [bench.guards, bench.other_guards()])


@guards.promise(GUARDS, THREADS)
def documents_are_read_at_one_time(bench: Bench) -> None:
    """Who reads several documents sees each change of several of them as a whole."""
    store, names = bench.guards, ("a", "b", "c")
    keys = [_key(bench, name) for name in names]
    _changed(store, *(GuardChange(key, b"100", 0) for key in keys))

    def move(giver: GuardKey, taker: GuardKey) -> None:
        moved = 0
        while moved < _ROUNDS:
            found = store.read([giver, taker]).entries
            moved += _changed(
                store,
                GuardChange(giver, str(int(found[giver].value) - 1).encode(), found[giver].version),
                GuardChange(taker, str(int(found[taker].value) + 1).encode(), found[taker].version),
            )

    def look() -> None:
        for _ in range(_TIMES):
            found = store.read(keys).entries
            equal(sum(int(found[key].value) for key in keys), 300, "what is moved to and fro, in sum,")

    together(
        [lambda: move(keys[0], keys[1]), lambda: move(keys[1], keys[0]), lambda: move(keys[2], keys[0]), look]
    )
    found = _kept(bench, *names)
    equal(
        {name: value for name, (value, _) in found.items()}, {"a": b"120", "b": b"100", "c": b"80"}, "the end"
    )


@guards.promise(GUARDS, Capability.DURABLE)
def documents_are_there_later(bench: Bench) -> None:
    """When the documents are closed and opened again, what was changed is there."""
    _put(bench, b"1", 0)
    _changed(bench.guards, GuardChange(_key(bench), b"2", 1), GuardChange(_key(bench, "b"), b"1", 0))
    _put(bench, b"1", 0, "c")
    _put(bench, None, 1, "c")
    before = [_entry(bench, name) for name in ("a", "b")]
    bench.close()
    equal([_entry(bench, name) for name in ("a", "b")], before, "the documents after they were opened again")
    equal(_listed(bench), ["a", "b"], "their names")
    true(_put(bench, b"3", 2), "what was opened again was not changed")
