"""The message bus: what agents, operators and people call."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_agentic.errors import (
    AlreadyHandled,
    InvalidMessage,
    MessageNotFound,
    StateConflict,
    UndecodableMessage,
    Unroutable,
)
from airflow_agentic.messaging import requests
from airflow_agentic.messaging.codec import decode
from airflow_agentic.messaging.delivery import (
    Delivery,
    DeliveryRecord,
    DeliveryState,
    MailboxStats,
    stale_lease,
)
from airflow_agentic.messaging.dispatch import Dispatcher
from airflow_agentic.messaging.liveness import report_late
from airflow_agentic.messaging.message import Kind, Message
from airflow_agentic.messaging.options import BusOptions
from airflow_agentic.messaging.ports import (
    Blobs,
    BusStore,
    Claim,
    DeliveryQuery,
    Heartbeat,
    Outgoing,
    StateChange,
    Wanted,
)
from airflow_agentic.messaging.receiving import Receiver
from airflow_agentic.messaging.redrive import redriven
from airflow_agentic.messaging.routing import Route, Subscription, asked_for
from airflow_agentic.messaging.sending import Sender, plain, settlement
from airflow_agentic.messaging.state import StateView, effects, receipt
from airflow_agentic.observability.metrics import Metrics, NoMetrics

_NO_TIME = timedelta(0)


class MessageBus:
    """Sends, routes, receives and settles messages on a store. Delivery is at least once.

    Args:
        store: The durable part.
        options: Limits and times.
        owner: Name of this receiver in leases and histories; default ``host:pid``.
        metrics: Where numbers go.
        blobs: Where data goes that is too large to travel; without it all data travels.

    Attributes:
        options: As given.
        blobs: As given.
    """

    def __init__(
        self,
        store: BusStore,
        options: BusOptions | None = None,
        owner: str | None = None,
        *,
        metrics: Metrics | None = None,
        blobs: Blobs | None = None,
    ) -> None:
        self._store = store
        self.options = options or BusOptions()
        self._owner = owner
        self._metrics = metrics or NoMetrics()
        self.blobs = blobs
        self._dispatch = Dispatcher(self.options, store.subscriptions, self._metrics, blobs)
        self._sender = Sender(store, self.options, self._dispatch)
        self._receiver = Receiver(store.messages, self.options, self._dispatch)

    @property
    def owner(self) -> str:
        """Name of this receiver in leases and histories."""
        return self._owner or process_name()

    def with_options(self, **changed: Any) -> MessageBus:
        """Return the same bus with other limits or times."""
        options = replace(self.options, **changed)
        return MessageBus(self._store, options, self._owner, metrics=self._metrics, blobs=self.blobs)

    # -- sending ---------------------------------------------------------------------------------------

    def send(self, message: Message, *, delay: timedelta = _NO_TIME) -> bool:
        """Send one message. When this returns, it is on disk.

        A message that leads to nobody is kept in the dead letters of ``agentic.unroutable``. A heartbeat takes the
        place of the last one of its source.

        Args:
            message: What to send.
            delay: Time before which nobody can receive it.

        Returns:
            ``False`` if a message with the same source and id was sent before; nothing is sent twice.

        Raises:
            InvalidMessage: It breaks a rule of its kind, or has expired already.
            MessageTooLarge: The encoded message is over the limit.
            MailboxFull: There is no room in a mailbox, or there was none in time.
        """
        return self.send_many([message], delay=delay)[0]

    def send_many(self, messages: Iterable[Message], *, delay: timedelta = _NO_TIME) -> list[bool]:
        """Send messages in one transaction: all of them or, on an error, none. Heartbeats go by themselves.

        Returns:
            One flag a message, as for :meth:`send`.

        Raises:
            InvalidMessage: One of the messages breaks a rule of its kind, or has expired already.
            MessageTooLarge: One of the messages is over the limit.
            MailboxFull: There is no room for one of the messages, or there was none in time.
        """
        given = list(messages)
        outgoing = [self._sender.prepared(m, delay) for m in given if m.kind is not Kind.HEARTBEAT]
        beats = self._sender.beats(given)
        if any(alive_for <= _NO_TIME for _, _, alive_for in beats):
            raise InvalidMessage(
                "a heartbeat expired before it was sent: expires_at is when the next one is due"
            )
        new = iter(self._sender.append(outgoing) if outgoing else [])
        self._sender.beat(beats)
        return [message.kind is Kind.HEARTBEAT or next(new) for message in given]

    def publish(self, message: Message, *, delay: timedelta = _NO_TIME, mandatory: bool = False) -> list[str]:
        """Send a message to whoever subscribed to its topic, or to its audience.

        Args:
            message: With ``topic`` or ``audience``.
            delay: Time before which nobody can receive it.
            mandatory: Refuse it if nobody subscribed, instead of keeping it as a dead letter.

        Returns:
            The mailboxes that got a copy, ordered by name; empty if it led to nobody or was sent before.

        Raises:
            Unroutable: It is mandatory, and nobody subscribed; nothing was sent.
            InvalidMessage: It has a recipient, breaks a rule of its kind, or has expired already.
            MessageTooLarge: The encoded message is over the limit.
            MailboxFull: There is no room in a mailbox, or there was none in time.
        """
        if message.topic is None and message.audience is None:
            raise InvalidMessage("publish takes a message with topic= or audience=; use send for a recipient")
        outgoing = self._sender.prepared(message, delay)
        mailboxes = [address.mailbox for address in outgoing.addresses if address.dead is None]
        if mandatory and not mailboxes:
            raise Unroutable(
                f"nobody subscribed to {message.address}; `airflow agentic routes list` shows who did"
            )
        return mailboxes if self._sender.append([outgoing])[0] else []

    def request(self, message: Message, *, timeout: timedelta | float | None = None) -> Message:
        """Send a request and wait for its answer; the caller's thread sleeps.

        The same request, sent again after a crash, waits for the same answer.

        Args:
            message: What to ask; ``reply_to`` is set here.
            timeout: How long to wait, in seconds or as a timedelta; it is the request's deadline, unless that is
                earlier.

        Returns:
            The answer: a response, or an error (``raise_for_error()`` raises it).

        Raises:
            ReplyTimeout: Neither came before the deadline; the text says where the request is.
            Unroutable: Nobody subscribed to its topic; nothing was sent.
            InvalidMessage: It cannot be a request.
        """
        span = requests.span(timeout, self.options.request_timeout)
        if timeout is not None and message.expires_at is not None:
            earlier = min(message.expires_at, datetime.now(UTC) + span)
            message = message.model_copy(update={"expires_at": earlier})
        asked = requests.prepared(message, span)
        self.ask(asked)
        return requests.wait_for_reply(self, asked)

    def outgoing(self, messages: Iterable[Message]) -> list[Outgoing]:
        """Return messages as the store takes them, for who commits them together with something else of the same store.

        Raises:
            InvalidMessage: One breaks a rule of its kind.
            MessageTooLarge: One is over the limit.
        """
        return [self._sender.prepared(message, _NO_TIME) for message in messages]

    def ask(self, message: Message) -> None:
        """Send a request that :func:`airflow_agentic.messaging.requests.prepared` made, and do not wait.

        Raises:
            Unroutable: Nobody subscribed to its topic; nothing was sent.
        """
        if message.recipient is None:
            self.publish(message, mandatory=True)
        else:
            self.send(message)

    def reply(self, request: Message) -> Message | None:
        """Return the answer to a request, if there is one; it is acked, and can be asked for again."""
        found = requests.reply(self, request)
        return None if found is None else self.loaded(found)

    def loaded(self, message: Message) -> Message:
        """Return a message that was looked up, with its data, wherever that is kept.

        Raises:
            ClaimCheckDamaged: The data is gone or was changed.
            StoreUnavailable: It cannot be read now.
        """
        return message if message.data is not None else self._dispatch.resolved(message)

    # -- receiving and settling ------------------------------------------------------------------------

    def receive(
        self,
        mailbox: str,
        *,
        max_messages: int = 1,
        lease: timedelta | None = None,
        wait: timedelta = _NO_TIME,
    ) -> list[Delivery]:
        """Lease messages of a mailbox; the attempt is counted for each.

        A message that this version cannot decode, or whose data is damaged, goes to the dead letters with the reason
        and is not returned.

        Args:
            mailbox: Whose messages.
            max_messages: At most so many; of those with one ordering key, one.
            lease: How long they belong to the caller (default: the bus's lease).
            wait: How long to wait for the first one; the caller's thread sleeps.

        Returns:
            The deliveries, highest priority first and then oldest first; empty if there was none in time.

        Raises:
            InvalidMessage: ``max_messages`` or ``lease`` is not positive.
        """
        wanted = self._receiver.wanted(mailbox, max_messages, lease, self.owner)
        deadline = time.monotonic() + wait.total_seconds()
        while True:
            claims = self._store.messages.claim(wanted)
            deliveries = self._receiver.deliveries(mailbox, claims, self)
            left = deadline - time.monotonic()
            if claims and not deliveries:
                continue  # All were undecodable: there can be good ones behind them.
            if deliveries or left <= 0:
                return deliveries
            self._store.messages.wait(mailbox, min(self.options.poll, timedelta(seconds=left)))

    def ack(
        self,
        *deliveries: Delivery,
        send: Sequence[Message] = (),
        state: Mapping[str, Any] | None = None,
        versions: Mapping[str, int] | None = None,
        inbox: str | None = None,
    ) -> None:
        """End deliveries as done, with what follows from handling them, in one commit; see ``Delivery.ack``.

        Raises:
            InvalidMessage: ``state`` is given for deliveries of several mailboxes.
        """
        self._end(deliveries, send, effects(deliveries, state, versions, inbox), None, inbox)

    def ack_and_receive(
        self,
        *deliveries: Delivery,
        send: Sequence[Message] = (),
        max_messages: int = 1,
        lease: timedelta | None = None,
    ) -> list[Delivery]:
        """Do :meth:`ack` and :meth:`receive` of the same mailbox in one commit.

        Returns:
            The next deliveries; empty if there is none now. :meth:`receive` can still find some then.

        Raises:
            StaleLease: As for ``Delivery.ack``; nothing was acked, sent or received.
            InvalidMessage: There is no delivery to ack.
        """
        if not deliveries:
            raise InvalidMessage("ack_and_receive needs a delivery to ack: receive gives the first one")
        mailbox = deliveries[0].mailbox
        claims = self._end(
            deliveries, send, (), self._receiver.wanted(mailbox, max_messages, lease, self.owner), None
        )
        return self._receiver.deliveries(mailbox, claims, self)

    def nack(
        self,
        delivery: Delivery,
        *,
        delay: timedelta | None = None,
        reason: str = "",
        send: Sequence[Message] = (),
    ) -> None:
        """Give a failed delivery back; see ``Delivery.nack``."""
        if delay is None:
            delay = self._receiver.backoff(delivery.attempt)
        self._sender.settle([replace(settlement(delivery, "nack"), delay=delay, reason=plain(reason))], send)

    def reject(self, delivery: Delivery, *, reason: str, send: Sequence[Message] = ()) -> None:
        """Put a delivery into the dead letters; see ``Delivery.reject``."""
        self._sender.settle([replace(settlement(delivery, "reject"), reason=plain(reason))], send)

    def release(self, *deliveries: Delivery, delay: timedelta = _NO_TIME) -> None:
        """Give deliveries back unhandled; see ``Delivery.release``.

        Args:
            deliveries: Which.
            delay: Time before which nobody can receive them.

        Raises:
            StaleLease: As for ``Delivery.release``.
        """
        self._store.messages.settle(
            [replace(settlement(delivery, "release"), delay=delay) for delivery in deliveries]
        )

    def extend(self, delivery: Delivery, lease: timedelta | None = None) -> datetime:
        """Make the lease end ``lease`` from now; see ``Delivery.extend``."""
        ends = self._store.messages.extend(
            {delivery.delivery_id: delivery.token}, self._receiver.lease(lease)
        )
        if delivery.delivery_id not in ends:
            raise stale_lease(delivery.delivery_id)
        return ends[delivery.delivery_id]

    def extend_all(self, deliveries: Sequence[Delivery], lease: timedelta | None = None) -> list[Delivery]:
        """Make the leases of many deliveries end ``lease`` from now, in one commit.

        Returns:
            Those whose lease was lost; the others have their new ``lease_until``.
        """
        ends = self._store.messages.extend(
            {d.delivery_id: d.token for d in deliveries}, self._receiver.lease(lease)
        )
        for delivery in deliveries:
            delivery.lease_until = ends.get(delivery.delivery_id, delivery.lease_until)
        return [delivery for delivery in deliveries if delivery.delivery_id not in ends]

    def handled(self, consumer: str, message: Message) -> bool:
        """Whether a consumer noted with ``ack(inbox=consumer)`` that it handled a message."""
        note = receipt(consumer, message.source, message.id)
        return self._store.state.read(note.scope, note.key) is not None

    def state(self, scope: str) -> StateView:
        """Return the values of a scope; that of ``ack(state=…)`` is the mailbox."""
        return StateView(self._store.state, scope)

    # -- routes ----------------------------------------------------------------------------------------

    def subscribe(
        self,
        mailbox: str,
        topic: str | None = None,
        filter: str | None = None,  # noqa: A002  # the field's own word
        *,
        role: str | None = None,
        tags: Iterable[str] = (),
        max_attempts: int | None = None,
    ) -> Subscription:
        """Let a mailbox hear what is published. The same subscription again changes the one there is.

        Args:
            mailbox: Who gets a copy of each message; its receivers compete for them.
            topic: Words, ``*`` and ``#`` with dots between them. Default: every topic, unless only ``role`` or
                ``tags`` are given.
            filter: A CEL condition, such as ``msg.data.total > 100``.
            role: Broadcasts to ``role:…`` reach it.
            tags: Broadcasts to ``tag:…`` reach it.
            max_attempts: Of messages that come this way; default the mailbox's.

        Raises:
            InvalidMessage: The mailbox, the pattern, the role or a tag cannot be one, or there are no attempts.
            InvalidFilter: The filter does not compile.
        """
        asked = asked_for(mailbox, topic, filter, role=role, tags=tags, max_attempts=max_attempts)
        self._store.subscriptions.subscribe(asked)
        return asked

    def unsubscribe(self, mailbox: str, topic: str | None = None, filter: str | None = None) -> int:  # noqa: A002
        """End subscriptions of a mailbox: all, those of a topic, or the one of a topic and filter.

        Returns:
            How many there were. Those of the project file end there.
        """
        return self._store.subscriptions.unsubscribe(mailbox, topic, filter)

    def subscriptions(self) -> list[Subscription]:
        """Return all subscriptions: first those of the project file, then those made by API."""
        return [*self.options.subscriptions, *self._store.subscriptions.subscriptions()]

    def routes(self, message: Message) -> list[Route]:
        """Say who would get a message, who would not, and why; takers first. Nothing is sent."""
        return self._dispatch.router().explain(message)

    # -- looking and mending ---------------------------------------------------------------------------

    def dead_letters(self, mailbox: str | None = None, *, limit: int = 100) -> list[DeliveryRecord]:
        """Read dead letters with reason and history, oldest first.

        Args:
            mailbox: Only of this mailbox; default all.
            limit: At most so many.
        """
        return self.find(DeliveryQuery(mailbox=mailbox, states=(DeliveryState.DEAD,), limit=limit))

    def redrive(
        self,
        ids: Iterable[int] | int | None = None,
        *,
        actor: str,
        reason: str,
        mailbox: str | None = None,
        filter: str | None = None,  # noqa: A002  # as for subscribe
        to: str | None = None,
        rate: float | None = None,
    ) -> list[int]:
        """Give dead letters another chance. Who did it and why is kept in the history.

        Those that led to nobody are routed anew, by the subscriptions of this moment.

        Args:
            ids: Delivery numbers, as ``dead_letters`` shows them.
            actor: Who does it.
            reason: Why.
            mailbox: Instead of ``ids``: all dead letters of this mailbox.
            filter: Only those whose message fits a CEL condition; without ``mailbox`` those of all mailboxes. All
                there are: ``"true"``.
            to: Mailbox that gets them instead.
            rate: At most so many can be claimed a second.

        Returns:
            Numbers of the deliveries that are ready again.

        Raises:
            InvalidMessage: Not one of the ways to say which, an empty actor or reason, or a bad rate or mailbox.
            InvalidFilter: The filter does not compile.
            MessageNotFound: One of ``ids`` is not a dead letter; nothing was redriven.
            Unroutable: One of them still leads to nobody; nothing was redriven.
        """
        if (ids is None) == (mailbox is None and filter is None):
            raise InvalidMessage("redrive takes delivery numbers, or a mailbox and a filter, one of the two")
        if not actor.strip() or not reason.strip():
            raise InvalidMessage("redrive needs an actor and a reason: both are kept in the history")
        if rate is not None and rate <= 0:
            raise InvalidMessage(f"rate must be positive, it is {rate}")
        if to is not None:
            Message(source="bus", recipient=to)  # whose rules for names hold
        query = DeliveryQuery(mailbox=mailbox)
        if ids is not None:
            query = DeliveryQuery(ids=(ids,) if isinstance(ids, int) else tuple(ids))
        spacing = _NO_TIME if rate is None else timedelta(seconds=1 / rate)
        return redriven(
            self._store.books,
            self._dispatch.router(),
            query,
            filter,
            actor=plain(actor),
            reason=plain(reason),
            to=to,
            spacing=spacing,
            loaded=self.loaded,
        )

    def stats(self, mailbox: str) -> MailboxStats:
        """Count the deliveries of one mailbox; zeros if nothing was ever sent to it."""
        return next(iter(self._store.books.stats(mailbox)), MailboxStats(mailbox))

    def mailboxes(self) -> list[MailboxStats]:
        """Count the deliveries of every mailbox, ordered by name."""
        return self._store.books.stats()

    def find(self, query: DeliveryQuery) -> list[DeliveryRecord]:
        """Read deliveries without touching them, oldest first."""
        return self._store.books.find(query)

    def trace(self, identifier: str, *, limit: int = 1_000) -> list[DeliveryRecord]:
        """Read every delivery of a conversation, oldest first.

        Args:
            identifier: A correlation id, or the id of any message in the conversation.
            limit: At most so many.

        Raises:
            MessageNotFound: Nothing has that id.
        """
        found = self.find(DeliveryQuery(correlation_id=identifier, limit=limit))
        if not found:
            named = self.find(DeliveryQuery(message_id=identifier, limit=1))
            if not named:
                raise MessageNotFound(f"no message or conversation has the id {identifier!r} in this store")
            if named[0].message is None:
                return named
            found = self.find(DeliveryQuery(correlation_id=named[0].message.correlation_id, limit=limit))
        return found

    def purge(self, older_than: timedelta | None = None, *, limit: int = 10_000) -> int:
        """Bury what has expired, and forget old messages that are done everywhere. Dead letters stay.

        A forgotten message is not known as a duplicate any more.

        Args:
            older_than: Forget what was sent longer ago; default and least: the dedup window.
            limit: Forget at most so many messages.

        Returns:
            How many messages were forgotten.
        """
        age = max(older_than or _NO_TIME, self.options.dedup_window)
        envelopes = self._store.books.purge(age, limit)
        if self.blobs is not None:
            for envelope in envelopes:
                with contextlib.suppress(
                    UndecodableMessage
                ):  # another version's: whose data only that one finds
                    if b'"dataref"' in envelope and (where := decode(envelope).data_ref):
                        self.blobs.delete(where)
        return len(envelopes)

    # -- signs of life ---------------------------------------------------------------------------------

    def heartbeats(self) -> list[Heartbeat]:
        """Return the last heartbeat of every source, ordered by source."""
        return self._store.heartbeats.heartbeats()

    def report_late_heartbeats(self) -> list[str]:
        """Publish a notification on ``agentic.heartbeat.missed`` for every source that is late, once each time.

        Whoever waits for messages in the triggerer calls this now and then.

        Returns:
            The sources that were reported.
        """
        return report_late(self.publish, self._store.heartbeats)

    # -- inside ----------------------------------------------------------------------------------------

    def _end(
        self,
        deliveries: Sequence[Delivery],
        send: Sequence[Message],
        changed: Sequence[StateChange],
        then: Wanted | None,
        inbox: str | None,
    ) -> list[Claim]:
        settlements = [settlement(delivery, "ack") for delivery in deliveries]
        try:
            return self._sender.settle(settlements, send, changed, then)
        except StateConflict:
            for delivery in deliveries if inbox is not None else ():
                if self.handled(str(inbox), delivery.message):
                    raise AlreadyHandled(
                        f"message {delivery.message.id} was handled by {inbox!r} before; nothing was changed. Ack it "
                        "without effects."
                    ) from None
            raise


def is_gone(owner: str) -> bool:
    """Whether a holder of leases is known to be gone: a process of this host that is not there any more.

    Args:
        owner: ``host:pid``, or ``task@host:pid``.
    """
    host, _, pid = owner.rpartition("@")[2].rpartition(":")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OverflowError, PermissionError):
        return False
    return False


def process_name() -> str:
    """Return ``host:pid``; not to be kept, since a forked child must not work under its parent's name."""
    return f"{socket.gethostname()}:{os.getpid()}"
