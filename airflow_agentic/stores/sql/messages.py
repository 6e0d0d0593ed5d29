"""Messages on their way, on a SQL database."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow_agentic.errors import MailboxFull
from airflow_agentic.messaging.delivery import DeliveryState, stale_lease
from airflow_agentic.messaging.ports import EXPIRED, Address, Claim, Outgoing, Settlement, StateChange, Wanted
from airflow_agentic.stores.sql.clock import from_ms, to_ms
from airflow_agentic.stores.sql.database import Deadlock, SqlDatabase
from airflow_agentic.stores.sql.lanes import Lanes
from airflow_agentic.stores.sql.state import SqlState
from airflow_agentic.stores.sql.statements import statements_of

_ENDED = (DeliveryState.DONE, DeliveryState.DEAD)
# A row is looked for in an array as long as this.
_AT_ONCE = 1_000


class SqlMessages:
    """Implements :class:`airflow_agentic.messaging.ports.MessageStore`.

    Args:
        database: Where.
    """

    def __init__(self, database: SqlDatabase) -> None:
        self._db = database
        self._sql = statements_of(database.dialect)
        self._lanes = Lanes(database, self._sql)
        self._state = SqlState(database)

    def append(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """See the port."""
        if not outgoing:
            return []
        sql = self._sql
        if sql.send and len(outgoing) == 1 and _is_plain(outgoing[0]):
            new = [self._db.execute(sql.send, _plain(outgoing[0])) == 1]
        elif sql.send_many and all(map(_is_plain, outgoing)) and _differ(outgoing):
            new = self._send(sql.send_many, outgoing)
        else:
            new = self._db.committed(lambda: self.insert(outgoing))
        self.wake_for(outgoing)
        return new

    def claim(self, wanted: Wanted) -> list[Claim]:
        """See the port."""
        while True:
            rows = self._db.fetch(self._sql.claim, _values(wanted), again=True)
            if marked := [row for row in rows if _is_marked(row)]:
                self._db.committed(functools.partial(self._bury, wanted.mailbox, marked))
            claims = _claims(rows)
            # All of them may have been buried: there can be more behind them.
            if claims or not rows:
                return claims

    def settle(
        self,
        settlements: Sequence[Settlement],
        outgoing: Sequence[Outgoing] = (),
        changes: Sequence[StateChange] = (),
        then: Wanted | None = None,
    ) -> list[Claim]:
        """See the port."""
        if (
            len(settlements) == 1
            and settlements[0].ordering_key is None
            and not (outgoing or changes or then)
        ):
            self._end(settlements[0])
            return []
        claims = self._db.committed(lambda: self._settle(settlements, outgoing, changes, then))
        self.wake_for(outgoing)
        return claims

    def extend(self, held: Mapping[int, str], lease: timedelta) -> dict[int, datetime]:
        """See the port."""
        with self._db.transaction():
            found = [
                self._db.fetch(self._sql.extend, {"id": delivery_id, "token": token, "lease": to_ms(lease)})
                for delivery_id, token in sorted(held.items())
            ]
        return {row.delivery_id: from_ms(row.visible_at) for rows in found for row in rows}

    def wait(self, mailbox: str, timeout: timedelta) -> None:
        """See the port."""
        self._db.wait(mailbox, timeout.total_seconds())

    # -- sending ---------------------------------------------------------------------------------------

    def _send(self, statement: str, outgoing: Sequence[Outgoing]) -> list[bool]:
        """Send plain messages, all of them different, in one statement."""
        rows = [_plain(each) for each in outgoing]
        arrays = {name: [row[name] for row in rows] for name in rows[0]}
        try:
            before = {row.position for row in self._db.fetch(statement, arrays)}
        except Deadlock:
            # Somebody sends the same ones in another order.
            return self._db.committed(lambda: self.insert(outgoing))
        return [position not in before for position in range(1, len(rows) + 1)]

    def insert(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """Store messages in the caller's transaction; see :meth:`append`."""
        if not self._db.dialect.takes_arrays and all(map(_is_plain, outgoing)):
            return self._insert_plain(outgoing)
        stored = self._insert_messages(outgoing)
        room = _Room(self)
        rows = [
            _delivery(message, address, row, room)
            for message, row in zip(outgoing, stored, strict=True)
            if row
            for address in message.addresses
        ]
        self._enter(rows)
        self._insert_deliveries(rows)
        new = (sent for sent, row in zip(outgoing, stored, strict=True) if row)
        room.check(address for message in new for address in message.addresses)
        return [row is not None for row in stored]

    def _insert_plain(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """Insert messages for one mailbox each, where nobody else writes now: so they can be numbered here."""
        [last] = self._db.fetch(self._sql.last_number)
        now, first = last.now, last.number + 1
        rows = [
            (number, sent.message_id, sent.source, sent.correlation_id, now, sent.envelope)
            for number, sent in enumerate(outgoing, first)
        ]
        new = [True] * len(rows)
        if self._db.execute_many(self._sql.number_message, rows) != len(rows):
            found = self._db.fetch("SELECT seq FROM agentic_message WHERE seq >= :first", {"first": first})
            stored = {row.seq for row in found}
            new = [row[0] in stored for row in rows]
        deliveries = [
            (row[0], *_deliver(sent, now))
            for row, sent, is_new in zip(rows, outgoing, new, strict=True)
            if is_new
        ]
        if deliveries:
            self._db.execute_many(self._sql.deliver, deliveries)
        return new

    def _insert_messages(self, outgoing: Sequence[Outgoing]) -> list[Any]:
        if len(outgoing) > 1 and self._db.dialect.takes_arrays:
            arrays = {name: [getattr(message, name) for message in outgoing] for name in _IDENTITY}
            rows = self._db.fetch(self._sql.insert_messages, arrays)
            found = {(row.source, row.message_id): row for row in rows}
            # The first one of two in a batch is the new one.
            return [found.pop(_as_stored(message), None) for message in outgoing]
        rows = [self._db.fetch(self._sql.insert_message, _identity(message)) for message in outgoing]
        return [found[0] if found else None for found in rows]

    def _insert_deliveries(self, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        if len(rows) == 1:
            self._db.execute(self._sql.insert_delivery, rows[0])
        elif self._db.dialect.takes_arrays:
            arrays = {name: [row[name] for row in rows] for name in rows[0]}
            self._db.execute(self._sql.insert_deliveries, arrays)
        else:
            self._db.execute_many(self._sql.insert_delivery, rows)

    def _enter(self, rows: Sequence[dict[str, Any]]) -> None:
        """Let deliveries into their lanes; in one order of lanes for everybody, and in each in the order given."""
        keyed = [
            row for row in rows if row["ordering_key"] is not None and row["state"] == DeliveryState.READY
        ]
        for row in sorted(keyed, key=lambda row: (row["mailbox"], row["ordering_key"])):
            row["waiting"] = int(self._lanes.enter((row["mailbox"], row["ordering_key"])))

    def open_in(self, mailbox: str, limit: int) -> int:
        """Count the open deliveries of a mailbox, up to a limit; others who count it wait for this transaction."""
        if self._db.dialect.lock_mailbox:
            self._db.fetch(self._db.dialect.lock_mailbox, {"mailbox": mailbox})
        return int(self._db.fetch(self._sql.count_open, {"mailbox": mailbox, "limit": limit})[0][0])

    def wake_for(self, outgoing: Sequence[Outgoing]) -> None:
        """Tell those who wait for messages that they came; after the commit."""
        if outgoing:
            self._db.wake({address.mailbox for message in outgoing for address in message.addresses})

    # -- settling --------------------------------------------------------------------------------------

    def _settle(
        self,
        settlements: Sequence[Settlement],
        outgoing: Sequence[Outgoing],
        changes: Sequence[StateChange],
        then: Wanted | None,
    ) -> list[Claim]:
        if len(settlements) > 1 and all(each.outcome == "ack" for each in settlements):
            self._ack(settlements)
            ended = list(settlements)
        else:
            # In one order for everybody: two who settle the same ones must not wait for each other.
            ordered = sorted(settlements, key=lambda settlement: settlement.delivery_id)
            ended = [each for each in ordered if self._end(each) in _ENDED]
        lanes = [(each.mailbox, each.ordering_key) for each in ended if each.ordering_key is not None]
        if lanes:
            self._lanes.leave(lanes)
        if outgoing:
            self.insert(outgoing)
        if changes:
            self._state.apply(changes)
        return self._claim_then(then) if then else []

    def _end(self, settlement: Settlement) -> str:
        rows = self._db.fetch(
            self._sql.settle[settlement.outcome],
            {
                "id": settlement.delivery_id,
                "token": settlement.token,
                "delay": to_ms(settlement.delay),
                "reason": settlement.reason,
            },
        )
        if not rows:
            raise stale_lease(settlement.delivery_id)
        return str(rows[0].state)

    def _ack(self, settlements: Sequence[Settlement]) -> None:
        if self._db.dialect.takes_arrays:
            parts = (settlements[first : first + _AT_ONCE] for first in range(0, len(settlements), _AT_ONCE))
            changed = sum(
                self._db.execute(
                    self._sql.ack_many,
                    {"id": [each.delivery_id for each in part], "token": [each.token for each in part]},
                )
                for part in parts
            )
        else:
            held = [{"id": each.delivery_id, "token": each.token} for each in settlements]
            changed = self._db.execute_many(self._sql.ack_many, held)
        if changed == len(settlements):
            return
        for each in settlements:
            rows = self._db.fetch(
                "SELECT state FROM agentic_delivery WHERE delivery_id = :id", {"id": each.delivery_id}
            )
            if not rows or rows[0].state != DeliveryState.DONE:
                raise stale_lease(each.delivery_id)
        raise stale_lease(settlements[0].delivery_id)

    def _claim_then(self, wanted: Wanted) -> list[Claim]:
        rows = self._db.fetch(self._sql.claim, _values(wanted))
        if marked := [row for row in rows if _is_marked(row)]:
            self._bury(wanted.mailbox, marked)
        return _claims(rows)

    def _bury(self, mailbox: str, marked: Sequence[Any]) -> None:
        """Bury the first deliveries of lanes, and let the next ones in."""
        self._lanes.leave(
            [
                (mailbox, row.ordering_key)
                for row in marked
                if self._db.fetch(self._sql.bury, {"id": row.delivery_id, "token": row.lease_token})
            ]
        )


class _Room:
    """Keeps count of mailboxes with a limit while messages are put into them."""

    def __init__(self, messages: SqlMessages) -> None:
        self._messages = messages
        self._before: dict[tuple[str, int], int] = {}
        self._came: Counter[str] = Counter()

    def is_left(self, address: Address) -> bool:
        """Whether one more finds room where the rest become dead letters; if so, it takes it."""
        if address.limit and address.overflow == "dead-letter":
            place = address.mailbox, address.limit
            if place not in self._before:
                self._before[place] = self._messages.open_in(*place)
            if self._before[place] + self._came[address.mailbox] >= address.limit:
                return False
        self._came[address.mailbox] += 1
        return True

    def check(self, addresses: Any) -> None:
        """Refuse everything if a mailbox that refuses has too many now."""
        limited = {
            each.mailbox: each
            for each in addresses
            if each.limit and each.dead is None and each.overflow != "dead-letter"
        }
        for address in limited.values():
            if (
                self._came[address.mailbox]
                and self._messages.open_in(address.mailbox, address.limit + 1) > address.limit
            ):
                raise MailboxFull(address.full)


_IDENTITY = ("message_id", "source", "correlation_id", "envelope")


def _identity(message: Outgoing) -> dict[str, Any]:
    return {name: getattr(message, name) for name in _IDENTITY}


def _as_stored(message: Outgoing) -> tuple[str, str]:
    """Return the identity as a database that keeps no NUL gives it back."""
    return message.source.replace("\0", "\N{REPLACEMENT CHARACTER}"), message.message_id.replace(
        "\0", "\N{REPLACEMENT CHARACTER}"
    )


def _is_plain(message: Outgoing) -> bool:
    """Whether a message needs nothing but a row for itself and one for its delivery."""
    if message.ordering_key is not None or len(message.addresses) != 1:
        return False
    return not (message.addresses[0].dead or message.addresses[0].limit or _is_late(message))


def _differ(messages: Sequence[Outgoing]) -> bool:
    """Whether no two of them have one identity."""
    return len({_as_stored(each) for each in messages}) == len(messages)


def _is_late(message: Outgoing) -> bool:
    return message.ttl is not None and message.ttl <= timedelta(0)


def _plain(message: Outgoing) -> dict[str, Any]:
    address = message.addresses[0]
    return {
        "message_id": message.message_id,
        "source": message.source,
        "correlation_id": message.correlation_id,
        "envelope": message.envelope,
        "mailbox": address.mailbox,
        "delay": to_ms(message.delay) if message.delay else 0,
        "max_attempts": address.max_attempts,
        "priority": message.priority,
        "ttl": None if message.ttl is None else to_ms(message.ttl),
    }


def _deliver(message: Outgoing, now: int) -> tuple[Any, ...]:
    address = message.addresses[0]
    visible_at = now + to_ms(message.delay) if message.delay else now
    expires_at = None if message.ttl is None else now + to_ms(message.ttl)
    return address.mailbox, visible_at, address.max_attempts, now, message.priority, expires_at


def _delivery(message: Outgoing, address: Address, stored: Any, room: _Room) -> dict[str, Any]:
    now, state, reason, history = stored.created_at, "ready", None, "[]"
    if address.dead is not None:
        state, reason = "dead", address.dead
    elif _is_late(message):
        state, reason = "dead", EXPIRED
        entry = {"at": now, "event": "expired", "attempt": 0, "actor": "", "detail": EXPIRED}
        history = json.dumps([entry])
    elif not room.is_left(address):
        state, reason = "dead", address.full
    return {
        "seq": stored.seq,
        "mailbox": address.mailbox,
        "state": state,
        "visible_at": now + to_ms(message.delay),
        "attempts": 0,
        "max_attempts": address.max_attempts,
        "updated_at": now,
        "priority": message.priority,
        "ordering_key": message.ordering_key,
        "waiting": 0,
        "expires_at": None if message.ttl is None else now + to_ms(message.ttl),
        "reason": reason,
        "history": history,
    }


def _values(wanted: Wanted) -> dict[str, Any]:
    return {
        "mailbox": wanted.mailbox,
        "limit": wanted.limit,
        "lease": to_ms(wanted.lease),
        "owner": wanted.owner,
    }


def _is_marked(row: Any) -> bool:
    return bool(row.attempts > row.max_attempts)


def _claims(rows: Sequence[Any]) -> list[Claim]:
    claims: list[Claim] = []
    ends: dict[int, datetime] = {}
    for row in rows:
        if row.state != DeliveryState.LEASED or _is_marked(row):
            continue
        if (until := ends.get(row.visible_at)) is None:
            until = ends[row.visible_at] = from_ms(row.visible_at)
        claims.append(
            Claim(
                row.delivery_id,
                row.lease_token,
                row.attempts,
                row.max_attempts,
                until,
                row.envelope,
                row.ordering_key,
                row.priority,
            )
        )
    claims.sort(key=lambda claim: (-claim.priority, claim.delivery_id))
    return claims
