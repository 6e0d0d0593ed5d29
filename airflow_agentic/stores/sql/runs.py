"""The SQL of durable runs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_agentic.persistence.integrity import is_storable
from airflow_agentic.persistence.ports import RunQuery, RunStatus
from airflow_agentic.stores.sql.dialects import Dialect
from airflow_agentic.stores.sql.prefixes import behind

HEAD = (
    "agent, mode, status, correlation, task, version, digest, step, done, total, waiting, error, category, owner, "
    "lease_until, created_at, updated_at"
)
"""Columns of a head, behind its stream."""

MOST_VERSION = 2**31 - 1
"""The number of a record is that of its run, and in the lower 31 bits its version."""

MINUTE_MS = 60_000

_SPAN = MOST_VERSION + 1
_CHANGED = (
    "mode", "task", "version", "digest", "step", "done", "total", "waiting", "error", "category", "lease_until",
    "updated_at",
)  # fmt: skip
_OF = f"(SELECT run_id FROM agentic_run WHERE stream = :stream) * {_SPAN}"
_VERSION = f"event_id & {MOST_VERSION} AS version"


@dataclass(frozen=True)
class Statements:
    """What runs say to a database.

    Attributes:
        begin: A new head; changes no row if there is one of that stream.
        advance: A head that is as expected; changes no row if it is not.
        advance_quietly: The same, if what is in the indexes stays as it is: each of them is a page more to write. By position;
            see ``SqlJournals``.
        record: One record. By position.
        at_once: Head, records and snapshot in one statement, where one can feed another: by whether there is a head already,
            whether there is a snapshot, and whether there are several records, which come as arrays.
        read: Records.
        index: Their types and names.
        snapshot: The newest snapshot.
        drop_snapshots: Those before a version that are not kept.
        keep_snapshot: A new one.
        keep_base: Keep that of a version; changes no row if there is none.
        drop_records: Up to a version.
        number: The number of a run.
        hold: Take, renew or give back; returns the head and the time, or no row.
        look: The head and the time.
        mark: Status and error.
        forget: Records and snapshots of a run.
    """

    begin: str
    advance: str
    advance_quietly: str
    record: str
    at_once: Mapping[tuple[bool, bool, bool], str]
    read: str
    index: str
    snapshot: str
    drop_snapshots: str
    keep_snapshot: str
    keep_base: str
    drop_records: str
    number: str
    hold: str
    look: str
    mark: str
    forget: tuple[str, ...]


@functools.cache
def statements_of(dialect: Dialect) -> Statements:
    """Return the statements for a database."""
    begin, advance = _begin(), _advance()
    return Statements(
        begin=begin,
        advance=advance,
        advance_quietly=f"""
    UPDATE agentic_run SET {", ".join(f"{name} = ?" for name in _CHANGED)}
    WHERE stream = ? AND version = ? AND owner = ? AND status = ? AND updated_minute = ?""",
        record=f"""
    INSERT INTO agentic_event (event_id, type, at, name, digest, data)
    VALUES ((SELECT run_id FROM agentic_run WHERE stream = ?) * {_SPAN} + ?, ?, ?, ?, ?, ?)""",
        at_once={
            (known, snaps, several): _at_once(advance if known else begin, snaps=snaps, several=several)
            for known, snaps, several in itertools.product((False, True), repeat=3)
        },
        drop_snapshots=f"""
    DELETE FROM agentic_snapshot WHERE event_id >= {_OF} AND event_id < {_OF} + :version AND kept = 0""",
        keep_snapshot=f"""
    INSERT INTO agentic_snapshot (event_id, at, kept, chain, digest, state)
    VALUES ({_OF} + :version, :at, :kept, :chain, :digest, :state)""",
        keep_base=f"UPDATE agentic_snapshot SET kept = 1 WHERE event_id = {_OF} + :version",
        drop_records=f"DELETE FROM agentic_event WHERE event_id >= {_OF} AND event_id <= {_OF} + :version",
        number=f"SELECT run_id FROM agentic_run WHERE stream = :stream {dialect.for_update}",
        hold=f"""
    UPDATE agentic_run
    SET owner = CASE WHEN :lease > 0 THEN :owner ELSE owner END,
        lease_until = CASE WHEN :lease > 0 THEN {dialect.now} + :lease ELSE 0 END
    WHERE stream = :stream AND (owner = :owner OR :lease > 0 AND (lease_until <= {dialect.now} OR owner = :instead))
    RETURNING stream, {HEAD}, {dialect.now} AS now""",
        look=f"SELECT stream, {HEAD}, {dialect.now} AS now FROM agentic_run WHERE stream = :stream",
        mark="UPDATE agentic_run SET status = :status, error = :error, category = :category WHERE stream = :stream",
        forget=tuple(
            f"DELETE FROM {table} WHERE event_id >= :run_id * {_SPAN} AND event_id < :run_id * {_SPAN} + {_SPAN}"
            for table in ("agentic_event", "agentic_snapshot")
        ),
        **_reading(dialect),
    )


def _reading(dialect: Dialect) -> dict[str, str]:
    raw = {
        name: dialect.raw.format(value=name) for name in ("type", "name", "data", "digest", "state", "chain")
    }
    at = dialect.whole.format(value="at")
    records = (
        f"FROM agentic_event WHERE event_id > {_OF} + :after AND event_id < {_OF} + {_SPAN} ORDER BY event_id"
    )
    return {
        "read": f"""
    SELECT {_VERSION}, {raw["type"]}, {at}, {raw["name"]}, {raw["data"]}, {raw["digest"]} {records} LIMIT :limit""",
        "index": f"""
    SELECT {_VERSION}, {raw["type"]}, {raw["name"]} {records.replace(":after", "0").replace("ORDER", "AND name <> '' ORDER")}""",
        "snapshot": f"""
    SELECT {_VERSION}, {at}, {raw["state"]}, {raw["chain"]}, {raw["digest"]}, kept FROM agentic_snapshot
    WHERE event_id >= {_OF} AND event_id <= {_OF} + :at ORDER BY event_id DESC LIMIT 1""",
    }


def _begin() -> str:
    names = [*HEAD.split(", "), "updated_minute"]
    return f"""
    INSERT INTO agentic_run (stream, {", ".join(names)}) VALUES (:stream, {", ".join(f":{name}" for name in names)})
    ON CONFLICT (stream) DO NOTHING"""


def _advance() -> str:
    names = (*_CHANGED, "status", "updated_minute")
    return f"""
    UPDATE agentic_run SET {", ".join(f"{name} = :{name}" for name in names)}
    WHERE stream = :stream AND version = :expected AND owner = :owner"""


_ONE = """:v, CAST(:t AS TEXT), CAST(:a AS BIGINT), CAST(:n AS TEXT), CAST(:d AS BYTEA), CAST(:x AS BYTEA)
    FROM head"""
_SEVERAL = """new.version, new.type, new.at, new.name, new.digest, new.data
    FROM head, unnest(CAST(:v AS BIGINT[]), CAST(:t AS TEXT[]), CAST(:a AS BIGINT[]), CAST(:n AS TEXT[]),
        CAST(:d AS BYTEA[]), CAST(:x AS BYTEA[])) AS new (version, type, at, name, digest, data)"""


def _at_once(head: str, *, snaps: bool, several: bool) -> str:
    snapshot = f"""
    , dropped AS (
        DELETE FROM agentic_snapshot s USING head
        WHERE s.event_id >= head.run_id * {_SPAN} AND s.event_id < head.run_id * {_SPAN} + :s_version AND s.kept = 0)
    , snapped AS (
        INSERT INTO agentic_snapshot (event_id, at, kept, chain, digest, state)
        SELECT head.run_id * {_SPAN} + :s_version, :s_at, :s_kept, :s_chain, :s_digest, :s_state FROM head)"""
    return f"""
    WITH head AS ({head} RETURNING run_id) {snapshot if snaps else ""}
    INSERT INTO agentic_event (event_id, type, at, name, digest, data)
    SELECT head.run_id * {_SPAN} + {_SEVERAL if several else _ONE}
    RETURNING event_id"""


# -- listings --------------------------------------------------------------------------------------------------


def listing(dialect: Dialect, query: RunQuery) -> tuple[str, dict[str, Any]]:
    """Return the statement that lists heads, and its values; no statement if nothing can be found.

    Each finds its rows by an index that fits: planners guess, and a wrong guess reads all runs.
    """
    streams = None if query.streams is None else tuple(filter(is_storable, query.streams))
    others = (query.prefix, query.agent or "", query.correlation or "", query.after[1] if query.after else "")
    # No name has what no store keeps; a database might take it for something else.
    if streams == () or not all(map(is_storable, others)):
        return "", {}
    query = replace(query, streams=streams)
    values: dict[str, Any] = {"limit": query.limit}
    narrow = _narrow(query, values)
    return (_by_name(dialect, query, narrow, values) if narrow else _by_status(query, values)), values


def _narrow(query: RunQuery, values: dict[str, Any]) -> str:
    """Return conditions that few runs meet; nothing if there are none."""
    conditions = []
    if query.streams is not None:
        names = [f"s{n}" for n in range(len(query.streams))]
        conditions.append(f"stream IN ({', '.join(f':{name}' for name in names)})")
        values |= dict(zip(names, query.streams, strict=True))
    if query.prefix:
        conditions.append("stream >= :prefix")
        values["prefix"] = query.prefix
        if end := behind(query.prefix):
            conditions.append("stream < :end")
            values["end"] = end
    if query.correlation is not None:
        # With a name, the name is what finds it.
        conditions.append("correlation || '' = :correlation" if conditions else "correlation = :correlation")
        values["correlation"] = query.correlation
    return " AND ".join(conditions)


def _by_name(dialect: Dialect, query: RunQuery, narrow: str, values: dict[str, Any]) -> str:
    found = f"SELECT stream, {HEAD} FROM agentic_run WHERE {narrow}"
    conditions = []
    if query.agent is not None:
        conditions.append("agent = :agent")
        values["agent"] = query.agent
    if query.statuses:
        conditions.append(f"status IN ({_statuses(query, values)})")
    if query.after is not None:
        conditions.append(_behind(query.after, values))
    if conditions:
        # Made whole before the rest is looked at, so that no index of the rest is taken instead.
        found = (
            f"SELECT * FROM ({found} {dialect.no_limit} OFFSET 0) AS named WHERE {' AND '.join(conditions)}"
        )
    return f"{found} ORDER BY updated_at DESC, stream LIMIT :limit"


def _by_status(query: RunQuery, values: dict[str, Any]) -> str:
    """Return a statement with an arm for each status: in each the index is in the order that is wanted."""
    agent = ""
    if query.agent is not None:
        agent = "agent = :agent AND"
        values["agent"] = query.agent
    after = ""
    if query.after is not None:
        # The minute is what the index has.
        after = f"AND updated_minute <= :minute AND {_behind(query.after, values)}"
        values["minute"] = query.after[0] // MINUTE_MS
    arms = [
        f"""SELECT * FROM (
        SELECT stream, {HEAD} FROM agentic_run WHERE {agent} status = {name} {after}
        ORDER BY updated_minute DESC, updated_at DESC, stream LIMIT :limit) AS arm"""
        for name in _statuses(query, values).split(", ")
    ]
    return (
        f"SELECT * FROM ({' UNION ALL '.join(arms)}) AS found ORDER BY updated_at DESC, stream LIMIT :limit"
    )


def _behind(place: tuple[int, str], values: dict[str, Any]) -> str:
    """Return the condition that a run comes behind a place in the order of listings."""
    values["after"], values["behind"] = place
    return "(updated_at < :after OR updated_at = :after AND stream > :behind)"


def _statuses(query: RunQuery, values: dict[str, Any]) -> str:
    statuses = dict.fromkeys(str(each) for each in query.statuses or RunStatus)
    values |= {f"t{n}": status for n, status in enumerate(statuses)}
    return ", ".join(f":t{n}" for n in range(len(statuses)))
