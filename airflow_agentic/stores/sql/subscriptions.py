"""Who wants to hear what, and who is alive, on a SQL database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow_agentic.messaging.ports import Heartbeat
from airflow_agentic.messaging.routing import Subscription
from airflow_agentic.stores.sql.clock import from_ms, to_ms
from airflow_agentic.stores.sql.database import SqlDatabase

_SUBSCRIBE = """
    INSERT INTO agentic_subscription (mailbox, topic, filter, role, tags, max_attempts, created_at)
    VALUES (:mailbox, :topic, :filter, :role, :tags, :max_attempts, {now})
    ON CONFLICT (mailbox, topic, filter) DO UPDATE SET
        role = excluded.role, tags = excluded.tags, max_attempts = excluded.max_attempts"""
_SUBSCRIPTIONS = """
    SELECT mailbox, topic, filter, role, tags, max_attempts FROM agentic_subscription
    ORDER BY mailbox {bytewise}, topic {bytewise}, filter {bytewise}"""
_BEAT = """
    INSERT INTO agentic_heartbeat (source, at, due_at, reported, envelope)
    VALUES (:source, {now}, {now} + :alive_for, 0, :envelope)
    ON CONFLICT (source) DO UPDATE SET
        at = excluded.at, due_at = excluded.due_at, reported = 0, envelope = excluded.envelope"""
_HEARTBEATS = """
    SELECT source, at, due_at, due_at <= {now} AS late, reported, envelope FROM agentic_heartbeat
    ORDER BY source {bytewise}"""
_REPORTED = "UPDATE agentic_heartbeat SET reported = 1 WHERE source = :source AND due_at = :due_at"


class SqlSubscriptions:
    """Implements :class:`airflow_agentic.messaging.ports.SubscriptionStore`.

    Args:
        database: Where.
    """

    def __init__(self, database: SqlDatabase) -> None:
        self._db = database
        self._subscribe = _SUBSCRIBE.format(now=database.dialect.now)
        self._read = _SUBSCRIPTIONS.format(bytewise=database.dialect.bytewise)
        self._last: tuple[Sequence[Any], list[Subscription]] = (), []

    def subscribe(self, subscription: Subscription) -> None:
        """See the port."""
        self._db.execute(
            self._subscribe,
            {
                "mailbox": subscription.mailbox,
                "topic": subscription.topic or "",
                "filter": subscription.filter or "",
                "role": subscription.role,
                "tags": json.dumps(subscription.tags),
                "max_attempts": subscription.max_attempts,
            },
        )

    def unsubscribe(self, mailbox: str, topic: str | None = None, filter: str | None = None) -> int:  # noqa: A002
        """See the port."""
        given = {"mailbox": mailbox, "topic": topic, "filter": filter}
        values = {name: value for name, value in given.items() if value is not None}
        where = " AND ".join(f"{name} = :{name}" for name in values)
        return self._db.execute(f"DELETE FROM agentic_subscription WHERE {where}", values)

    def subscriptions(self) -> list[Subscription]:
        """See the port."""
        rows, (seen, known) = self._db.fetch(self._read, again=True), self._last
        if rows != seen:
            known = [
                Subscription(
                    row.mailbox,
                    row.topic or None,
                    row.filter or None,
                    row.role,
                    tuple(json.loads(row.tags)),
                    row.max_attempts,
                )
                for row in rows
            ]
            self._last = rows, known
        # The same objects again as long as nothing changes: who routes with them notices that quickly.
        return list(known)


class SqlHeartbeats:
    """Implements :class:`airflow_agentic.messaging.ports.HeartbeatStore`.

    Args:
        database: Where.
    """

    def __init__(self, database: SqlDatabase) -> None:
        self._db = database
        self._beat = _BEAT.format(now=database.dialect.now)
        self._read = _HEARTBEATS.format(now=database.dialect.now, bytewise=database.dialect.bytewise)

    def beat(self, source: str, envelope: bytes, alive_for: timedelta) -> None:
        """See the port."""
        values = {"source": source, "envelope": envelope, "alive_for": to_ms(alive_for)}
        self._db.fetch(f"{self._beat} RETURNING at", values, again=True)

    def heartbeats(self) -> list[Heartbeat]:
        """See the port."""
        return [
            Heartbeat(
                row.source,
                from_ms(row.at),
                from_ms(row.due_at),
                bool(row.late),
                bool(row.reported),
                bytes(row.envelope),
            )
            for row in self._db.fetch(self._read, again=True)
        ]

    def mark_reported(self, source: str, due_at: datetime) -> None:
        """See the port."""
        self._db.execute(_REPORTED, {"source": source, "due_at": round(due_at.timestamp() * 1000)})
