"""The ports in the memory of one process: for tests, and the model that the SQL stores are compared with.

Written from the ports and the state machine, not from the SQL. Nothing here survives the process.
"""

from __future__ import annotations

import copy
import secrets
import threading
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.agents.status import (
    KEPT_INSTANCES,
    AgentProfile,
    AgentStatus,
    Instance,
    PerformanceMetrics,
    summarise,
)
from airflow_agentic.errors import StoreError, UndecodableMessage
from airflow_agentic.messaging.codec import decode
from airflow_agentic.messaging.delivery import (
    DeliveryRecord,
    DeliveryState,
    HistoryEntry,
    MailboxStats,
    stale_lease,
)
from airflow_agentic.messaging.ports import Claim, DeliveryQuery, Outgoing, Settlement

Clock = Callable[[], datetime]
_READY, _LEASED, _DONE, _DEAD = DeliveryState


def utc_now() -> datetime:
    """Return the time of this machine."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Kept:
    """A message and its delivery. A change makes a new one, so that several changes are made or none."""

    delivery_id: int
    outgoing: Outgoing
    visible_at: datetime
    updated_at: datetime
    state: DeliveryState = _READY
    attempts: int = 0
    token: str = ""
    owner: str = ""
    reason: str | None = None
    redrives: int = 0
    history: tuple[HistoryEntry, ...] = ()

    def noted(self, now: datetime, event: str, actor: str, detail: str) -> _Kept:
        entry = HistoryEntry(now, event, self.attempts, actor, detail)
        return replace(self, history=(*self.history, entry), updated_at=now)

    def matches(self, query: DeliveryQuery) -> bool:
        return (
            query.mailbox in (None, self.outgoing.mailbox)
            and query.message_id in (None, self.outgoing.message_id)
            and query.correlation_id in (None, self.outgoing.correlation_id)
            and (query.ids is None or self.delivery_id in query.ids)
            and (not query.states or self.state in query.states)
        )


class MemoryMessageStore:
    """Implements :class:`airflow_agentic.messaging.ports.MessageStore`; safe to share between threads.

    Args:
        clock: Tells the time, with a time zone.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._identities: set[tuple[str, str]] = set()
        self._kept: dict[int, _Kept] = {}

    def append(self, outgoing: Sequence[Outgoing]) -> list[bool]:
        """See the port."""
        with self._lock:
            return [self._add(message, self._clock()) for message in outgoing]

    def claim(self, mailbox: str, *, limit: int, lease: timedelta, owner: str) -> list[Claim]:
        """See the port."""
        with self._lock:
            now = self._clock()
            while True:
                claimable = [
                    k for k in self._in(mailbox) if k.state in (_READY, _LEASED) and k.visible_at <= now
                ]
                first = sorted(claimable, key=lambda kept: (kept.visible_at, kept.delivery_id))[:limit]
                taken = [_taken(kept, lease, owner, now) for kept in first]
                self._keep(taken)
                claims = [_claim(kept) for kept in taken if kept.state is _LEASED]
                # All of them may have been buried: there can be more behind them.
                if claims or not first:
                    return sorted(claims, key=lambda claim: claim.delivery_id)

    def settle(self, settlements: Sequence[Settlement], outgoing: Sequence[Outgoing] = ()) -> None:
        """See the port."""
        with self._lock:
            now = self._clock()
            changed: dict[int, _Kept] = {}
            for each in settlements:
                held = _held(ChainMap(changed, self._kept), each.delivery_id, each.token, now)
                changed[each.delivery_id] = _settled(held, each, now)
            self._keep(changed.values())
            for message in outgoing:
                self._add(message, now)

    def extend(self, held: Mapping[int, str], lease: timedelta) -> dict[int, datetime]:
        """See the port."""
        with self._lock:
            now = self._clock()
            kept = [
                each for id_, token in held.items() if (each := _under_lease(self._kept, id_, token, now))
            ]
            self._keep(replace(each, visible_at=now + lease, updated_at=now) for each in kept)
            return {each.delivery_id: now + lease for each in kept}

    def redrive(self, query: DeliveryQuery, *, actor: str, reason: str) -> list[int]:
        """See the port."""
        with self._lock:
            now = self._clock()
            dead = [k for k in self._kept.values() if k.state is _DEAD and k.matches(query)]
            self._keep(_redriven(kept, actor, reason, now) for kept in dead)
            return [kept.delivery_id for kept in dead]

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """See the port."""
        with self._lock:
            found = [kept for kept in self._kept.values() if kept.matches(query)]
        return [_record(kept) for kept in found[: query.limit]]

    def stats(self, mailbox: str | None = None) -> list[MailboxStats]:
        """See the port."""
        with self._lock:
            now = self._clock()
            names = sorted({kept.outgoing.mailbox for kept in self._kept.values()})
            return [_counted(name, self._in(name), now) for name in names if mailbox in (None, name)]

    def _add(self, message: Outgoing, now: datetime) -> bool:
        identity = (message.source, message.message_id)
        if identity in self._identities:
            return False
        self._identities.add(identity)
        self._keep([_Kept(len(self._kept) + 1, message, visible_at=now + message.delay, updated_at=now)])
        return True

    def _in(self, mailbox: str) -> list[_Kept]:
        return [kept for kept in self._kept.values() if kept.outgoing.mailbox == mailbox]

    def _keep(self, changed: Iterable[_Kept]) -> None:
        self._kept |= {kept.delivery_id: kept for kept in changed}


def _held(known: Mapping[int, _Kept], delivery_id: int, token: str, now: datetime) -> _Kept:
    kept = _under_lease(known, delivery_id, token, now)
    if kept is None:
        raise stale_lease(delivery_id)
    return kept


def _under_lease(known: Mapping[int, _Kept], delivery_id: int, token: str, now: datetime) -> _Kept | None:
    kept = known.get(delivery_id)
    held = kept and kept.state is _LEASED and kept.token == token and kept.visible_at > now
    return kept if held else None


def _taken(kept: _Kept, lease: timedelta, owner: str, now: datetime) -> _Kept:
    """Lease it; if a lease ran out, note that, and bury it if that was the last attempt."""
    if kept.state is _LEASED:
        kept = kept.noted(now, "lease-expired", kept.owner, "the lease ended before the delivery was settled")
        if kept.attempts >= kept.outgoing.max_attempts:
            reason = f"attempts spent: the lease of the last one ({kept.owner}) ended"
            return replace(kept, state=_DEAD, reason=reason)
    return replace(
        kept,
        state=_LEASED,
        attempts=kept.attempts + 1,
        token=secrets.token_hex(16),
        owner=owner,
        visible_at=now + lease,
        updated_at=now,
    )


def _settled(kept: _Kept, settlement: Settlement, now: datetime) -> _Kept:
    reason = settlement.reason
    if settlement.outcome == "ack":
        return replace(kept, state=_DONE, reason=None, updated_at=now)
    if settlement.outcome == "release":
        return replace(kept, state=_READY, attempts=kept.attempts - 1, visible_at=now, updated_at=now)
    kept = kept.noted(now, settlement.outcome, kept.owner, reason)
    if settlement.outcome == "reject":
        return replace(kept, state=_DEAD, reason=reason)
    if kept.attempts >= kept.outgoing.max_attempts:
        return replace(kept, state=_DEAD, reason=f"attempts spent: {reason}".removesuffix(": "))
    return replace(kept, state=_READY, reason=reason, visible_at=now + settlement.delay)


def _redriven(kept: _Kept, actor: str, reason: str, now: datetime) -> _Kept:
    kept, redrives = kept.noted(now, "redrive", actor, reason), kept.redrives + 1
    return replace(kept, state=_READY, attempts=0, reason=None, visible_at=now, redrives=redrives)


def _claim(kept: _Kept) -> Claim:
    end, sent = kept.visible_at, kept.outgoing
    return Claim(kept.delivery_id, kept.token, kept.attempts, sent.max_attempts, end, sent.envelope)


def _record(kept: _Kept) -> DeliveryRecord:
    reason = kept.reason
    try:
        message = decode(kept.outgoing.envelope)
    except UndecodableMessage as error:
        message, reason = None, reason or str(error)
    return DeliveryRecord(
        delivery_id=kept.delivery_id,
        mailbox=kept.outgoing.mailbox,
        state=kept.state,
        attempts=kept.attempts,
        max_attempts=kept.outgoing.max_attempts,
        visible_at=kept.visible_at,
        updated_at=kept.updated_at,
        message=message,
        reason=reason,
        owner=kept.owner if kept.state is _LEASED else None,
        redrives=kept.redrives,
        history=kept.history,
    )


def _counted(mailbox: str, kept: Sequence[_Kept], now: datetime) -> MailboxStats:
    count = {state: sum(k.state is state for k in kept) for state in DeliveryState}
    due = [each for each in kept if each.visible_at <= now and each.state in (_READY, _LEASED)]
    waits = [now - each.visible_at for each in due if each.state is _READY]
    return MailboxStats(
        mailbox,
        **{state.value: number for state, number in count.items()},
        delayed=count[_READY] - len(waits),
        scheduled=sum(k.state is _READY and k.visible_at > now and k.attempts == 0 for k in kept),
        expired=sum(each.state is _LEASED for each in due),
        oldest_ready_seconds=max(waits).total_seconds() if waits else None,
        newest_claimable=max((each.delivery_id for each in due), default=None),
    )


@dataclass
class _Named:
    """All that is kept of one name."""

    profile: AgentProfile
    metrics: PerformanceMetrics = field(default_factory=PerformanceMetrics)
    instances: dict[str, Instance] = field(default_factory=dict)

    def forget(self, now: datetime) -> None:
        ended = [i for i in self.instances.values() if i.state is AgentState.SHUTDOWN or i.is_lost(now)]
        ended.sort(key=lambda instance: instance.updated_at, reverse=True)
        for instance in ended[KEPT_INSTANCES:]:
            del self.instances[instance.agent_id]

    def status(self, now: datetime) -> AgentStatus:
        return summarise(copy.deepcopy(self.profile), self.metrics, list(self.instances.values()), now)


class MemoryAgentStore:
    """Implements :class:`airflow_agentic.agents.status.AgentStore`; safe to share between threads.

    Args:
        clock: Tells the time, with a time zone.
    """

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Named] = {}

    def register(self, agent_id: str, profile: AgentProfile, owner: str, alive_for: timedelta) -> None:
        """See the port."""
        with self._lock:
            now = self._clock()
            if self._named(agent_id):
                raise StoreError(f"there is an instance {agent_id!r} already")
            named = self._known.get(profile.name, _Named(profile))
            named.forget(now)
            new = Instance(agent_id, AgentState.INITIALIZED, "", owner, now, now + alive_for)
            instances = {**named.instances, agent_id: new}
            self._known[profile.name] = _Named(copy.deepcopy(profile), named.metrics, instances)

    def report(
        self, agent_id: str, state: AgentState, reason: str, *, add: PerformanceMetrics, alive_for: timedelta
    ) -> None:
        """See the port."""
        with self._lock:
            now = self._clock()
            if named := self._named(agent_id):
                owner = named.instances[agent_id].owner
                named.instances[agent_id] = Instance(agent_id, state, reason, owner, now, now + alive_for)
                named.metrics += add

    def get(self, name: str) -> AgentStatus | None:
        """See the port."""
        return next((status for status in self.list() if status.name == name), None)

    def list(self) -> list[AgentStatus]:
        """See the port."""
        with self._lock:
            return [self._known[name].status(self._clock()) for name in sorted(self._known)]

    def _named(self, agent_id: str) -> _Named | None:
        return next((named for named in self._known.values() if agent_id in named.instances), None)
