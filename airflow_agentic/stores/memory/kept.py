"""A delivery in memory, and what may become of it: the state machine, written out."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from airflow_agentic.errors import UndecodableMessage
from airflow_agentic.messaging.codec import decode
from airflow_agentic.messaging.delivery import DeliveryRecord, DeliveryState, HistoryEntry, MailboxStats
from airflow_agentic.messaging.ports import (
    EXPIRED,
    Address,
    Claim,
    DeliveryQuery,
    Outgoing,
    Settlement,
    Wanted,
)

READY, LEASED, DONE, DEAD = DeliveryState
Lane = tuple[str, str]


@dataclass(frozen=True)
class Kept:
    """A message and one of its deliveries. A change makes a new one, so that several changes are made or none."""

    delivery_id: int
    sent: Outgoing
    mailbox: str
    max_attempts: int
    sent_at: datetime
    visible_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None
    state: DeliveryState = READY
    waiting: bool = False
    attempts: int = 0
    token: str = ""
    owner: str = ""
    reason: str | None = None
    redrives: int = 0
    history: tuple[HistoryEntry, ...] = ()

    @property
    def lane(self) -> Lane | None:
        """Mailbox and ordering key."""
        return None if self.sent.ordering_key is None else (self.mailbox, self.sent.ordering_key)

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state in (READY, LEASED)

    def is_claimable(self, mailbox: str, now: datetime) -> bool:
        """Whether a claim of a mailbox takes it."""
        return self.mailbox == mailbox and self.is_open and not self.waiting and self.visible_at <= now

    def is_expired(self, now: datetime) -> bool:
        """Whether its message is of no use any more."""
        return self.expires_at is not None and self.expires_at <= now

    def is_held(self, token: str, now: datetime) -> bool:
        """Whether a lease still lasts."""
        return self.state is LEASED and self.token == token and self.visible_at > now

    def matches(self, query: DeliveryQuery) -> bool:
        """Whether a query asks for it."""
        return (
            query.mailbox in (None, self.mailbox)
            and query.message_id in (None, self.sent.message_id)
            and query.correlation_id in (None, self.sent.correlation_id)
            and (query.ids is None or self.delivery_id in query.ids)
            and (not query.states or self.state in query.states)
        )

    def _noted(self, now: datetime, event: str, actor: str, detail: str) -> Kept:
        entry = HistoryEntry(now, event, self.attempts, actor, detail)
        return replace(self, history=(*self.history, entry), updated_at=now)

    def taken(self, wanted: Wanted, now: datetime) -> Kept:
        """Lease it; if a lease ran out, note that. Bury it if that was the last attempt, or if it has expired."""
        kept = self
        if kept.state is LEASED:
            kept = kept._noted(
                now, "lease-expired", kept.owner, "the lease ended before the delivery was settled"
            )
            if kept.attempts >= kept.max_attempts:
                return replace(
                    kept, state=DEAD, reason=f"attempts spent: the lease of the last one ({kept.owner}) ended"
                )
        if kept.is_expired(now):
            return kept.expired(now)
        return replace(
            kept,
            state=LEASED,
            attempts=kept.attempts + 1,
            token=secrets.token_hex(16),
            owner=wanted.owner,
            visible_at=now + wanted.lease,
            updated_at=now,
        )

    def expired(self, now: datetime) -> Kept:
        """Bury it because nobody took it in time."""
        return replace(self._noted(now, "expired", "", EXPIRED), state=DEAD, waiting=False, reason=EXPIRED)

    def settled(self, settlement: Settlement, now: datetime) -> Kept:
        """End it or give it back."""
        reason = settlement.reason
        if settlement.outcome == "ack":
            return replace(self, state=DONE, reason=None, updated_at=now)
        if settlement.outcome == "release":
            visible_at = now + settlement.delay
            return replace(
                self, state=READY, attempts=self.attempts - 1, visible_at=visible_at, updated_at=now
            )
        kept = self._noted(now, settlement.outcome, self.owner, reason)
        if settlement.outcome == "reject":
            return replace(kept, state=DEAD, reason=reason)
        if kept.attempts >= kept.max_attempts:
            return replace(
                kept, state=DEAD, reason=f"attempts spent: {reason}" if reason else "attempts spent"
            )
        return replace(kept, state=READY, reason=reason, visible_at=now + settlement.delay)

    def redriven(self, actor: str, reason: str, mailbox: str, visible_at: datetime, now: datetime) -> Kept:
        """Give it another chance, perhaps elsewhere."""
        kept = self._noted(now, "redrive", actor, reason)
        return replace(
            kept,
            mailbox=mailbox,
            state=READY,
            attempts=0,
            reason=None,
            expires_at=None,
            visible_at=visible_at,
            redrives=kept.redrives + 1,
        )

    def claim(self) -> Claim:
        """Return it as the store hands it out."""
        sent = self.sent
        return Claim(
            self.delivery_id,
            self.token,
            self.attempts,
            self.max_attempts,
            self.visible_at,
            sent.envelope,
            sent.ordering_key,
            sent.priority,
        )

    def record(self) -> DeliveryRecord:
        """Return what is known of it."""
        reason = self.reason
        try:
            message = decode(self.sent.envelope)
        except UndecodableMessage as error:
            message, reason = None, reason or str(error)
        return DeliveryRecord(
            delivery_id=self.delivery_id,
            mailbox=self.mailbox,
            state=self.state,
            attempts=self.attempts,
            max_attempts=self.max_attempts,
            visible_at=self.visible_at,
            updated_at=self.updated_at,
            message=message,
            reason=reason,
            owner=self.owner if self.state in (LEASED, DONE) else None,
            waiting=self.waiting,
            redrives=self.redrives,
            history=self.history,
        )


def new(number: int, sent: Outgoing, address: Address, now: datetime, *, full: bool) -> Kept:
    """Return a delivery that was just sent; dead at once if it leads nowhere, is late, or finds no room."""
    expires_at = None if sent.ttl is None else now + sent.ttl
    kept = Kept(
        number, sent, address.mailbox, address.max_attempts, now, now + sent.delay, now, expires_at=expires_at
    )
    if address.dead is not None:
        return replace(kept, state=DEAD, reason=address.dead)
    if sent.ttl is not None and sent.ttl <= timedelta(0):
        return kept.expired(now)
    if full:
        return replace(kept, state=DEAD, reason=address.full)
    return kept


def counted(mailbox: str, kept: Sequence[Kept], now: datetime) -> MailboxStats:
    """Count the deliveries of a mailbox."""
    count = {state: sum(k.state is state for k in kept) for state in DeliveryState}
    reachable = [each for each in kept if each.is_open and not each.waiting]
    due = [each for each in reachable if each.visible_at <= now]
    waits = [now - each.visible_at for each in due if each.state is READY]
    waiting = sum(each.waiting for each in kept)
    return MailboxStats(
        mailbox,
        **{state.value: number for state, number in count.items()},
        waiting=waiting,
        delayed=count[READY] - len(waits) - waiting,
        scheduled=sum(k.state is READY and k.visible_at > now and k.attempts == 0 for k in reachable),
        expired=sum(each.state is LEASED for each in due),
        oldest_ready_seconds=max(waits).total_seconds() if waits else None,
        newest_claimable=max((each.delivery_id for each in due), default=None),
    )
