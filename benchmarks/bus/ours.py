"""The bus itself, as its users have it: the whole envelope, dedup on, every option at its default."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_agentic.errors import AgenticError
from airflow_agentic.messaging import Message
from airflow_agentic.stores import open_store
from benchmarks.bus.contender import BODY, LEASE_SECONDS, MAILBOX, Contender
from benchmarks.bus.rounds import Unavailable

if TYPE_CHECKING:
    from airflow_agentic.stores import Store

LEASE = timedelta(seconds=LEASE_SECONDS)


def opened(url: str) -> Store:
    """Open a store.

    Raises:
        Unavailable: It cannot be opened.
    """
    try:
        return open_store(url)
    except (AgenticError, ImportError) as error:
        raise Unavailable(f"open_store: {error}") from error


def message(mailbox: str = MAILBOX, key: str | None = None) -> Message:
    """Return a new message of 1 KB."""
    return Message(source="bench", recipient=mailbox, data=BODY, ordering_key=key)


class Ours(Contender):
    """``open_store(url).bus``.

    Args:
        url: The store.
    """

    name = "ours"
    note = "envelope made, checked and read; dedup by source and id; lease token; done messages kept"

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The open store."""
        assert self._store is not None, "setup() opens it"
        return self._store

    def setup(self) -> None:
        """Open the store, which makes its schema."""
        self._store = opened(self._url)

    def cycle(self, batch: int, count: int) -> int:
        """Send, receive and ack."""
        return self._single(count) if batch == 1 else self._batches(batch, count)

    def _single(self, count: int) -> int:
        bus, ended = self.store.bus, 0
        for _ in range(count):
            bus.send(message())
            for delivery in bus.receive(MAILBOX, lease=LEASE):
                delivery.ack()
                ended += 1
        return ended

    def _batches(self, batch: int, count: int) -> int:
        bus, ended = self.store.bus, 0
        for _ in range(count // batch):
            bus.send_many([message() for _ in range(batch)])
            deliveries = bus.receive(MAILBOX, max_messages=batch, lease=LEASE)
            bus.ack(*deliveries)
            ended += len(deliveries)
        return ended

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
            self._store = None


class OursFused(Ours):
    """The same, where the ack of one message and the receipt of the next are one commit."""

    name = "ours, fused"
    note = "as ours; ack_and_receive makes it two commits a message instead of three"

    def cycle(self, batch: int, count: int) -> int:
        """Send, then ack the last and receive the next."""
        bus, ended = self.store.bus, 0
        bus.send_many([message() for _ in range(batch)])
        held = bus.receive(MAILBOX, max_messages=batch, lease=LEASE)
        for _ in range(count // batch - 1):
            bus.send_many([message() for _ in range(batch)])
            ended += len(held)
            held = bus.ack_and_receive(*held, max_messages=batch, lease=LEASE)
        bus.ack(*held)
        return ended + len(held)
