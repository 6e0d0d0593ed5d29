"""Takes messages out of a store, and puts aside what nobody could handle."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow_agentic.errors import (
    ClaimCheckDamaged,
    InvalidMessage,
    StaleLease,
    StoreUnavailable,
    UndecodableMessage,
)
from airflow_agentic.messaging.codec import decode
from airflow_agentic.messaging.delivery import Delivery, Settles
from airflow_agentic.messaging.dispatch import Dispatcher
from airflow_agentic.messaging.options import BusOptions
from airflow_agentic.messaging.ports import Claim, MessageStore, Settlement, Wanted
from airflow_agentic.messaging.sending import plain

_NO_TIME = timedelta(0)


class Receiver:
    """Makes deliveries of claims.

    Args:
        store: Where.
        options: Limits and times.
        dispatch: Finds data that is kept elsewhere.
    """

    def __init__(self, store: MessageStore, options: BusOptions, dispatch: Dispatcher) -> None:
        self._store = store
        self._options = options
        self._dispatch = dispatch

    def wanted(self, mailbox: str, max_messages: int, lease: timedelta | None, owner: str) -> Wanted:
        """Return what is to be claimed.

        Raises:
            InvalidMessage: ``max_messages`` or ``lease`` is not positive.
        """
        lease = self.lease(lease)
        if max_messages < 1:
            raise InvalidMessage(f"max_messages must be positive, it is {max_messages}")
        return Wanted(mailbox, max_messages, lease, owner)

    def lease(self, lease: timedelta | None) -> timedelta:
        """Return how long a lease lasts.

        Raises:
            InvalidMessage: It is not positive.
        """
        if lease is None:
            return self._options.lease
        if lease <= _NO_TIME:
            raise InvalidMessage(f"a lease must be positive, it is {lease}")
        return lease

    def backoff(self, attempt: int) -> timedelta:
        """Return the time until the next attempt: exponential backoff with full jitter (M. Brooker, AWS Architecture Blog, 2015)."""
        bound = min(
            self._options.retry_max.total_seconds(),
            self._options.retry_base.total_seconds() * 2.0 ** min(attempt - 1, 30),
        )
        return timedelta(seconds=random.uniform(0, bound))  # noqa: S311  # jitter, not a secret

    def deliveries(self, mailbox: str, claims: Iterable[Claim], bus: Settles) -> list[Delivery]:
        """Return the deliveries of claims; what cannot be read is put aside with the reason.

        Args:
            mailbox: Where they were claimed.
            claims: What the store handed out.
            bus: What ends them.
        """
        return [found for claim in claims if (found := self._delivery(mailbox, claim, bus)) is not None]

    def _delivery(self, mailbox: str, claim: Claim, bus: Settles) -> Delivery | None:
        try:
            message = decode(claim.envelope)
            if message.data_ref is not None:
                message = self._dispatch.resolved(message)
        except (UndecodableMessage, ClaimCheckDamaged) as error:
            self._put_aside(mailbox, claim, "reject", _NO_TIME, str(error))
            return None
        except StoreUnavailable as error:
            self._put_aside(mailbox, claim, "nack", self.backoff(claim.attempt), str(error))
            return None
        return Delivery(
            delivery_id=claim.delivery_id,
            mailbox=mailbox,
            message=message,
            attempt=claim.attempt,
            max_attempts=claim.max_attempts,
            token=claim.token,
            lease_until=claim.lease_until,
            ordering_key=claim.ordering_key,
            bus=bus,
        )

    def _put_aside(self, mailbox: str, claim: Claim, outcome: Any, delay: timedelta, reason: str) -> None:
        settlement = Settlement(
            claim.delivery_id, claim.token, outcome, delay, plain(reason), mailbox, claim.ordering_key
        )
        with contextlib.suppress(StaleLease):  # somebody else has it now, and will find the same
            self._store.settle([settlement])
