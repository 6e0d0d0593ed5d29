"""What became of messages, and what people do about it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from airflow_agentic.errors import UndecodableMessage
from airflow_agentic.messaging.codec import decode
from airflow_agentic.messaging.delivery import DeliveryRecord, DeliveryState, HistoryEntry, MailboxStats
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores.redis.connections import Argument
from airflow_agentic.stores.redis.scripts import FIND, PURGE, REDRIVE, STATS
from airflow_agentic.stores.redis.server import RedisServer, from_time, to_bytes, to_ms

_PAGE = 500
"""So many deliveries or mailboxes are read at once: the server does nothing else meanwhile."""

_REDRIVEN_AT_ONCE = 5_000
_LETTERS = {
    DeliveryState.READY: "R",
    DeliveryState.LEASED: "L",
    DeliveryState.DONE: "D",
    DeliveryState.DEAD: "X",
}
_STATES = {letter.encode(): state for state, letter in _LETTERS.items()}
_WITH_OWNER = (DeliveryState.LEASED, DeliveryState.DONE)
_COUNTS = ("ready", "waiting", "delayed", "scheduled", "leased", "expired", "done", "dead")


class RedisBooks:
    """Implements :class:`airflow_agentic.messaging.ports.DeliveryBooks`.

    Args:
        server: Where.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """See the port."""
        found: list[DeliveryRecord] = []
        after = 0
        while (wanted := min(_PAGE, query.limit - len(found))) > 0:
            rows = self._server.run(FIND, *_query_arguments(query, query.states, after, wanted))
            found += [_record(row) for row in rows]
            if len(rows) < wanted:
                break
            after = found[-1].delivery_id
        return found

    def stats(self, mailbox: str | None = None) -> list[MailboxStats]:
        """See the port."""
        known = [mailbox] if mailbox is not None else self._mailboxes()
        counted: list[MailboxStats] = []
        for i in range(0, len(known), _PAGE):
            asked, more = known[i : i + _PAGE], True
            while more:
                rows, more = self._server.run(STATS, len(asked), *asked)
            counted += map(_stats, rows)
        return counted

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
        redriven: list[int] = []
        if query.states and DeliveryState.DEAD not in query.states:
            return redriven
        after, more = 0, True
        while more:
            asked = _query_arguments(query, (DeliveryState.DEAD,), after, _REDRIVEN_AT_ONCE)
            done_by = to_bytes(actor), to_bytes(reason)
            numbers = self._server.run(REDRIVE, *asked, *done_by, to_ms(spacing), len(redriven), len(to), *to)
            redriven += map(int, numbers)
            more = len(numbers) == _REDRIVEN_AT_ONCE
            after = redriven[-1] if redriven else 0
        return redriven

    def purge(self, older_than: timedelta, limit: int) -> list[bytes]:
        """See the port."""
        envelopes: list[bytes] = []
        more = True
        while more:
            forgotten, more = self._server.run(PURGE, to_ms(older_than), limit - len(envelopes))
            envelopes += forgotten
        return envelopes

    def _mailboxes(self) -> list[str]:
        names = self._server.command("HKEYS", self._server.key("mailboxes"))
        return sorted(name.decode() for name in names)


def _query_arguments(
    query: DeliveryQuery, states: Sequence[DeliveryState], after: int, limit: int
) -> Iterator[Argument]:
    yield query.mailbox or ""
    yield "".join(_LETTERS[state] for state in dict.fromkeys(states))
    yield query.message_id or ""
    yield query.correlation_id or ""
    yield -1 if query.ids is None else len(query.ids)
    yield from query.ids or ()
    yield after
    yield limit


def _record(row: Any) -> DeliveryRecord:
    number, mailbox, letter, attempts, most, visible_at, updated_at, *more = row
    said, owner, waiting, redrives, envelope, history = more
    state, reason = _STATES[letter], _text(said)
    try:
        message = decode(envelope)
    except UndecodableMessage as error:
        message, reason = None, reason or str(error)
    return DeliveryRecord(
        delivery_id=int(number),
        mailbox=mailbox.decode(),
        state=state,
        attempts=attempts,
        max_attempts=most,
        visible_at=from_time(visible_at),
        updated_at=from_time(updated_at),
        message=message,
        reason=reason,
        owner=_text(owner) if state in _WITH_OWNER else None,
        waiting=bool(waiting),
        redrives=redrives,
        history=tuple(_entry(each) for each in history),
    )


def _entry(entry: bytes) -> HistoryEntry:
    at, event, attempt, actor, detail = json.loads(entry.decode(errors="replace"))
    return HistoryEntry(from_time(at), event, attempt, actor, detail)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _stats(row: Any) -> MailboxStats:
    mailbox, *counts, age, newest = row
    return MailboxStats(
        mailbox.decode(),
        **dict(zip(_COUNTS, counts, strict=True)),
        oldest_ready_seconds=None if age is None else age / 1000,
        newest_claimable=newest,
    )
