"""What guards cost, side by side with their peers and with the raw store: `python -m benchmarks.guards`.

In one run and in interleaved rounds, as the benchmark of the bus does it: what counts is the ratio within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import json
import logging
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_agentic.resilience import Breaker, Budget, Bulkhead, Guards, Policy, RateLimit, Retry
from airflow_agentic.resilience.ports import (
    GuardChange,
    GuardEntry,
    GuardKey,
    GuardReading,
    GuardStore,
    Kind,
)
from airflow_agentic.resilience.shared import LocalGuards
from airflow_agentic.stores import Store, open_store
from benchmarks.bus import report
from benchmarks.bus.peers import package, version
from benchmarks.bus.rounds import Disk, Trial, Unavailable, interleaved
from benchmarks.bus.section import Goal, Plan, Section
from benchmarks.bus.servers import Place, places

_ROOT = Path(__file__).parents[1]
_PEERS = ("interlock-cb", "pybreaker", "pyrate-limiter", "limits")
_MANY = 10**9
_CALLS, _TRIPS = 2_000, 60
_VALUE = "x" * 300
# Something worth looking at: the breaker is warm, no limit refuses.
_BREAKER = Policy(breaker=Breaker())
_RATE = Policy(limits=(RateLimit(rate=10**6, burst=10**6),))
_WINDOW = Policy(limits=(RateLimit(rate=10**6, algorithm="sliding_window"),))
_ALL = Policy(
    breaker=Breaker(),
    limits=(RateLimit(rate=10**6, burst=10**6),),
    bulkhead=Bulkhead(max_concurrent=50),
    budget=Budget(tokens=_MANY, cost_usd=float(_MANY), per="all"),
)


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guards", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds of a tenth; nothing is kept")
    parser.add_argument("--rounds", type=int, help="how many must count (default 7)")
    parser.add_argument("--folder", type=Path, help="where stores go: on the disk to be measured")
    parser.add_argument("--results", type=Path, default=_ROOT / "benchmarks" / "results")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    found = []
    with tempfile.TemporaryDirectory(prefix="agentic-bench-", dir=asked.folder) as folder:
        rounds = asked.rounds or (3 if asked.quick else 7)
        plan = Plan(Path(folder), rounds, asked.quick, long=False, say=_say)
        for measure in (breakers, limiters, stores):
            for section in measure(plan):
                print(report.printed(section), flush=True)
                found.append(section)
    if not asked.quick:
        _write(asked.results, found)


def breakers(plan: Plan) -> Iterator[Section]:
    """Measure calls of what is well."""
    section = Section(
        "A call through a closed breaker: in one process, and for ours known to it from the store"
    )
    trials = _breaker_trials(plan, section.skipped)
    section.rounds = interleaved(trials, _NoDisk(plan.folder), plan.rounds, say=plan.say)
    for group, names in {
        "sync": ("plain call", "ours: nothing to guard", "ours: breaker", "ours: breaker of time, slow calls",
                 "ours: breaker and retries", "pybreaker", "interlock-cb"),
        "async": ("plain await", "ours: breaker, async", "interlock-cb, async"),
    }.items():  # fmt: skip
        for name in names:
            section.add(group, name, name, "µs", names[0])
    section.within("a call through a breaker, cached", 20, "µs", "ours: breaker")
    section.within("the same with retries", 20, "µs", "ours: breaker and retries")
    section.within("the same, async", 20, "µs", "ours: breaker, async")
    yield section


def _breaker_trials(plan: Plan, skipped: dict[str, str]) -> list[Trial]:
    guards, count = Guards(LocalGuards()), plan.some(_CALLS)
    slow = Breaker(window="time", window_size=60, slow_call_seconds=1)
    ours = {
        "ours: nothing to guard": Policy(),
        "ours: breaker": _BREAKER,
        "ours: breaker of time, slow calls": Policy(breaker=slow),
        "ours: breaker and retries": Policy(breaker=Breaker(), retry=Retry()),
    }
    trials = [Trial("plain call", _timed(_nothing, count))]
    for name, policy in ours.items():
        guard = guards.guard(policy, f"conn:{len(trials)}")
        trials.append(Trial(name, _timed(functools.partial(guard.call, _nothing), count)))
    guard = guards.guard(_BREAKER, "conn:async")
    trials.append(Trial("plain await", _atimed(_anothing, count)))
    trials.append(Trial("ours: breaker, async", _atimed(lambda: guard.acall(_anothing), count)))
    with _or_skipped("pybreaker", skipped):
        theirs = package("pybreaker").CircuitBreaker(fail_max=5)
        trials.append(Trial("pybreaker", _timed(lambda: theirs.call(_nothing), count)))
    with _or_skipped("interlock-cb", skipped):
        interlock = package("interlock")
        sync, later = (interlock.CircuitBreaker(name=name) for name in ("sync", "async"))
        trials.append(Trial("interlock-cb", _timed(lambda: sync.call_sync(_nothing), count)))
        trials.append(Trial("interlock-cb, async", _atimed(lambda: later.call_async(_anothing), count)))
    return trials


def limiters(plan: Plan) -> Iterator[Section]:
    """Measure rates within one process."""
    section = Section("A call through a limit of rates, in the memory of one process")
    count = plan.some(_CALLS)
    guards = Guards(LocalGuards())
    bucket, window = guards.guard(_RATE, "conn:a"), guards.guard(_WINDOW, "conn:b")
    trials = [
        Trial("ours: token bucket", _timed(lambda: bucket.call(_nothing), count)),
        Trial("ours: sliding window", _timed(lambda: window.call(_nothing), count // 4)),
    ]
    with _or_skipped("pyrate-limiter", section.skipped):
        trials += [
            Trial(f"pyrate-limiter: {name}", _timed(take, count)) for name, take in _pyrates_in_memory()
        ]
    with _or_skipped("limits", section.skipped):
        package("limits.storage")
        storage = package("limits").storage.MemoryStorage()
        trials += [Trial(f"limits: {name}", _timed(take, count)) for name, take in _limits_of(storage)]
    section.rounds = interleaved(trials, _NoDisk(plan.folder), plan.rounds, say=plan.say)
    for trial in trials:
        note = "with the call, and all that a policy can say" if trial.name.startswith("ours") else ""
        section.add("memory", trial.name, trial.name, "µs", "ours: token bucket", note)
    yield section


def stores(plan: Plan) -> Iterator[Section]:
    """Measure what is shared, on each kind of store: beside one raw change of a row, and beside peers."""
    skipped: dict[str, str] = {}
    with places(plan.folder, skipped) as found:
        for place in found:
            yield _on(place, plan, skipped)


def _on(place: Place, plan: Plan, skipped: dict[str, str]) -> Section:
    section = Section(f"{place.name}: guards that all processes share", skipped=dict(skipped))
    count = plan.some(_TRIPS)
    policies = {
        "ours: limit": (_RATE, "one change"),
        "ours: bulkhead": (Policy(bulkhead=Bulkhead(max_concurrent=50)), "two changes: in and out"),
        "ours: all guards": (_ALL, "two changes of four documents"),
        "ours: breaker, cached": (_BREAKER, ""),
    }
    with contextlib.ExitStack() as stack:
        raw, raw_of_three = stack.enter_context(_RAW[place.name](place.url("raw")))
        trials = [
            Trial("raw: one change", _timed(raw, count)),
            Trial("raw: one change of three rows", _timed(raw_of_three, count)),
        ]
        store = stack.enter_context(open_store(place.url("ours")))
        trials += [
            Trial(name, _timed(_call(store, policy, name), count * (50 if "cached" in name else 1)))
            for name, (policy, _) in policies.items()
        ]
        with _or_skipped("peers", section.skipped):
            trials += [Trial(name, _timed(take, count)) for name, take in _peers(place, plan, stack)]
        section.rounds = interleaved(trials, plan.disk, plan.rounds, place.tidy, plan.say)
    section.goals += _trips(place)
    section.skipped.update(section.rounds.failed)
    for trial in trials:
        note = policies[trial.name][1] if trial.name in policies else _NOTES.get(trial.name, "")
        section.add(place.name, trial.name, trial.name, "µs", "raw: one change", note)
    section.slower("all guards together, of a raw change", 2.0, "ours: all guards", "raw: one change")
    section.within("a call through a breaker, cached", 20, "µs", "ours: breaker, cached")
    return section


def _trips(place: Place) -> Iterator[Goal]:
    """Count them: times depend on the machine, and these do not."""
    for text, policy, bound in (
        ("all guards", _ALL, 2.0),
        ("limit and breaker", Policy(breaker=Breaker(), limits=_RATE.limits), 1.1),
        ("breaker, cached", _BREAKER, 0.1),
    ):
        with open_store(place.url(f"trips{text[0]}")) as store:
            counted = _Counted(store.guards)
            guards = Guards(counted)
            guard = guards.guard(policy, "conn:counted")
            for _ in range(20):
                guard.call(_nothing)
            counted.trips = 0
            for _ in range(100):
                guard.call(_nothing)
            yield Goal(f"trips to the store for a call, {text}", bound, False, "x", counted.trips / 100)
            guards.close()


class _Counted:
    """Counts the round trips to a store."""

    def __init__(self, store: GuardStore) -> None:
        self._store = store
        self.trips = 0

    def read(self, keys: Sequence[GuardKey]) -> GuardReading:
        self.trips += 1
        return self._store.read(keys)

    def change(self, changes: Sequence[GuardChange]) -> datetime | None:
        self.trips += 1
        return self._store.change(changes)

    def entries(self, kind: Kind, prefix: str = "", limit: int = 1000) -> list[tuple[str, GuardEntry]]:
        self.trips += 1
        return self._store.entries(kind, prefix, limit)

    def purge(self) -> int:
        self.trips += 1
        return self._store.purge()


def _call(store: Store, policy: Policy, name: str) -> Callable[[], Any]:
    guard = store.guard(policy, f"conn:{name.replace(' ', '')}")
    return lambda: guard.call(_nothing)


# -- peers ---------------------------------------------------------------------------------------------

_NOTES = {
    "raw: one change": "UPDATE of one row with a version, or SET; on disk when it returns",
    "pyrate-limiter: SQLite": "synchronous is not FULL: not on disk when it returns",
    "interlock-cb: breaker, cached": "its state is shared, its window is not",
    "pybreaker": "asks Redis at each call; its count of failures in a row is shared",
}


def _pyrates_in_memory() -> Iterator[tuple[str, Callable[[], Any]]]:
    pyrate = package("pyrate_limiter")
    rates = [pyrate.Rate(10**6, 1_000)]
    log = pyrate.Limiter(pyrate.InMemoryBucket(rates))
    yield "sliding log", lambda: log.try_acquire("x", blocking=False)
    state = pyrate.Limiter(pyrate.StateBucket(rates, pyrate.GCRA(), pyrate.InMemoryStateStore()))
    yield "GCRA", lambda: state.try_acquire("x", blocking=False)


def _limits_of(storage: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    item, strategies = package("limits").RateLimitItemPerSecond(10**6), package("limits.strategies")
    moving = strategies.MovingWindowRateLimiter(storage)
    yield "moving window", lambda: moving.hit(item, "moving")
    sliding = strategies.SlidingWindowCounterRateLimiter(storage)
    yield "sliding window counter", lambda: sliding.hit(item, "sliding")


def _peers(place: Place, plan: Plan, stack: contextlib.ExitStack) -> Iterator[tuple[str, Callable[[], Any]]]:
    if place.name == "SQLite":
        pyrate = package("pyrate_limiter")
        rates = [pyrate.Rate(10**6, 1_000)]
        bucket = pyrate.SQLiteBucket.init_from_file(rates, db_path=str(plan.folder / "pyrate.db"))
        stack.callback(bucket.close)
        limiter = pyrate.Limiter(bucket)
        yield "pyrate-limiter: SQLite", lambda: limiter.try_acquire("x", blocking=False)
    if place.name == "Redis":
        url = place.url("peers")
        package("limits.storage")
        storage = package("limits").storage.RedisStorage(url)
        yield from ((f"limits: {name}", take) for name, take in _limits_of(storage))
        client = package("redis").Redis.from_url(url)
        stack.callback(client.close)
        pyrate = package("pyrate_limiter")
        shared = pyrate.Limiter(pyrate.RedisBucket.init([pyrate.Rate(10**6, 1_000)], client, "bench"))
        yield "pyrate-limiter: Redis", lambda: shared.try_acquire("x", blocking=False)
        storing = package("interlock.integrations.redis").RedisStorage(client)
        theirs = package("interlock").CircuitBreaker(name="shared", storage=storing)
        yield "interlock-cb: breaker, cached", lambda: theirs.call_sync(_nothing)
        pybreaker = package("pybreaker")
        simple = pybreaker.CircuitBreaker(state_storage=pybreaker.CircuitRedisStorage("closed", client))
        yield "pybreaker", lambda: simple.call(_nothing)


# -- the raw stores ------------------------------------------------------------------------------------


# A change of one row, and one of three.
_Raw = tuple[Callable[[], Any], Callable[[], Any]]
_ONE = "UPDATE g SET value = ?, version = version + 1 WHERE name = 'a' AND version = ? RETURNING 1"
_THREE = "UPDATE g SET value = ?, version = version + 1 WHERE name IN ('b', 'c', 'd') RETURNING 1"
_ROWS = "INSERT INTO g VALUES ('a', '', 0), ('b', '', 0), ('c', '', 0), ('d', '', 0)"


@contextlib.contextmanager
def _raw_sqlite(url: str) -> Iterator[_Raw]:
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as raw:
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "CREATE TABLE g (name TEXT PRIMARY KEY, value TEXT, version INT)",
            _ROWS,
        ):
            raw.execute(statement)
        numbers = itertools.count()
        yield (
            lambda: raw.execute(_ONE, (_VALUE, next(numbers))).fetchall(),
            lambda: raw.execute(_THREE, (_VALUE,)).fetchall(),
        )


@contextlib.contextmanager
def _raw_postgresql(url: str) -> Iterator[_Raw]:
    import psycopg

    with psycopg.connect(url, autocommit=True, prepare_threshold=1) as raw:
        raw.execute("CREATE TABLE g (name text PRIMARY KEY, value text, version int) WITH (fillfactor = 50)")
        raw.execute(_ROWS)
        numbers = itertools.count()
        one, three = (statement.replace("?", "%s") for statement in (_ONE, _THREE))
        yield (
            lambda: raw.execute(one, (_VALUE, next(numbers))).fetchall(),
            lambda: raw.execute(three, (_VALUE,)).fetchall(),
        )


@contextlib.contextmanager
def _raw_redis(url: str) -> Iterator[_Raw]:
    import redis

    with redis.Redis.from_url(urlsplit(url)._replace(query="").geturl()) as raw:
        yield lambda: raw.set("a", _VALUE), lambda: raw.mset(dict.fromkeys("bcd", _VALUE))


_RAW: dict[str, Callable[[str], contextlib.AbstractContextManager[_Raw]]] = {
    "SQLite": _raw_sqlite,
    "PostgreSQL": _raw_postgresql,
    "Redis": _raw_redis,
}


class _NoDisk(Disk):
    """For what touches none: no round is dropped for its pace."""

    def syncs(self) -> float:
        return 1.0


# -- inside --------------------------------------------------------------------------------------------


def _nothing() -> None:
    pass


async def _anothing() -> None:
    pass


def _timed(call: Callable[[], Any], count: int) -> Callable[[], float]:
    """Return what calls it so often and says how long one took."""

    def work() -> float:
        began = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - began) / count

    return work


def _atimed(call: Callable[[], Awaitable[Any]], count: int) -> Callable[[], float]:
    async def work() -> float:
        began = time.perf_counter()
        for _ in range(count):
            await call()
        return (time.perf_counter() - began) / count

    return lambda: asyncio.run(work())


@contextlib.contextmanager
def _or_skipped(name: str, skipped: dict[str, str]) -> Iterator[None]:
    try:
        yield
    except Unavailable as reason:
        skipped[name] = str(reason)


def _write(folder: Path, found: list[Section]) -> None:
    versions = {name: version(name) for name in _PEERS}
    folder.mkdir(parents=True, exist_ok=True)
    values = [{**report.as_json(section), "peers": versions} for section in found]
    (folder / "guards.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    first, peers = values[0], ", ".join(f"{name} {number}" for name, number in versions.items())
    machine = first["machine"]
    about = (
        f"{first['date'][:10]}, commit {first['commit']}; {machine['cpus']} CPUs ({machine['cpu']}), "
        f"Python {machine['python']}, SQLite {machine['sqlite']}; {peers}."
    )
    tables = "\n".join(f"```text{report.printed(section)}\n```\n" for section in found)
    (folder / "guards.md").write_text(f"# Guards, measured\n\n{about}\n\n{tables}")


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
