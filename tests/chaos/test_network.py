"""What a client does when its connection is cut at the worst moment, or nobody answers any more."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta

import pytest
import servers

from airflow_agentic.errors import StaleLease, StoreUnavailable
from airflow_agentic.messaging import BusOptions, Message
from airflow_agentic.stores import open_store

SILENCE = 1
PATIENCE = {
    # How long an answer is waited for before the server is asked whether it lives, and how long for the answer to that.
    "postgresql": f"&tcp_user_timeout={SILENCE * 1000}&connect_timeout=2",
    # How long an answer is waited for.
    "redis": f"?timeout={SILENCE}",
}
BOUND = {"postgresql": SILENCE + 2 + 2, "redis": 2 * SILENCE}
"""Seconds until a client is back from a black hole: what reads tries once more. By default 50 and 60."""

COMMITS = {"postgresql": b"COMMIT", "redis": b"EVAL"}
"""What is in the request that makes an ack's effects last."""


@pytest.fixture(scope="module", params=["postgresql", "redis"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def far(kind, tmp_path_factory):
    """A server with a proxy before it."""
    with servers.of_kind(kind, tmp_path_factory.mktemp("far"), own=True) as server:
        direct = server.url
        with open_store(direct) as store:
            # Redis has seen every script then: what is cut below is the answer to the request, not a call for its text.
            store.bus.send(Message(source="here", recipient="first"))
            [delivery] = store.bus.receive("first")
            delivery.ack(send=[Message(source="here", recipient="first")], state={"effect": True}, inbox="me")
            [delivery] = store.bus.receive("first")
            delivery.ack()
        with server.behind() as between:
            yield direct, server.url, between


@pytest.fixture
def direct(far):
    with open_store(far[0]) as store:
        yield store.bus


@pytest.fixture
def between(far):
    yield far[2]
    far[2].heal()


@pytest.fixture
def bus(kind, far, between):
    with open_store(far[1] + PATIENCE[kind], options=BusOptions(lease=timedelta(seconds=60))) as store:
        yield store.bus


@pytest.fixture
def box(request):
    return f"box-{abs(hash(request.node.name))}"


def unsure(call, *arguments, **values):
    """Do something whose answer is lost. The store may have asked again by itself, or says that it does not know."""
    with contextlib.suppress(StoreUnavailable):
        call(*arguments, **values)


@pytest.mark.parametrize("fate", ["cut_answer", "cut_request"])
def test_a_message_that_is_sent_again_because_nobody_said_that_it_arrived_is_there_once(
    bus, direct, between, box, fate
):
    message = Message(source="here", recipient=box, id=f"id-of-{box}")
    happened = getattr(between, fate)(message.id.encode())
    unsure(bus.send, message)
    assert happened.is_set()
    bus.send(message)
    assert direct.stats(box).total == 1


@pytest.mark.parametrize("fate", ["cut_answer", "cut_request"])
def test_so_are_the_messages_of_a_batch(kind, bus, direct, between, box, fate):
    batch = [Message(source="here", recipient=box, ordering_key="key", id=f"{n}-of-{box}") for n in range(5)]
    happened = getattr(between, fate)(COMMITS[kind])
    unsure(bus.send_many, batch)
    assert happened.is_set()
    bus.send_many(batch)
    assert direct.stats(box).total == 5
    [first] = bus.receive(box, max_messages=5)
    assert first.message.id == batch[0].id


def test_an_ack_whose_answer_is_lost_took_effect_once_and_is_refused_when_it_is_repeated(
    kind, bus, direct, between, box
):
    direct.send(Message(source="here", recipient=box, ordering_key="key"))
    direct.send(Message(source="here", recipient=box, ordering_key="key", id=f"second-of-{box}"))
    [delivery] = bus.receive(box)
    effects = {
        "send": [Message(source="here", recipient=f"{box}-after")],
        "state": {"effect": True},
        "inbox": "me",
    }
    happened = between.cut_answer(COMMITS[kind])
    unsure(delivery.ack, **effects)
    assert happened.is_set()
    with pytest.raises(StaleLease):
        delivery.ack(**effects)
    assert direct.stats(box).done == 1
    assert direct.stats(f"{box}-after").total == 1
    assert direct.state(box).version("effect") == 1
    [following] = bus.receive(box)
    assert following.message.id == f"second-of-{box}"


def test_an_ack_that_never_arrived_can_be_repeated(kind, bus, direct, between, box):
    direct.send(Message(source="here", recipient=box))
    [delivery] = bus.receive(box)
    happened = between.cut_request(COMMITS[kind])
    unsure(delivery.ack, state={"effect": True})
    assert happened.is_set()
    with contextlib.suppress(StaleLease):  # if the store asked again by itself
        delivery.ack(state={"effect": True})
    assert direct.stats(box).done == 1
    assert direct.state(box).version("effect") == 1


def test_a_message_that_was_handed_out_to_nobody_comes_again_when_its_lease_is_over(
    bus, direct, between, box
):
    direct.send(Message(source="here", recipient=box))
    happened = between.cut_answer(box.encode())
    found = []
    with contextlib.suppress(StoreUnavailable):
        found = bus.receive(box, lease=timedelta(seconds=1))
    assert happened.is_set()
    deadline = time.monotonic() + 10
    while not found and time.monotonic() < deadline:
        found = bus.receive(box)
    [delivery] = found
    delivery.ack()
    assert direct.stats(box).done == 1


def test_a_connection_that_was_reset_while_nobody_used_it_is_replaced_in_silence(bus, between, box):
    bus.send(Message(source="here", recipient=box))
    between.reset()
    time.sleep(0.1)
    assert len(bus.receive(box)) == 1


def test_an_answer_that_takes_its_time_is_waited_for(bus, between, box):
    between.delay(0.15)
    bus.send(Message(source="here", recipient=box))
    [delivery] = bus.receive(box)
    delivery.ack()
    assert bus.stats(box).done == 1


def test_a_client_comes_back_from_a_black_hole_and_is_well_when_it_is_gone(kind, bus, between, box):
    sent, unsent = (
        Message(source="here", recipient=box, id=f"{name}-of-{box}") for name in ("sent", "unsent")
    )
    bus.send(sent)
    between.swallow()
    for call in (lambda: bus.send(unsent), lambda: bus.receive(box)):
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - begun < BOUND[kind] + 3
    between.heal()
    bus.send(unsent)
    assert bus.stats(box).total == 2


def test_a_new_client_comes_back_from_a_black_hole_too(kind, far, between):
    between.swallow()
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        open_store(far[1] + PATIENCE[kind])
    assert time.monotonic() - begun < BOUND[kind] + 3


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True, scope="module")
def test_a_statement_that_takes_long_is_not_taken_for_a_black_hole(kind, bus):
    database = bus._store.messages._db
    assert database.fetch(f"SELECT pg_sleep({3 * SILENCE})")
