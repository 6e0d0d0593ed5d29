"""What is kept beside the messages: subscriptions, signs of life, and values of consumers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from airflow_agentic.errors import StateConflict
from airflow_agentic.messaging.ports import Heartbeat, StateChange, StateEntry
from airflow_agentic.messaging.routing import Subscription
from airflow_agentic.messaging.state import INBOX
from airflow_agentic.stores.redis.connections import Argument
from airflow_agentic.stores.redis.scripts import BEAT, COMMIT, ENTRIES, HEARTBEATS, REPORTED, UNSUBSCRIBE
from airflow_agentic.stores.redis.server import RedisServer, from_time, to_ms, to_time


class RedisSubscriptions:
    """Implements :class:`airflow_agentic.messaging.ports.SubscriptionStore`.

    Args:
        server: Where.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def subscribe(self, subscription: Subscription) -> None:
        """See the port."""
        field = json.dumps(_key(subscription))
        self._server.command(
            "HSET", self._server.key("subscriptions"), field, json.dumps(asdict(subscription))
        )

    def unsubscribe(self, mailbox: str, topic: str | None = None, filter: str | None = None) -> int:  # noqa: A002
        """See the port."""
        asked = (int(topic is not None), topic or "", int(filter is not None), filter or "")
        return int(self._server.run(UNSUBSCRIBE, mailbox, *asked))

    def subscriptions(self) -> list[Subscription]:
        """See the port."""
        found = [
            json.loads(each) for each in self._server.command("HVALS", self._server.key("subscriptions"))
        ]
        return sorted((Subscription(**{**each, "tags": tuple(each["tags"])}) for each in found), key=_key)


class RedisHeartbeats:
    """Implements :class:`airflow_agentic.messaging.ports.HeartbeatStore`.

    Args:
        server: Where.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def beat(self, source: str, envelope: bytes, alive_for: timedelta) -> None:
        """See the port."""
        self._server.run(BEAT, source, to_ms(alive_for), envelope)

    def heartbeats(self) -> list[Heartbeat]:
        """See the port."""
        now, flat = self._server.run(HEARTBEATS)
        beats = [_heartbeat(flat[i].decode(), flat[i + 1], now) for i in range(0, len(flat), 2)]
        return sorted(beats, key=lambda beat: beat.source)

    def mark_reported(self, source: str, due_at: datetime) -> None:
        """See the port."""
        self._server.run(REPORTED, source, to_time(due_at))


class RedisState:
    """Implements :class:`airflow_agentic.messaging.ports.StateStore`.

    Args:
        server: Where.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def read(self, scope: str, key: str) -> StateEntry | None:
        """See the port."""
        found = self._server.command("HGET", self._server.key(f"state:{scope}"), key)
        return None if found is None else _entry(scope, key, found)

    def entries(self, scope: str, limit: int = 100) -> list[StateEntry]:
        """See the port."""
        if scope.startswith(INBOX):
            # Receipts have no index by name.
            flat = self._server.command("HGETALL", self._server.key(f"state:{scope}"))
            rows = sorted(zip(flat[::2], flat[1::2], strict=True))[:limit]
        else:
            rows = self._server.run(ENTRIES, scope, limit)
        return [_entry(scope, key.decode(), found) for key, found in rows]

    def write(self, changes: Sequence[StateChange]) -> None:
        """See the port."""
        kind, *rest = self._server.run(COMMIT, 0, *change_arguments(changes), 0, 0)
        if kind == b"conflict":
            raise state_conflict(changes[rest[0] - 1], rest[1])


def change_arguments(changes: Sequence[StateChange]) -> Iterator[Argument]:
    """Yield changes as scripts take them."""
    yield len(changes)
    for each in changes:
        yield from (each.scope, each.key, "forget" if each.value is None else "keep", each.value or b"")
        yield "" if each.expected is None else each.expected


def state_conflict(change: StateChange, present: int) -> StateConflict:
    """Return the error for a value of another version."""
    return StateConflict(
        f"{change.key!r} of {change.scope!r} has version {present}, not {change.expected}: somebody else changed it. "
        "Nothing was changed; read it again."
    )


def _key(subscription: Subscription) -> tuple[str, str, str]:
    return subscription.mailbox, subscription.topic or "", subscription.filter or ""


def _heartbeat(source: str, kept: bytes, now: int) -> Heartbeat:
    at, due_at, reported, envelope = kept.split(b" ", 3)
    late = int(due_at) <= now
    return Heartbeat(source, from_time(int(at)), from_time(int(due_at)), late, reported == b"1", envelope)


def _entry(scope: str, key: str, kept: Any) -> StateEntry:
    version, at, value = kept.split(b" ", 2)
    return StateEntry(scope, key, value, int(version), from_time(int(at)))
