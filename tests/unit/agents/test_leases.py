from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

import pytest

from airflow_agentic.agents.leases import LeaseRenewer
from airflow_agentic.errors import StaleLease, StoreUnavailable
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.stores import open_store

LEASE = timedelta(milliseconds=150)


@pytest.fixture
def bus(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/agentic.db", options=BusOptions(lease=LEASE)) as store:
        yield store.bus


def take(bus, count=1):
    bus.send_many(Message(source="test", recipient="box") for _ in range(count))
    return bus.receive("box", max_messages=count)


def nothing():
    pass


def test_leases_are_kept_over_several_times_their_length(bus):
    deliveries = take(bus, 3)
    with LeaseRenewer(deliveries, LEASE, nothing):
        for _ in range(6):
            time.sleep(LEASE.total_seconds() / 2)
            assert bus.receive("box") == []
    bus.ack(*deliveries)
    assert bus.stats("box").done == 3


def test_without_it_the_lease_would_have_ended(bus):
    [delivery] = take(bus)
    time.sleep(LEASE.total_seconds() + 0.01)
    with pytest.raises(StaleLease):
        delivery.ack()


def test_it_stops_when_the_work_is_done(bus):
    [delivery] = take(bus)
    with LeaseRenewer([delivery], LEASE, nothing):
        pass
    assert not any(thread.name == "agentic-lease-renewer" for thread in threading.enumerate())
    time.sleep(LEASE.total_seconds() + 0.02)
    assert len(bus.receive("box")) == 1


def test_it_stops_when_the_work_raises(bus):
    with pytest.raises(ZeroDivisionError), LeaseRenewer(take(bus), LEASE, nothing):
        raise ZeroDivisionError
    assert not any(thread.name == "agentic-lease-renewer" for thread in threading.enumerate())


def test_each_tick_is_a_sign_of_life(bus):
    beats = []
    with LeaseRenewer(take(bus), LEASE, lambda: beats.append(1)):
        time.sleep(LEASE.total_seconds() * 1.2)
    assert 2 <= len(beats) <= 4


class Fragile:
    """A delivery whose renewal fails as it is told to."""

    delivery_id = 7

    def __init__(self, *script):
        self.script, self.tries = list(script), 0

    def extend(self, lease):
        self.tries += 1
        if self.script and (error := self.script.pop(0)):
            raise error


def renew(*deliveries, ticks=4):
    lease = timedelta(milliseconds=30)
    with LeaseRenewer(deliveries, lease, nothing):
        time.sleep(lease.total_seconds() / 3 * (ticks + 0.5))


def test_a_lease_that_is_lost_is_left_alone_and_the_others_are_kept(caplog):
    caplog.set_level(logging.WARNING)
    lost, kept = Fragile(StaleLease("gone")), Fragile()
    renew(lost, kept)
    assert lost.tries == 1
    assert kept.tries >= 2
    assert [r.getMessage() for r in caplog.records] == [
        "the lease of delivery 7 was lost while working on it"
    ]


def test_a_renewal_that_fails_is_tried_again(caplog):
    shaky = Fragile(StoreUnavailable("locked"), None, StoreUnavailable("locked"))
    renew(shaky, ticks=5)
    assert shaky.tries >= 3
    assert "was not renewed: locked" in caplog.text
