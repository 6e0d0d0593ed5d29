"""A guard whose store is gone goes on as its policy says, and never becomes the failure itself."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import servers

from airflow_agentic.errors import CircuitOpen, GuardsUnavailable
from airflow_agentic.resilience import Breaker, BreakerState, Bulkhead, Policy, RateLimit, shared
from airflow_agentic.stores import open_store

_PATIENCE = {"postgresql": "&tcp_user_timeout=1000&connect_timeout=2", "redis": "?timeout=1"}
_BOUND = {"postgresql": 5, "redis": 2}
"""Seconds until a client is back from a black hole, as in ``test_network.py``."""

_LOGGER = shared.__name__
POLICY = Policy(breaker=Breaker(), limits=RateLimit(rate=1000), bulkhead=Bulkhead(max_concurrent=50))


@pytest.fixture(scope="module", params=["postgresql", "redis"])
def kind(request):
    return request.param


@pytest.fixture
def server(kind, tmp_path):
    with servers.of_kind(kind, tmp_path, own=True) as one:
        yield one


@pytest.fixture(autouse=True)
def short_pause(monkeypatch):
    monkeypatch.setattr(shared, "_PAUSE_SECONDS", 0.5)


def patient(url, kind):
    more = _PATIENCE[kind]
    return url + (more if "?" in url else more.replace("&", "?", 1))


def back_again(call):
    """Wait until the store was asked again."""
    end = time.monotonic() + 20
    while call() and time.monotonic() < end:
        time.sleep(0.1)


def is_let_through(guard):
    try:
        guard.call(int)
    except CircuitOpen:
        return False
    return True


def test_what_guards_know_survives_a_restart_of_the_server(server):
    with open_store(server.url) as store:
        store.breaker("conn:x").trip(reason="they move", actor="ann")
        guard = store.guard(POLICY, "conn:x")
        with pytest.raises(CircuitOpen, match="ann: they move"):
            guard.call(int)
        server.restart()
        with open_store(server.url) as other, pytest.raises(CircuitOpen, match="ann: they move"):
            other.guard(POLICY, "conn:x").call(int)
        time.sleep(1.1)  # until what this process remembers is too old
        back_again(
            lambda: is_let_through(guard)
        )  # while the server is not back yet, its policy lets calls go
        with pytest.raises(CircuitOpen, match="ann: they move"):
            guard.call(int)
        assert store.breaker("conn:x").state is BreakerState.FORCED_OPEN


def test_a_black_hole_is_waited_for_once_and_said_once(server, kind, caplog):
    with server.behind() as between, open_store(patient(server.url, kind)) as store:
        guard = store.guard(POLICY, "conn:x")
        strict = store.guard(POLICY.model_copy(update={"without_store": "open"}), "conn:x")
        assert guard.call(int) == 0
        between.swallow()
        with caplog.at_level(logging.WARNING, _LOGGER):
            began = time.monotonic()
            assert guard.call(int) == 0
            assert time.monotonic() - began < _BOUND[kind] + 2
            began = time.monotonic()
            with ThreadPoolExecutor(8) as pool:
                waited = list(pool.map(lambda _: _seconds(guard), range(40)))
            assert sorted(waited)[len(waited) // 2] < 0.2, "most calls waited for the store"
            with pytest.raises(GuardsUnavailable):
                strict.call(int)
        said = [record for record in caplog.records if record.name == _LOGGER]
        assert len(said) == 1, [record.message for record in said]
        between.heal()
        with caplog.at_level(logging.WARNING, _LOGGER):
            back_again(lambda: (guard.call(int), store.guarding.shared.is_alone)[1])
        assert not store.guarding.shared.is_alone
        assert strict.call(int) == 0
        said = [record.message for record in caplog.records if record.name == _LOGGER]
        assert said[1:] == ["the store of the guards is back"]


def _seconds(guard):
    began = time.monotonic()
    guard.call(int)
    return time.monotonic() - began


def test_a_change_whose_answer_was_lost_is_not_done_twice_nor_forgotten(server):
    policy = Policy(bulkhead=Bulkhead(max_concurrent=3, lease_seconds=60))
    with server.behind() as between, open_store(server.url) as store:
        guard = store.guard(policy, "conn:x")
        guard.call(int)
        happened = between.cut_answer()
        guard.call(int)
        assert happened.is_set()
        back_again(lambda: (guard.call(int), store.guarding.shared.is_alone)[1])
        # What the store took and nobody heard of is a lease: at most one, and it ends by itself.
        (slots,) = [len(doc["slots"]) for _, doc, _ in store.guarding.shared.listed("bulkhead", "conn:x")]
        assert slots <= 1
