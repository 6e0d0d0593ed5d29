"""Limits and times of a bus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from airflow_agentic.messaging.ports import Overflow
from airflow_agentic.messaging.routing import Subscription


@dataclass(frozen=True)
class MailboxRules:
    """What is particular about a mailbox; what is left out is as everywhere.

    Attributes:
        max_attempts: How often a message is handed out.
        limit: Largest number of open messages; 0 for none.
        overflow: What happens to one more: its sender waits for room (``block``), is refused (``refuse``), or it
            becomes a dead letter (``dead-letter``).
    """

    max_attempts: int | None = None
    limit: int | None = None
    overflow: Overflow | None = None


@dataclass(frozen=True)
class BusOptions:
    """Limits and times of a bus; the defaults are those of ``[agentic]``.

    Attributes:
        max_message_bytes: Largest encoded message, in bytes.
        max_attempts: How often a message is handed out before it goes to the dead letters.
        lease: How long a received message belongs to its receiver.
        retry_base: Upper bound of the first random delay after a nack; doubles with each attempt.
        retry_max: Upper bound of all such delays.
        poll: How often a waiting ``receive`` looks again.
        request_timeout: Deadline of a request that has none.
        heartbeat: When the next heartbeat of a source is late, if the last one did not say.
        dedup_window: A message is known by its source and id for at least this long.
        claim_check_bytes: Larger data is kept outside the store, where a place for that is given; 0 for never.
        mailbox_limit: Largest number of open messages in a mailbox; 0 for none.
        overflow: What happens to one more; see :class:`MailboxRules`.
        block: How long a sender waits for room.
        mailboxes: Mailboxes with rules of their own.
        subscriptions: Those that are declared; others are in the store.
    """

    max_message_bytes: int = 1_048_576
    max_attempts: int = 5
    lease: timedelta = timedelta(seconds=60)
    retry_base: timedelta = timedelta(seconds=1)
    retry_max: timedelta = timedelta(seconds=300)
    poll: timedelta = timedelta(seconds=0.5)
    request_timeout: timedelta = timedelta(seconds=300)
    heartbeat: timedelta = timedelta(seconds=60)
    dedup_window: timedelta = timedelta(days=7)
    claim_check_bytes: int = 65_536
    mailbox_limit: int = 0
    overflow: Overflow = "refuse"
    block: timedelta = timedelta(seconds=30)
    mailboxes: Mapping[str, MailboxRules] = field(default_factory=dict, hash=False)
    subscriptions: tuple[Subscription, ...] = ()
