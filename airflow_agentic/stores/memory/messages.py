"""Messages in the memory of one process: for tests, and the model that the other stores are compared with.

Written from the ports and the state machine, not from the SQL. Nothing here survives the process.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from airflow_agentic.errors import MailboxFull
from airflow_agentic.messaging.delivery import DeliveryRecord, MailboxStats, stale_lease
from airflow_agentic.messaging.ports import (
    Address,
    BusStore,
    Claim,
    DeliveryQuery,
    Heartbeat,
    Outgoing,
    Settlement,
    StateChange,
    StateEntry,
    Wanted,
)
from airflow_agentic.messaging.routing import Subscription
from airflow_agentic.messaging.state import INBOX, state_conflict
from airflow_agentic.stores.memory.clock import Clock, utc_now
from airflow_agentic.stores.memory.kept import DEAD, DONE, LEASED, READY, Kept, Lane, counted, new


class MemoryMessages:
    """Implements the ports of the bus, all of them: what one of them does, the others see.

    Safe to share between threads.

    Args:
        clock: Tells the time, with a time zone.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._numbers = 0
        self._sent: dict[tuple[str, str], tuple[Outgoing, datetime]] = {}
        self._kept: dict[int, Kept] = {}
        self._values: dict[tuple[str, str], StateEntry] = {}
        self._subscribed: dict[tuple[str, str, str], Subscription] = {}
        self._beats: dict[str, Heartbeat] = {}

    # -- MessageStore ----------------------------------------------------------------------------------

    def append(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """See the port."""
        with self._changed, self._room_for(outgoing):
            return [self._add(message, self._clock()) for message in outgoing]

    def claim(self, wanted: Wanted) -> list[Claim]:
        """See the port."""
        with self._changed:
            now = self._clock()
            while True:
                claims, found = self._claim(wanted, now)
                # All of them may have been buried: there can be more behind them.
                if claims or not found:
                    return claims

    def settle(
        self,
        settlements: Sequence[Settlement],
        outgoing: Sequence[Outgoing] = (),
        changes: Sequence[StateChange] = (),
        then: Wanted | None = None,
    ) -> list[Claim]:
        """See the port."""
        with self._changed:
            now = self._clock()
            ended: dict[int, Kept] = {}
            for each in settlements:
                held = ended.get(each.delivery_id) or self._kept.get(each.delivery_id)
                if held is None or not held.is_held(each.token, now):
                    raise stale_lease(each.delivery_id)
                ended[each.delivery_id] = held.settled(each, now)
            self._check_versions(changes)
            with self._room_for(outgoing):
                self._keep(ended.values())
                for message in outgoing:
                    self._add(message, now)
            self.write(changes)
            return self._claim(then, now)[0] if then else []

    def extend(self, held: Mapping[int, str], lease: timedelta) -> dict[int, datetime]:
        """See the port."""
        with self._changed:
            now = self._clock()
            kept = [
                each
                for id_, token in held.items()
                if (each := self._kept.get(id_)) and each.is_held(token, now)
            ]
            self._keep(replace(each, visible_at=now + lease, updated_at=now) for each in kept)
            return {each.delivery_id: now + lease for each in kept}

    def wait(self, mailbox: str, timeout: timedelta) -> None:
        """See the port."""
        with self._changed:
            if not any(kept.is_claimable(mailbox, self._clock()) for kept in self._kept.values()):
                self._changed.wait(timeout.total_seconds())

    # -- DeliveryBooks ---------------------------------------------------------------------------------

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """See the port."""
        with self._changed:
            found = [self._kept[number] for number in sorted(self._kept) if self._kept[number].matches(query)]
        return [kept.record() for kept in found[: query.limit]]

    def stats(self, mailbox: str | None = None) -> list[MailboxStats]:
        """See the port."""
        with self._changed:
            now = self._clock()
            names = sorted({kept.mailbox for kept in self._kept.values()})
            return [
                counted(name, [kept for kept in self._kept.values() if kept.mailbox == name], now)
                for name in names
                if mailbox in (None, name)
            ]

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
        with self._changed:
            now = self._clock()
            dead = [k for _, k in sorted(self._kept.items()) if k.state is DEAD and k.matches(query)]
            for position, kept in enumerate(dead):
                visible_at = now + position * spacing
                mailboxes = to or (kept.mailbox,)
                self._admit(kept.redriven(actor, reason, mailboxes[0], visible_at, now))
                for mailbox in mailboxes[1:]:
                    address = Address(mailbox, kept.max_attempts)
                    copy = new(self._number(), replace(kept.sent, ttl=None), address, now, full=False)
                    self._admit(replace(copy, sent_at=kept.sent_at, visible_at=visible_at))
            return [kept.delivery_id for kept in dead]

    def purge(self, older_than: timedelta, limit: int) -> list[bytes]:
        """See the port."""
        with self._changed:
            now = self._clock()
            late = [k for k in self._kept.values() if k.state is READY and k.is_expired(now)]
            self._keep(kept.expired(now) for kept in late)
            old = [
                identity
                for identity, (_, sent_at) in self._sent.items()
                if sent_at < now - older_than
                and all(kept.state is DONE for kept in self._deliveries(identity))
            ][:limit]
            envelopes = [self._sent[identity][0].envelope for identity in old]
            for identity in old:
                for kept in self._deliveries(identity):
                    del self._kept[kept.delivery_id]
                del self._sent[identity]
            for (scope, key), entry in list(self._values.items()):
                if scope.startswith(INBOX) and entry.updated_at < now - older_than:
                    del self._values[scope, key]
            return envelopes

    # -- SubscriptionStore -----------------------------------------------------------------------------

    def subscribe(self, subscription: Subscription) -> None:
        """See the port."""
        with self._changed:
            self._subscribed[_key(subscription)] = subscription

    def unsubscribe(self, mailbox: str, topic: str | None = None, filter: str | None = None) -> int:  # noqa: A002
        """See the port."""
        with self._changed:
            ended = [
                key
                for key in self._subscribed
                if key[0] == mailbox and topic in (None, key[1]) and filter in (None, key[2])
            ]
            for key in ended:
                del self._subscribed[key]
            return len(ended)

    def subscriptions(self) -> list[Subscription]:
        """See the port."""
        with self._changed:
            return [self._subscribed[key] for key in sorted(self._subscribed)]

    # -- HeartbeatStore --------------------------------------------------------------------------------

    def beat(self, source: str, envelope: bytes, alive_for: timedelta) -> None:
        """See the port."""
        with self._changed:
            now = self._clock()
            self._beats[source] = Heartbeat(
                source, now, now + alive_for, late=False, reported=False, envelope=envelope
            )
            self._changed.notify_all()

    def heartbeats(self) -> list[Heartbeat]:
        """See the port."""
        with self._changed:
            now = self._clock()
            return [replace(beat, late=beat.due_at <= now) for _, beat in sorted(self._beats.items())]

    def mark_reported(self, source: str, due_at: datetime) -> None:
        """See the port."""
        with self._changed:
            beat = self._beats.get(source)
            if beat and beat.due_at == due_at:
                self._beats[source] = replace(beat, reported=True)

    # -- StateStore ------------------------------------------------------------------------------------

    def read(self, scope: str, key: str) -> StateEntry | None:
        """See the port."""
        with self._changed:
            return self._values.get((scope, key))

    def entries(self, scope: str, limit: int = 100) -> list[StateEntry]:
        """See the port."""
        with self._changed:
            return [entry for (owner, _), entry in sorted(self._values.items()) if owner == scope][:limit]

    def write(self, changes: Sequence[StateChange]) -> None:
        """See the port."""
        with self._changed:
            self._check_versions(changes)
            for change in changes:
                place = change.scope, change.key
                if change.value is None:
                    self._values.pop(place, None)
                    continue
                version = self._version(place) + 1
                self._values[place] = StateEntry(*place, change.value, version, self._clock())

    # -- inside ----------------------------------------------------------------------------------------

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _add(self, message: Outgoing, now: datetime) -> bool:
        identity = message.source, message.message_id
        if identity in self._sent:
            return False
        self._sent[identity] = message, now
        for address in message.addresses:
            self._admit(new(self._number(), message, address, now, full=self._is_full(address)))
        self._changed.notify_all()
        return True

    def _admit(self, kept: Kept) -> None:
        """Keep a delivery; in a lane with an open one it waits."""
        waits = kept.is_open and kept.lane is not None and any(self._open_of(kept.lane))
        self._kept[kept.delivery_id] = replace(kept, waiting=waits)

    def _claim(self, wanted: Wanted, now: datetime) -> tuple[list[Claim], int]:
        found = [kept for kept in self._kept.values() if kept.is_claimable(wanted.mailbox, now)]
        found.sort(key=lambda kept: (-kept.sent.priority, kept.visible_at, kept.delivery_id))
        taken = [kept.taken(wanted, now) for kept in found[: wanted.limit]]
        self._keep(taken)
        claims = [kept.claim() for kept in taken if kept.state is LEASED]
        return sorted(claims, key=lambda claim: (-claim.priority, claim.delivery_id)), len(taken)

    def _keep(self, changed: Iterable[Kept]) -> None:
        """Keep changed deliveries; where one has ended, the next of its lane stops waiting."""
        changed = list(changed)
        self._kept |= {kept.delivery_id: kept for kept in changed}
        for lane in {kept.lane for kept in changed if kept.lane is not None}:
            waiting = list(self._open_of(lane))
            if waiting and all(kept.waiting for kept in waiting):
                first = min(waiting, key=lambda kept: kept.delivery_id)
                self._kept[first.delivery_id] = replace(first, waiting=False)

    def _open_of(self, lane: Lane) -> Iterable[Kept]:
        return (kept for kept in self._kept.values() if kept.lane == lane and kept.is_open)

    def _deliveries(self, identity: tuple[str, str]) -> list[Kept]:
        return [kept for kept in self._kept.values() if (kept.sent.source, kept.sent.message_id) == identity]

    def _is_full(self, address: Address) -> bool:
        return address.overflow == "dead-letter" and 0 < address.limit <= self._open_in(address.mailbox)

    @contextlib.contextmanager
    def _room_for(self, outgoing: Sequence[Outgoing]) -> Iterator[None]:
        """Undo what is done inside if a mailbox that refuses got deliveries and has more open ones than it may."""
        addresses = [address for message in outgoing for address in message.addresses if address.limit]
        refusing = {
            each.mailbox: each for each in addresses if not each.dead and each.overflow != "dead-letter"
        }
        kept, sent, numbers = (dict(self._kept), dict(self._sent), self._numbers) if refusing else ({}, {}, 0)
        yield
        for name, address in refusing.items():
            came = any(
                each.mailbox == name and each.is_open
                for number, each in self._kept.items()
                if number > numbers
            )
            if came and self._open_in(name) > address.limit:
                self._kept, self._sent, self._numbers = kept, sent, numbers
                raise MailboxFull(address.full)

    def _open_in(self, mailbox: str) -> int:
        return sum(kept.is_open for kept in self._kept.values() if kept.mailbox == mailbox)

    def _check_versions(self, changes: Sequence[StateChange]) -> None:
        for change in changes:
            present = self._version((change.scope, change.key))
            if change.expected not in (None, present):
                raise state_conflict(change, present)

    def _version(self, place: tuple[str, str]) -> int:
        entry = self._values.get(place)
        return 0 if entry is None else entry.version


def _key(subscription: Subscription) -> tuple[str, str, str]:
    return subscription.mailbox, subscription.topic or "", subscription.filter or ""


def memory_bus_store(clock: Clock = utc_now) -> BusStore:
    """Return a new store in memory, as the bus takes it."""
    messages = MemoryMessages(clock)
    return BusStore(messages, messages, messages, messages, messages)
