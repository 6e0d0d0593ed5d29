"""Promise P2: a stale lease can do nothing, and a process that was stopped cannot know that its lease is one."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from puppet import puppet

from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores import open_store

LEASE = 2
EFFECTS = {"send": ["after"], "state": {"effect": True}, "inbox": "consumer"}
LATE: dict[str, tuple[str, dict[str, Any]]] = {
    "nobody-ack": ("ack", {}),
    "nobody-effects": ("ack", EFFECTS),
    "nobody-nack": ("nack", {}),
    "nobody-reject": ("reject", {}),
    "nobody-release": ("release", {}),
    "nobody-extend": ("extend", {}),
    "somebody-ack": ("ack", EFFECTS),
    "somebody-nack": ("nack", {}),
    "somebody-reject": ("reject", {}),
    "somebody-release": ("release", {}),
    "somebody-extend": ("extend", {}),
    "done-ack": ("ack", EFFECTS),
    "done-nack": ("nack", {}),
    "done-reject": ("reject", {}),
}
"""What the late one does, by mailbox: whose first word says who has the message by then."""


@dataclasses.dataclass
class Aftermath:
    bus: Any
    taken: dict[str, Any]
    answers: dict[str, Any]
    before: Any
    after: Any


@pytest.fixture(scope="module")
def aftermath(server):
    """A consumer took a message of each mailbox, was stopped until its leases had ended, and went on."""
    with open_store(server.url) as store, puppet(server.url, lease=LEASE) as consumer:
        bus = store.bus
        for box in LATE:
            assert consumer.ask("send", box=box, ids=[box]) == [True]
        for box in LATE:
            assert consumer.ask("receive", box=box) == [{"id": box, "attempt": 1}]
        consumer.stop()
        for box, (what, values) in LATE.items():
            consumer.tell(what, box=box, **values)
        time.sleep(1.2 * LEASE)
        taken = {box: bus.receive(box)[0] for box in LATE if not box.startswith("nobody")}
        for box, delivery in taken.items():
            if box.startswith("done"):
                delivery.ack(state={"effect": True}, inbox="consumer")
        before = seen(bus)
        consumer.go_on()
        answers = {box: consumer.hear() for box in LATE}
        yield Aftermath(bus, taken, answers, before, seen(bus))


def seen(bus):
    scopes = (*LATE, "inbox:consumer")
    counts = [dataclasses.replace(each, oldest_ready_seconds=None) for each in bus.mailboxes()]
    return bus.find(DeliveryQuery()), counts, [list(bus.state(scope).entries()) for scope in scopes]


def test_whatever_is_done_after_the_lease_is_refused(aftermath):
    errors = {box: answer["error"] for box, answer in aftermath.answers.items()}
    assert errors == dict.fromkeys(LATE, "StaleLease")


def test_and_changes_nothing_at_all(aftermath):
    assert aftermath.after == aftermath.before
    assert aftermath.bus.stats("after").total == 0


def test_the_message_is_still_there_for_others_and_whoever_has_it_keeps_it(aftermath):
    for box in LATE:
        if box.startswith("nobody"):
            [delivery] = aftermath.bus.receive(box)
            assert delivery.attempt == 2
            delivery.release()
        elif box.startswith("somebody"):
            aftermath.taken[box].extend()
