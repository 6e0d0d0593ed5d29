"""What a step costs, on SQLite and on PostgreSQL.

Each size is a section of its own: a disk that changes its pace spoils less of rounds that are short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.bus.rounds import Unavailable, interleaved
from benchmarks.bus.section import Plan, Section
from benchmarks.bus.servers import postgres
from benchmarks.steps.contender import LARGE, SETTLED, Contender, Size, ready, trials
from benchmarks.steps.ours import EMIT, PURE, STEP, modes, usual
from benchmarks.steps.peers import DBOS, LANGGRAPH, Dbos, LangGraphOnPostgresql, LangGraphOnSqlite
from benchmarks.steps.raw import RAW_POSTGRESQL, RAW_SQLITE, RawHead, RawPostgresql, RawSqlite

# Times a raw commit of the same bytes.
_SMALL, _LARGE = {PURE: 2.0, STEP: 3.0, EMIT: 2.0}, {PURE: 2.2, EMIT: 2.2}
_FASTER = 2.5


def on_sqlite(plan: Plan, size: Size) -> Section:
    """Measure SQLite."""
    section = Section(f"SQLite, WAL, synchronous=FULL: a durable step that returns {size.name}; one worker")
    contenders: list[Contender] = [
        RawSqlite(plan.folder / "raw.db"),
        RawHead(plan.folder / "head.db", 1),
        RawHead(plan.folder / "heads.db", 2),
        *usual(lambda name: f"sqlite:///{plan.folder / name}.db"),
        LangGraphOnSqlite(plan.folder / "langgraph.db"),
        Dbos(f"sqlite:///{plan.folder / 'dbos.db'}"),
    ]
    _measure(section, plan, contenders, size)
    _ask(section, f"SQLite, {size.name}", size, RAW_SQLITE, (LANGGRAPH, DBOS))
    return section


def on_postgresql(plan: Plan, size: Size) -> Section:
    """Measure PostgreSQL."""
    section = Section(f"PostgreSQL: a durable step that returns {size.name}; one worker")
    try:
        with postgres() as database:
            section.settings = database.settings()
            contenders: list[Contender] = [
                RawPostgresql(database.schema("raw")),
                *usual(database.schema),
                LangGraphOnPostgresql(database.schema("langgraph")),
                Dbos(database.url),
            ]
            _measure(section, plan, contenders, size, database.tidy)
    except Unavailable as reason:
        section.skipped["everything"] = str(reason)
        return section
    _ask(section, f"PostgreSQL, {size.name}", size, RAW_POSTGRESQL, (LANGGRAPH,))
    return section


def in_modes(plan: Plan) -> Section:
    """Measure how much the persistence of a run decides."""
    section = Section("SQLite: a step and an event of 1 KB, log settled, by the persistence of the run")
    contenders: list[Contender] = [
        RawSqlite(plan.folder / "raw.db"),
        *modes(lambda name: f"sqlite:///{plan.folder / name}.db"),
    ]
    _measure(section, plan, contenders, SETTLED)
    return section


def _measure(
    section: Section,
    plan: Plan,
    contenders: Iterable[Contender],
    size: Size,
    tidy: Callable[[], None] = lambda: None,
) -> None:
    with ready(contenders, size, section) as found:
        section.rounds = interleaved(trials(found, size), plan.disk, plan.rounds, tidy, plan.say)
    section.skipped.update(section.rounds.failed)
    for each in found:
        section.add(size.name, each.name, each.name, "µs", found[0].name, each.note)


def _ask(section: Section, where: str, size: Size, raw: str, peers: Iterable[str]) -> None:
    for name, bound in (_LARGE if size == LARGE else _SMALL).items():
        section.slower(f"{where}, {name}, of raw", bound, name, raw)
    if size != LARGE:
        for peer in peers:
            for name in (PURE, STEP):
                section.faster(f"{where}, {name}, times as fast as {peer}", _FASTER, name, peer)
