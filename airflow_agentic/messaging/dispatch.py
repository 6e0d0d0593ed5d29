"""From a message to what a store keeps: the rules of its kind, its mailboxes, its bytes."""

from __future__ import annotations

import functools
import hashlib
import logging
from datetime import timedelta

from pydantic_core import from_json, to_json

from airflow_agentic.errors import ClaimCheckDamaged, MessageTooLarge
from airflow_agentic.messaging.codec import encode
from airflow_agentic.messaging.kinds import checked, time_to_live
from airflow_agentic.messaging.message import Message
from airflow_agentic.messaging.options import BusOptions, MailboxRules
from airflow_agentic.messaging.ports import Address, Blobs, Outgoing, SubscriptionStore
from airflow_agentic.messaging.routing import UNROUTABLE, Route, Router, Subscription
from airflow_agentic.observability.metrics import Metrics

_log = logging.getLogger(__name__)
_NO_RULES = MailboxRules()
_NO_TIME = timedelta(0)


class Dispatcher:
    """Prepares messages for a store.

    Args:
        options: Limits, and the declared subscriptions.
        subscriptions: The other subscriptions.
        metrics: For what cannot be said to anybody.
        blobs: Where large data goes; ``None`` if it must travel.
    """

    def __init__(
        self,
        options: BusOptions,
        subscriptions: SubscriptionStore,
        metrics: Metrics,
        blobs: Blobs | None = None,
    ) -> None:
        self._options = options
        self._subscriptions = subscriptions
        self._metrics = metrics
        self._blobs = blobs
        self._direct = functools.lru_cache(maxsize=1024)(self._address_of)
        self._last: tuple[tuple[Subscription, ...], Router] = (), Router((), metrics)

    def router(self) -> Router:
        """Return what finds mailboxes, by the subscriptions of this moment."""
        known = (*self._options.subscriptions, *self._subscriptions.subscriptions())
        before, router = self._last
        if known != before:
            router = Router(known, self._metrics)
            self._last = known, router
        return router

    def outgoing(self, message: Message, delay: timedelta) -> Outgoing:
        """Return a message as a store takes it.

        Raises:
            InvalidMessage: It breaks a rule of its kind.
            MessageTooLarge: It is over the limit.
        """
        message = checked(message, self._options.request_timeout)
        addresses = self._addresses(message)  # by its data, which may be kept elsewhere from here on
        message, envelope = self._encoded(message)
        return Outgoing(
            message_id=message.id,
            source=message.source,
            correlation_id=message.correlation_id,
            envelope=envelope,
            addresses=addresses,
            ordering_key=message.ordering_key,
            priority=message.priority,
            delay=delay,
            ttl=time_to_live(message),
        )

    def sign_of_life(self, message: Message) -> tuple[str, bytes, timedelta]:
        """Return a heartbeat as a store takes it: its source, its bytes, and when the next one is due, from now.

        Raises:
            InvalidMessage: It breaks a rule of its kind.
            MessageTooLarge: It is over the limit.
        """
        envelope, left = encode(checked(message, self._options.request_timeout)), time_to_live(message)
        self._check_size(message, envelope)
        return message.source, envelope, self._options.heartbeat if left is None else max(left, _NO_TIME)

    def address(self, route: Route) -> Address:
        """Return a mailbox with the rules that hold there."""
        return self._address_of(
            route.mailbox, route.subscription.max_attempts if route.subscription else None
        )

    def _address_of(self, mailbox: str, asked: int | None = None) -> Address:
        options, rules = self._options, self._options.mailboxes.get(mailbox, _NO_RULES)
        return Address(
            mailbox,
            asked or rules.max_attempts or options.max_attempts,
            options.mailbox_limit if rules.limit is None else rules.limit,
            rules.overflow or options.overflow,
        )

    def resolved(self, message: Message) -> Message:
        """Return a received message with its data, wherever that is kept.

        Raises:
            ClaimCheckDamaged: The data is gone or was changed.
            StoreUnavailable: It cannot be read now.
        """
        if message.data_ref is None:
            return message
        if self._blobs is None:
            raise ClaimCheckDamaged(
                f"the data of message {message.id} is kept at {message.data_ref}, and this process has no place for "
                "large data: set [agentic] claim_check_path as the sender has it, then redrive the message"
            )
        content = self._blobs.get(message.data_ref)
        digest = hashlib.sha256(content).hexdigest()
        if digest != message.data_digest:
            raise ClaimCheckDamaged(
                f"the data of message {message.id} at {message.data_ref} is not what was sent: its SHA-256 is {digest}, "
                f"and was {message.data_digest}"
            )
        return message.model_copy(update={"data": from_json(content)})

    def _addresses(self, message: Message) -> tuple[Address, ...]:
        if message.recipient is not None:
            return (self._direct(message.recipient),)
        routes = self.router().routes(message)
        if routes:
            return tuple(self.address(route) for route in routes)
        _log.warning("message %s leads to nobody: nobody subscribed to %s", message.id, message.address)
        self._metrics.count("bus.unroutable")
        reason = f"unroutable: nobody subscribed to {message.address}"
        return (Address(UNROUTABLE, self._options.max_attempts, dead=reason),)

    def _encoded(self, message: Message) -> tuple[Message, bytes]:
        envelope, limit = encode(message), self._options.claim_check_bytes
        if self._blobs is not None and 0 < limit < len(envelope) and message.data_ref is None:
            content = to_json(message.data)
            digest = hashlib.sha256(content).hexdigest()
            # Named by its message and content: a retry writes the same again, and what is purged with one message
            # is of no other one.
            owner = hashlib.sha256(
                f"{len(message.source)} {message.source} {message.id}".encode()
            ).hexdigest()[:16]
            where = self._blobs.put(f"{digest[:2]}/{digest}-{owner}", content)
            message = message.model_copy(update={"data": None, "data_ref": where, "data_digest": digest})
            envelope = encode(message)
        self._check_size(message, envelope)
        return message, envelope

    def _check_size(self, message: Message, envelope: bytes) -> None:
        if len(envelope) > self._options.max_message_bytes:
            raise MessageTooLarge(
                f"message {message.id} from {message.source!r} to {message.address!r} is "
                f"{len(envelope):,} bytes; the limit is {self._options.max_message_bytes:,}. Set [agentic] "
                "claim_check_path, so that large data is kept elsewhere, or raise [agentic] max_message_bytes."
            )
