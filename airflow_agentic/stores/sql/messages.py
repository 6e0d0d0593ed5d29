"""The bus's store on a SQL database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow_agentic.errors import UndecodableMessage
from airflow_agentic.messaging.codec import decode
from airflow_agentic.messaging.delivery import (
    DeliveryRecord,
    DeliveryState,
    HistoryEntry,
    MailboxStats,
    stale_lease,
)
from airflow_agentic.messaging.ports import Claim, DeliveryQuery, Outgoing, Settlement
from airflow_agentic.stores.sql.clock import from_ms, to_ms
from airflow_agentic.stores.sql.database import SqlDatabase
from airflow_agentic.stores.sql.statements import statements_of


class SqlMessageStore:
    """Implements :class:`airflow_agentic.messaging.ports.MessageStore`.

    Args:
        database: Where.
    """

    def __init__(self, database: SqlDatabase) -> None:
        self._db = database
        self._sql = statements_of(database.dialect)

    def append(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """See the port."""
        if len(outgoing) == 1 and self._sql.send:
            return [self._insert(outgoing[0])]
        with self._db.transaction():
            return [self._insert(message) for message in outgoing]

    def claim(self, mailbox: str, *, limit: int, lease: timedelta, owner: str) -> list[Claim]:
        """See the port."""
        values = {"mailbox": mailbox, "limit": limit, "lease": to_ms(lease), "owner": owner}
        while True:
            rows = self._db.fetch(self._sql.claim, values, again=True)
            claims = [_claim(row) for row in rows if row.state == DeliveryState.LEASED]
            # All of them may have been buried: there can be more behind them.
            if claims or not rows:
                return sorted(claims, key=lambda claim: claim.delivery_id)

    def settle(self, settlements: Sequence[Settlement], outgoing: Sequence[Outgoing] = ()) -> None:
        """See the port."""
        if len(settlements) == 1 and not outgoing:
            self._settle(settlements[0])
            return
        with self._db.transaction():
            # In one order for everybody: two who settle the same ones must not wait for each other.
            for settlement in sorted(settlements, key=lambda settlement: settlement.delivery_id):
                self._settle(settlement)
            for message in outgoing:
                self._insert(message)

    def extend(self, held: Mapping[int, str], lease: timedelta) -> dict[int, datetime]:
        """See the port."""
        with self._db.transaction():
            found = [
                self._db.fetch(self._sql.extend, {"id": delivery_id, "token": token, "lease": to_ms(lease)})
                for delivery_id, token in sorted(held.items())
            ]
        return {row.delivery_id: from_ms(row.visible_at) for rows in found for row in rows}

    def redrive(self, query: DeliveryQuery, *, actor: str, reason: str) -> list[int]:
        """See the port."""
        where, values = _conditions(query, self._db.dialect.id_list)
        rows = self._db.fetch(
            self._sql.redrive.format(where=where), {**values, "actor": actor, "reason": reason}
        )
        return sorted(row.delivery_id for row in rows)

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """See the port."""
        where, values = _conditions(query, self._db.dialect.id_list)
        if query.states:
            where += f" AND d.state IN ({', '.join(f':state{i}' for i in range(len(query.states)))})"
            values |= {f"state{i}": str(state) for i, state in enumerate(query.states)}
        rows = self._db.fetch(
            self._sql.find.format(where=where), {**values, "limit": query.limit}, again=True
        )
        return [_record(row) for row in rows]

    def stats(self, mailbox: str | None = None) -> list[MailboxStats]:
        """See the port."""
        counts: dict[str, dict[str, Any]] = {}
        for row in self._db.fetch(self._sql.stats, {"mailbox": mailbox}, again=True):
            box = counts.setdefault(row.mailbox, {})
            box[row.state] = row.count
            if row.state == DeliveryState.LEASED:
                box["expired"] = row.count - row.invisible
            if row.state in (DeliveryState.LEASED, DeliveryState.READY) and row.newest is not None:
                box["newest_claimable"] = max(row.newest, box.get("newest_claimable", 0))
            if row.state == DeliveryState.READY:
                box["delayed"] = row.invisible
                box["scheduled"] = row.unseen
                if row.oldest is not None:
                    box["oldest_ready_seconds"] = max(0, row.now - row.oldest) / 1000
        return [MailboxStats(name, **box) for name, box in sorted(counts.items())]

    def _insert(self, message: Outgoing) -> bool:
        identity = {
            "message_id": message.message_id,
            "source": message.source,
            "correlation_id": message.correlation_id,
            "envelope": message.envelope,
        }
        delivery = {
            "mailbox": message.mailbox,
            "delay": to_ms(message.delay),
            "max_attempts": message.max_attempts,
        }
        if self._sql.send:
            return self._db.execute(self._sql.send, identity | delivery) == 1
        rows = self._db.fetch(self._sql.insert_message, identity)
        if rows:
            self._db.execute(self._sql.insert_delivery, {**delivery, "seq": rows[0].seq})
        return bool(rows)

    def _settle(self, settlement: Settlement) -> None:
        changed = self._db.execute(
            self._sql.settle[settlement.outcome],
            {
                "id": settlement.delivery_id,
                "token": settlement.token,
                "delay": to_ms(settlement.delay),
                "reason": settlement.reason,
            },
        )
        if not changed:
            raise stale_lease(settlement.delivery_id)


def _claim(row: Any) -> Claim:
    return Claim(
        delivery_id=row.delivery_id,
        token=row.lease_token,
        attempt=row.attempts,
        max_attempts=row.max_attempts,
        lease_until=from_ms(row.visible_at),
        envelope=row.envelope,
    )


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
        where.append("m.correlation_id = :correlation_id")
        values["correlation_id"] = query.correlation_id
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
        owner=row.lease_owner if row.state == DeliveryState.LEASED else None,
        redrives=row.redrives,
        history=tuple(
            HistoryEntry(
                from_ms(entry["at"]),
                entry["event"],
                entry["attempt"],
                entry["actor"] or "",
                entry["detail"] or "",
            )
            for entry in json.loads(row.history)
        ),
    )
