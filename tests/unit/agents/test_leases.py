from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

import pytest

from airflow_agentic.agents.leases import LeaseRenewer
from airflow_agentic.errors import StaleLease, StoreUnavailable
from airflow_agentic.messaging import BusOptions, Message, MessageBus
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
    with LeaseRenewer(bus, deliveries, LEASE, nothing):
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
    with LeaseRenewer(bus, [delivery], LEASE, nothing):
        pass
    assert not any(thread.name == "agentic-lease-renewer" for thread in threading.enumerate())
    time.sleep(LEASE.total_seconds() + 0.02)
    assert len(bus.receive("box")) == 1


def test_it_stops_when_the_work_raises(bus):
    with pytest.raises(ZeroDivisionError), LeaseRenewer(bus, take(bus), LEASE, nothing):
        raise ZeroDivisionError
    assert not any(thread.name == "agentic-lease-renewer" for thread in threading.enumerate())


def test_each_tick_is_a_sign_of_life(bus):
    beats = []
    with LeaseRenewer(bus, take(bus), LEASE, lambda: beats.append(1)):
        time.sleep(LEASE.total_seconds() * 1.2)
    assert 2 <= len(beats) <= 4


class Shaky(MessageBus):
    """A bus whose store is away for the first renewals."""

    def __init__(self, bus, failures):
        super().__init__(bus._store, bus.options)
        self.failures, self.tries = failures, 0

    def extend_all(self, deliveries, lease=None):
        self.tries += 1
        if self.tries <= self.failures:
            raise StoreUnavailable("locked")
        return super().extend_all(deliveries, lease)


def test_a_lease_that_is_lost_is_left_alone_and_the_others_are_kept(bus, caplog):
    caplog.set_level(logging.WARNING)
    lost, kept = take(bus, 2)
    lost.ack()
    with LeaseRenewer(bus, [lost, kept], LEASE, nothing):
        time.sleep(LEASE.total_seconds() * 2)
    assert [r.getMessage() for r in caplog.records] == [
        f"the lease of delivery {lost.delivery_id} was lost while working on it"
    ]
    kept.ack()


def test_a_renewal_that_fails_is_tried_again(bus, caplog):
    [delivery] = take(bus)
    shaky = Shaky(bus, failures=1)
    with LeaseRenewer(shaky, [delivery], LEASE, nothing):
        time.sleep(LEASE.total_seconds() * 2)
    assert shaky.tries >= 3
    assert "the leases of 1 deliveries were not renewed: locked" in caplog.text
    delivery.ack()


def test_a_thousand_leases_are_renewed_in_one_commit(bus):
    deliveries = take(bus, 1_000)
    before = [delivery.lease_until for delivery in deliveries]
    assert bus.extend_all(deliveries, timedelta(seconds=30)) == []
    assert all(d.lease_until > b for d, b in zip(deliveries, before, strict=True))
    bus.ack(*deliveries)
