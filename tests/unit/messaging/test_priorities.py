"""What comes first, on every store."""

from __future__ import annotations

from datetime import timedelta

import pytest
from mailbox_steps import BOX, LEASE, SECOND, message, one

from airflow_agentic.errors import InvalidMessage
from airflow_agentic.messaging.codec import to_event


def data(deliveries):
    return [delivery.message.data for delivery in deliveries]


def test_higher_priorities_come_first_and_within_one_the_older_ones(bus):
    for name, priority in (("low", 0), ("usual 1", 4), ("high", 9), ("usual 2", 4)):
        bus.send(message(name, priority=priority))
    assert data(bus.receive(BOX, max_messages=3)) == ["high", "usual 1", "usual 2"]
    assert data(bus.receive(BOX)) == ["low"]


def test_a_message_that_says_nothing_has_priority_four(bus):
    bus.send(message("usual"))
    bus.send(message("lower", priority=3))
    bus.send(message("higher", priority=5))
    assert data(bus.receive(BOX, max_messages=3)) == ["higher", "usual", "lower"]


def test_a_flood_of_low_ones_does_not_hide_a_high_one(bus):
    bus.send_many(message(number, priority=0) for number in range(300))
    bus.send(message("urgent", priority=9))
    assert one(bus).message.data == "urgent"


def test_a_delayed_high_one_lets_the_others_go_first(bus, clock):
    bus.send(message("high", priority=9), delay=5 * SECOND)
    bus.send(message("low", priority=1))
    bus.send(message("lower", priority=0))
    assert one(bus).message.data == "low"
    clock.advance(5)
    assert one(bus).message.data == "high"
    assert one(bus).message.data == "lower"


def test_one_that_failed_keeps_its_priority(bus, clock):
    bus.send(message("high", priority=9))
    bus.send(message("low", priority=1))
    one(bus).nack(delay=timedelta(0))
    again = one(bus)
    assert (again.message.data, again.attempt, again.message.priority) == ("high", 2, 9)
    clock.advance(LEASE)
    assert data(bus.receive(BOX, max_messages=2)) == ["high", "low"]


def test_a_redriven_one_keeps_its_priority(bus):
    bus.send(message("high", priority=9))
    one(bus).reject("no")
    bus.send(message("usual"))
    bus.redrive(1, actor="ana", reason="mended")
    assert data(bus.receive(BOX, max_messages=2)) == ["high", "usual"]


@pytest.mark.parametrize("priority", [-1, 10, 4.5, "7", True, None])
def test_what_is_no_priority_is_refused(priority):
    with pytest.raises(InvalidMessage, match="priority"):
        message(priority=priority)


@pytest.mark.parametrize("priority", range(10))
def test_every_priority_arrives_and_only_the_usual_one_is_not_written(bus, priority):
    sent = message(priority=priority)
    bus.send(sent)
    assert one(bus).message.priority == priority
    assert to_event(sent).get("priority", 4) == priority
