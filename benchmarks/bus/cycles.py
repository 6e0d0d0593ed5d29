"""The full cycle of a message, side by side: the raw driver, ours, and other people's queues."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from benchmarks.bus import postgresql, redis_streams, servers, sqlite
from benchmarks.bus.contender import Contender, label, trials
from benchmarks.bus.ours import Ours, OursFused
from benchmarks.bus.rounds import Unavailable, interleaved
from benchmarks.bus.section import PER_SECOND, Plan, Section

S = TypeVar("S")

_CYCLE = "send, receive with a lease, and end a message of 1 KB; one client, every step on disk"


def on_sqlite(plan: Plan) -> Section:
    """Measure SQLite."""
    section = Section(f"SQLite, WAL, synchronous=FULL: {_CYCLE}")
    here = plan.folder / "sqlite"
    here.mkdir()
    contenders: list[Contender] = [
        sqlite.RawSqlite(here),
        sqlite.RawSqliteWithId(here),
        Ours(f"sqlite:///{here / 'ours.db'}"),
        OursFused(f"sqlite:///{here / 'fused.db'}"),
        sqlite.PersistQueue(here),
        sqlite.PersistQueueEmptied(here),
        sqlite.LiteQueue(here),
    ]
    _measure(section, plan, contenders, {1: plan.some(300), 100: plan.some(3_000)})
    raw = contenders[0].name
    section.faster("SQLite batch 1, of raw", 0.70, _one("ours"), _one(raw))
    section.faster("SQLite fused loop, of raw batch 1", 0.90, _one("ours, fused"), _one(raw))
    section.faster("SQLite batch 100, of raw", 0.60, _many("ours"), _many(raw))
    with_id = contenders[1].name
    section.faster("SQLite batch 1, of raw with id", 0.70, _one("ours"), _one(with_id))
    section.faster("SQLite batch 100, of raw with id", 0.60, _many("ours"), _many(with_id))
    section.faster("SQLite batch 1, of persist-queue", 1.0, _one("ours"), _one("persist-queue"))
    return section


def on_postgresql(plan: Plan) -> Section:
    """Measure PostgreSQL."""
    section = Section(f"PostgreSQL: {_CYCLE}")
    with _server(section, servers.postgres()) as database:
        if database is None:
            return section
        section.settings = database.settings()
        contenders: list[Contender] = [
            postgresql.RawPsycopg(database),
            postgresql.RawPsycopgWithId(database),
            Ours(database.schema("ours")),
            OursFused(database.schema("fused")),
            postgresql.Pgmq(database),
            postgresql.PgQueuer(database),
            postgresql.PgQueuerByHand(database),
            postgresql.Procrastinate(database),
            postgresql.ProcrastinateByHand(database),
        ]
        _measure(section, plan, contenders, {1: plan.some(300), 100: plan.some(3_000)}, database.tidy)
    raw = contenders[0].name
    section.faster("PostgreSQL batch 1, of raw", 0.75, _one("ours"), _one(raw))
    section.faster("PostgreSQL batch 1, of pgmq-python", 1.5, _one("ours"), _one("pgmq-python"))
    section.faster("PostgreSQL batch 1, of procrastinate", 2.0, _one("ours"), _one("procrastinate"))
    section.faster("PostgreSQL batch 100, of raw", 0.80, _many("ours"), _many(raw))
    with_id = contenders[1].name
    section.faster("PostgreSQL batch 1, of raw with id", 0.75, _one("ours"), _one(with_id))
    section.faster("PostgreSQL batch 100, of raw with id", 0.80, _many("ours"), _many(with_id))
    section.faster("PostgreSQL batch 100, of pgmq-python", 1.1, _many("ours"), _many("pgmq-python"))
    return section


def on_redis(plan: Plan) -> Section:
    """Measure Redis."""
    section = Section(f"Redis, appendfsync always: {_CYCLE}")
    with _server(section, servers.redis(plan.folder)) as url:
        if url is None:
            return section
        contenders: list[Contender] = [
            redis_streams.RawRedis(url),
            Ours(url),
            redis_streams.Kombu(url),
            redis_streams.Dramatiq(url),
            redis_streams.DramatiqByHand(url),
        ]
        _measure(section, plan, contenders, {1: plan.some(300), 100: plan.some(3_000)})
    raw = contenders[0].name
    section.faster("Redis batch 1, of raw", 0.75, _one("ours"), _one(raw))
    section.faster("Redis batch 1, of kombu", 1.5, _one("ours"), _one("kombu"))
    section.faster("Redis batch 1, of dramatiq", 3.0, _one("ours"), _one("dramatiq"))
    return section


@contextlib.contextmanager
def _server(section: Section, starting: contextlib.AbstractContextManager[S]) -> Iterator[S | None]:
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(starting)
        except Unavailable as reason:
            section.skipped["everything"] = str(reason)
            yield None
        else:
            yield server


def _measure(
    section: Section,
    plan: Plan,
    contenders: Sequence[Contender],
    sizes: dict[int, int],
    before: Callable[[], None] = lambda: None,
) -> None:
    with contextlib.ExitStack() as stack:
        ready = []
        for contender in contenders:
            stack.callback(contender.close)
            try:
                contender.setup()
            except Exception as reason:  # noqa: BLE001  # whatever ails one, the others are measured
                section.skipped[contender.name] = f"{type(reason).__name__}: {reason}".partition("\n")[0]
            else:
                ready.append(contender)
        section.rounds = interleaved(trials(ready, sizes), plan.disk, plan.rounds, before, plan.say)
    section.skipped.update(section.rounds.failed)
    for batch in sizes:
        raw = label(contenders[0].name, batch)
        for each in ready:
            note = each.note if batch == 1 else ""
            section.add(f"batch {batch}", each.name, label(each.name, batch), PER_SECOND, raw, note)


def _one(name: str) -> str:
    return label(name, 1)


def _many(name: str) -> str:
    return label(name, 100)
