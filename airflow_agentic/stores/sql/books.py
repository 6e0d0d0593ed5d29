"""What became of messages, on a SQL database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow_agentic.errors import UndecodableMessage
from airflow_agentic.messaging.codec import decode
from airflow_agentic.messaging.delivery import DeliveryRecord, DeliveryState, HistoryEntry, MailboxStats
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.messaging.state import INBOX
from airflow_agentic.stores.sql.clock import from_ms, to_ms
from airflow_agentic.stores.sql.database import SqlDatabase
from airflow_agentic.stores.sql.lanes import Lanes
from airflow_agentic.stores.sql.statements import statements_of

_AT_ONCE = 1_000
_OPEN = {DeliveryState.READY, DeliveryState.LEASED}
_OPEN_IDS = """d.delivery_id IN (
    SELECT delivery_id FROM (
        SELECT delivery_id FROM agentic_delivery
        WHERE mailbox = :mailbox AND state IN ('ready', 'leased') AND waiting = 0 AND state IN ({states})
        UNION ALL
        SELECT delivery_id FROM agentic_delivery WHERE mailbox = :mailbox AND waiting = 1 AND state IN ({states})
    ) AS open ORDER BY delivery_id LIMIT :limit)"""
CONVERSATION = """m.seq IN (
    SELECT seq FROM agentic_message WHERE correlation_id = :correlation_id AND correlation_id <> message_id
    UNION ALL SELECT seq FROM agentic_message WHERE message_id = :correlation_id AND correlation_id = :correlation_id)"""
"""Condition for the messages of a conversation: what began it has its id, and is in no index of its own."""


class SqlBooks:
    """Implements :class:`airflow_agentic.messaging.ports.DeliveryBooks`.

    Args:
        database: Where.
    """

    def __init__(self, database: SqlDatabase) -> None:
        self._db = database
        self._sql = statements_of(database.dialect)
        self._lanes = Lanes(database, self._sql)

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """See the port."""
        where, values = _conditions(query, self._db.dialect.id_list)
        rows = self._db.fetch(
            self._sql.find.format(where=where), {**values, "limit": query.limit}, again=True
        )
        return [_record(row) for row in rows]

    def stats(self, mailbox: str | None = None) -> list[MailboxStats]:
        """See the port."""
        statement = self._sql.stats if mailbox is None else self._sql.stats_of
        counts: dict[str, dict[str, Any]] = {}
        for row in self._db.fetch(statement, {} if mailbox is None else {"mailbox": mailbox}, again=True):
            _count(counts.setdefault(row.mailbox, {}), row)
        return [MailboxStats(name, **counts[name]) for name in sorted(counts)]

    def redrive(
        self,
        query: DeliveryQuery,
        *,
        actor: str,
        reason: str,
        to: Sequence[str] = (),
        spacing: timedelta = timedelta(0),
    ) -> list[int]:
        """See the port."""
        return self._db.committed(lambda: self._redrive(query, actor, reason, to, to_ms(spacing)))

    def purge(self, older_than: timedelta, limit: int) -> list[bytes]:
        """See the port."""
        # All of them, whatever may be forgotten of the rest; no commit takes long.
        while self._db.committed(lambda: self._bury_late(_AT_ONCE)) == _AT_ONCE:
            pass
        return self._db.committed(lambda: self._forget(to_ms(older_than), limit))

    def _redrive(
        self, query: DeliveryQuery, actor: str, reason: str, to: Sequence[str], spacing_ms: int
    ) -> list[int]:
        where, values = _conditions(query, self._db.dialect.id_list)
        dead = self._db.fetch(self._sql.dead.format(where=where), values)
        now = self._now() if dead else 0
        plain = []
        for position, row in enumerate(dead):
            visible_at = now + position * spacing_ms
            mailboxes = to or (row.mailbox,)
            said = {"id": row.delivery_id, "actor": actor, "reason": reason, "visible_at": visible_at}
            first = {**said, "mailbox": mailboxes[0], "waiting": self._waits(mailboxes[0], row.ordering_key)}
            if row.ordering_key is None:
                plain.append(first)
            else:
                self._db.execute(self._sql.redrive, first)
            for mailbox in mailboxes[1:]:
                copy = {"id": row.delivery_id, "mailbox": mailbox, "visible_at": visible_at}
                self._db.execute(self._sql.copy, {**copy, "waiting": self._waits(mailbox, row.ordering_key)})
        if plain:
            self._db.execute_many(self._sql.redrive, plain)
        return [row.delivery_id for row in dead]

    def _waits(self, mailbox: str, key: str | None) -> int:
        return 0 if key is None else int(self._lanes.enter((mailbox, key)))

    def _bury_late(self, limit: int) -> int:
        late = self._db.fetch(self._sql.late, {"limit": limit})
        if late:
            self._db.execute_many(self._sql.expire, [{"id": row.delivery_id} for row in late])
        in_lanes = [row for row in late if row.ordering_key is not None]
        self._lanes.leave(
            [(row.mailbox, row.ordering_key) for row in in_lanes if not row.waiting],
            [(row.mailbox, row.ordering_key) for row in in_lanes if row.waiting],
        )
        return len(late)

    def _forget(self, age_ms: int, limit: int) -> list[bytes]:
        old = self._db.fetch(self._sql.old, {"age": age_ms, "limit": limit})
        ids = {"ids": json.dumps([row.seq for row in old])}
        listed = self._db.dialect.id_list
        if old:
            self._db.execute(f"DELETE FROM agentic_delivery WHERE message_seq IN ({listed})", ids)
            self._db.execute(f"DELETE FROM agentic_message WHERE seq IN ({listed})", ids)
        receipts = f"DELETE FROM agentic_state WHERE substr(scope, 1, {len(INBOX)}) = '{INBOX}'"
        self._db.execute(f"{receipts} AND updated_at < {self._db.dialect.now} - :age", {"age": age_ms})
        return [bytes(row.envelope) for row in old]

    def _now(self) -> int:
        return int(self._db.fetch(self._sql.now)[0].now)


def _count(box: dict[str, Any], row: Any) -> None:
    """Add a row of counts, which is of one state and perhaps only of those that wait."""
    waiting = int(row.waiting or 0)
    box[row.state] = box.get(row.state, 0) + row.count
    if row.state not in _OPEN:
        return
    if row.newest is not None:
        box["newest_claimable"] = max(row.newest, box.get("newest_claimable", 0))
    if row.state == DeliveryState.LEASED:
        box["expired"] = box.get("expired", 0) + row.count - row.invisible
        return
    box["waiting"] = box.get("waiting", 0) + waiting
    box["delayed"] = box.get("delayed", 0) + row.invisible
    box["scheduled"] = box.get("scheduled", 0) + row.unseen
    if row.oldest is not None:
        box["oldest_ready_seconds"] = max(0, row.now - row.oldest) / 1000


def _conditions(query: DeliveryQuery, id_list: str) -> tuple[str, dict[str, Any]]:
    where, values = ["1 = 1"], {}
    if query.mailbox is not None:
        where.append("d.mailbox = :mailbox")
        values["mailbox"] = query.mailbox
    if query.ids is not None:
        # One parameter, whatever the number: SQLite has a limit on parameters.
        where.append(f"d.delivery_id IN ({id_list})")
        # No number of ours is larger than a column can hold.
        values["ids"] = json.dumps([number for number in query.ids if abs(number) < 1 << 63])
    if query.message_id is not None:
        where.append("m.message_id = :message_id")
        values["message_id"] = query.message_id
    if query.correlation_id is not None:
        where.append(CONVERSATION)
        values["correlation_id"] = query.correlation_id
    if query.states:
        # Written out and not as parameters: an index of some states is used only where the states are known.
        states = sorted({str(DeliveryState(state)) for state in query.states})
        listed = ", ".join(f"'{state}'" for state in states)
        where.append(f"d.state = {listed}" if len(states) == 1 else f"d.state IN ({listed})")
        others = (query.ids, query.message_id, query.correlation_id)
        if query.mailbox is not None and set(query.states) <= _OPEN and others == (None, None, None):
            where.append(_OPEN_IDS.format(states=listed))
    return " AND ".join(where), values


def _record(row: Any) -> DeliveryRecord:
    reason = row.reason
    try:
        message = decode(row.envelope)
    except UndecodableMessage as error:
        message, reason = None, reason or str(error)
    return DeliveryRecord(
        delivery_id=row.delivery_id,
        mailbox=row.mailbox,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        visible_at=from_ms(row.visible_at),
        updated_at=from_ms(row.updated_at),
        message=message,
        reason=reason,
        owner=row.lease_owner if row.state in (DeliveryState.LEASED, DeliveryState.DONE) else None,
        waiting=bool(row.waiting),
        redrives=row.redrives,
        history=tuple(_entry(entry) for entry in json.loads(row.history)),
    )


def _entry(entry: dict[str, Any]) -> HistoryEntry:
    return HistoryEntry(
        from_ms(entry["at"]), entry["event"], entry["attempt"], entry["actor"] or "", entry["detail"] or ""
    )
