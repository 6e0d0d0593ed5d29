"""Where the SQL of the databases differs. Everything else is in ``statements.py`` and ``agents.py``, once."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

_NAMED = re.compile(r"(?<![:\w]):([a-z]\w*)")
_ARRAY = re.compile(r"CAST\(:([a-z]\w*) AS (\w+)\[\]\)")


@dataclass(frozen=True)
class Dialect:
    """One database's way to say what all of them can do.

    Attributes:
        begin: Begins a transaction that must not fail halfway for want of a lock on the whole database.
        now: The server's time, in milliseconds since 1970 UTC; one value in a statement.
        token: A new secret of 32 hexadecimal digits, another one in each row.
        json_object: Function that makes a JSON object of names and values.
        appended: The JSON text ``{history}`` with ``{entry}`` at its end.
        id_list: The numbers in the JSON text ``:ids``, as a query.
        picked: A condition: the value is one that ``{query}`` finds, which runs once.
        by_priority: A query for the first ``:limit`` rows that ``{query}`` finds for each ``{priority}``, highest first.
        skip_locked: End of a query that takes rows and passes over those that others are taking.
        for_update: End of a query that takes rows and waits for those that others are taking.
        bytewise: Sorts texts as Python does, byte by byte.
        greatest: Function that returns the larger of two values.
        no_limit: ``LIMIT`` of a query that has only an ``OFFSET``.
        raw: Bytes of a text or of bytes, whatever was made of them behind our back.
        whole: A whole number, or -1 for what is none.
        has_table: A query for the table ``:name`` where new tables are made.
        lock_mailbox: Statement that makes others wait who count the same mailbox, until the transaction ends.
        lock_schema: Statement that makes others wait with their migration until the transaction ends.
        one_statement_sends: Whether an insertion can feed another one, so that sending needs no transaction.
        takes_arrays: Whether the values of many rows can come as one parameter a column.
        percent: Whether the driver wants ``%(name)s`` instead of ``:name``.
    """

    begin: str
    now: str
    token: str
    json_object: str
    appended: str
    id_list: str
    picked: str
    by_priority: Callable[[str], str]
    skip_locked: str
    for_update: str
    bytewise: str
    greatest: str
    no_limit: str
    raw: str
    whole: str
    has_table: str
    lock_mailbox: str = ""
    lock_schema: str = ""
    one_statement_sends: bool = False
    takes_arrays: bool = False
    percent: bool = False

    def bound(self, statement: str) -> str:
        """Return a statement with its parameters as the driver wants them."""
        return _percent(statement) if self.percent else statement


_PRIORITIES = range(9, -1, -1)


def _by_priority_in_arms(query: str) -> str:
    # One arm for each priority: with the priority fixed, the index is in the order that is wanted, and what is not
    # visible yet is never looked at. Arms after the limit do not run.
    arms = (f"SELECT delivery_id FROM ({query.format(priority=each)} LIMIT :limit)" for each in _PRIORITIES)
    return f"SELECT delivery_id FROM ({' UNION ALL '.join(arms)}) LIMIT :limit"


def _by_priority_lateral(query: str) -> str:
    # As above; what locks rows may stand in no arm of a UNION.
    levels = ", ".join(f"({each})" for each in _PRIORITIES)
    head, _, lock = query.format(priority="level.priority").partition("FOR UPDATE")
    return (
        f"SELECT found.delivery_id FROM (VALUES {levels}) AS level(priority), "
        f"LATERAL ({head} LIMIT :limit FOR UPDATE{lock}) AS found LIMIT :limit"
    )


SQLITE = Dialect(
    # The write lock is taken first: later it might not be had.
    begin="BEGIN IMMEDIATE",
    now="CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    token="lower(hex(randomblob(16)))",  # noqa: S106  # the SQL that makes one
    json_object="json_object",
    appended="json_insert({history}, '$[#]', {entry})",
    id_list="SELECT value FROM json_each(:ids)",
    picked="IN ({query})",
    by_priority=_by_priority_in_arms,
    skip_locked="",
    for_update="",
    bytewise="COLLATE BINARY",
    greatest="max",
    no_limit="LIMIT -1",
    # Columns keep whatever they are given, and the driver reads no text that is not UTF-8.
    raw="CAST({value} AS BLOB)",
    whole="CASE WHEN typeof({value}) = 'integer' THEN {value} ELSE -1 END",
    has_table="SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name",
)

POSTGRESQL = Dialect(
    begin="BEGIN",
    # As a query of its own it runs once in a statement: else it would be compared again with every row, and no
    # index could be used for it.
    now="(SELECT CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT))",
    token="replace(CAST(gen_random_uuid() AS TEXT), '-', '')",  # noqa: S106  # the SQL that makes one
    json_object="jsonb_build_object",
    appended="CAST(CAST({history} AS JSONB) || {entry} AS TEXT)",
    id_list="SELECT CAST(value AS BIGINT) FROM json_array_elements_text(CAST(:ids AS JSON))",
    # With IN the planner may run the query again for each row, and then it takes more rows than its limit.
    picked="= ANY(ARRAY({query}))",
    by_priority=_by_priority_lateral,
    skip_locked="FOR UPDATE SKIP LOCKED",
    for_update="FOR UPDATE",
    bytewise='COLLATE "C"',
    greatest="greatest",
    no_limit="",
    raw="{value}",
    whole="{value}",
    has_table="SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = :name",
    # Any number will do if it is always the same: this one is "agentic" in ASCII. And tables of a schema that is
    # searched later are not those to migrate.
    lock_schema="SELECT pg_advisory_xact_lock(27416758083414371), "
    "set_config('search_path', quote_ident(current_schema()), true)",
    lock_mailbox="SELECT pg_advisory_xact_lock(1634169972, hashtext(:mailbox))",
    one_statement_sends=True,
    takes_arrays=True,
    percent=True,
)


@functools.lru_cache(maxsize=256)
def _percent(statement: str) -> str:
    # Arrays go as they are in memory: as text, those of bytes take thirty times as long.
    return _NAMED.sub(r"%(\1)s", _ARRAY.sub(r"CAST(%(\1)b AS \2[])", statement))
