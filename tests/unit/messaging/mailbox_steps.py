"""Small steps that the tests of the bus are made of."""

from __future__ import annotations

from datetime import timedelta

from airflow_agentic.messaging import Message
from airflow_agentic.messaging.ports import Address, DeliveryQuery, Outgoing

SECOND = timedelta(seconds=1)
BOX = "auditor"
OTHER = "legal"
ATTEMPTS = 3
LEASE = 60


def message(data=None, *, recipient=BOX, **values):
    return Message(source="scanner", recipient=recipient, data=data, **values)


def one(bus, mailbox=BOX):
    [delivery] = bus.receive(mailbox)
    return delivery


def record(bus, delivery_id=1):
    [found] = bus.find(DeliveryQuery(ids=(delivery_id,)))
    return found


def counts(bus, mailbox=BOX):
    stats = bus.stats(mailbox)
    return {"ready": stats.ready, "leased": stats.leased, "done": stats.done, "dead": stats.dead}


def bury(bus, data=None):
    """Put a message into the dead letters; return its number."""
    bus.send(message(data))
    delivery = one(bus)
    delivery.reject("no use")
    return delivery.delivery_id


def foreign(bus, envelope, *, message_id="foreign-1"):
    """Store bytes that this version did not write."""
    bus._store.messages.append(
        [Outgoing(message_id, "elsewhere", "c-1", envelope, (Address(BOX, ATTEMPTS),))]
    )
