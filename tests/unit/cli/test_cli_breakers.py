from __future__ import annotations

import contextlib
from typing import Any

import pytest
from commandline import Run, change

from airflow_agentic.messaging import Message
from airflow_agentic.resilience import Breaker, BreakerState, Policy
from airflow_agentic.resilience.ports import GuardKey
from airflow_agentic.stores import Store

POLICY = Policy(breaker=Breaker(minimum_calls=2, window_size=4, open_seconds=600, max_open_seconds=600))


def call(store: Store, key: str, *, fails: int = 0, goes_well: int = 0) -> None:
    guard = store.guard(POLICY, key)

    def fail() -> None:
        raise ConnectionError("nobody answers")

    for _ in range(goes_well):
        guard.call(lambda: None)
    for _ in range(fails):
        with contextlib.suppress(ConnectionError):
            guard.call(fail)
    store.guarding.close()


@pytest.fixture
def outage(store: Store) -> None:
    """One thing is down, another is well."""
    call(store, "conn:primary", fails=2)
    call(store, "tool:search", goes_well=3)


@pytest.mark.usefixtures("outage")
def test_list_shows_how_each_stands_and_why(on_store: Run) -> None:
    ended = on_store("breakers", "list", "-o", "json")
    primary, search = ended.json
    shown = on_store("breakers", "list", "-o", "plain").out

    assert (primary["key"], primary["state"], primary["trips"]) == ("conn:primary", "open", 1)
    assert primary["reason"] == "2 of 2 calls failed"
    assert (search["key"], search["state"], search["calls"], search["failed"]) == (
        "tool:search",
        "closed",
        3,
        0,
    )
    assert ended.err.strip() == "1 breaker of 2 open"
    assert "in 9 min 5" in shown
    assert "0 of 3" in shown


@pytest.mark.usefixtures("outage")
def test_list_can_be_about_some_of_them(on_store: Run) -> None:
    assert [each["key"] for each in on_store("breakers", "list", "--prefix", "tool:", "-o", "json").json] == [
        "tool:search"
    ]
    assert "whose key begins with 'agent:'" in on_store("breakers", "list", "--prefix", "agent:").err


def test_of_a_store_without_breakers_the_list_is_empty(on_store: Run, store: Store) -> None:
    ended = on_store("breakers", "list", "-o", "json")

    assert (ended.code, ended.json) == (0, [])
    assert "no call went through a breaker yet" in ended.err


@pytest.mark.usefixtures("outage")
def test_show_has_window_settings_history_and_the_command_to_close_it(on_store: Run, store: Store) -> None:
    shown = on_store("breakers", "show", "conn:primary").out
    data = on_store("breakers", "show", "conn:primary", "-o", "json").json

    assert "Next probe  in 9 min 5" in shown
    assert '"minimum_calls": 2' in shown
    assert "closed -> open  2 of 2 calls failed" in shown
    assert f"airflow agentic breakers reset conn:primary --reason 'why' --store-url {store.url}" in shown
    assert data["settings"]["window_size"] == 4
    assert [(each["from"], each["to"], each["actor"]) for each in data["history"]] == [("closed", "open", "")]
    assert data["history"][0]["at"].endswith("Z")


@pytest.mark.usefixtures("outage")
def test_an_open_one_whose_time_is_over_is_half_open_and_waits_for_a_probe(
    on_store: Run, store: Store
) -> None:
    def an_hour_passes(doc: dict[str, Any]) -> None:
        doc["until"] -= 3600

    change(store, GuardKey("breaker", "conn:primary"), an_hour_passes)

    assert on_store("breakers", "list", "-o", "json").json[0]["state"] == "half_open"
    assert "half_open" in on_store("breakers", "show", "conn:primary").out
    assert "Next probe  now" in on_store("breakers", "show", "conn:primary").out


@pytest.mark.usefixtures("outage")
def test_what_was_set_by_hand_for_a_time_is_closed_when_it_is_over(on_store: Run, store: Store) -> None:
    def an_hour_passes(doc: dict[str, Any]) -> None:
        doc["until"] -= 3600

    on_store("breakers", "trip", "tool:search", "--reason", "x", "--for", "10m", "--actor", "ana")
    change(store, GuardKey("breaker", "tool:search"), an_hour_passes)

    shown = on_store("breakers", "list", "--prefix", "tool:", "-o", "plain").out
    assert "closed" in shown
    assert "the time set by ana is over" in shown


@pytest.mark.usefixtures("outage")
def test_show_of_an_unknown_key_says_that_it_is_closed_and_what_may_be_meant(on_store: Run) -> None:
    ended = on_store("breakers", "show", "conn:primray")

    assert ended.code == 1
    assert "no call went through the breaker 'conn:primray' yet" in ended.err
    assert "Did you mean 'conn:primary'?" in ended.err


@pytest.mark.usefixtures("outage")
def test_trip_stops_all_calls_and_keeps_who_and_why(on_store: Run, store: Store) -> None:
    ended = on_store(
        "breakers", "trip", "tool:search", "--reason", "index is rebuilt", "--actor", "ana", "-o", "json"
    )

    assert (ended.code, ended.json[0]["state"], ended.json[0]["until"]) == (0, "forced_open", None)
    assert store.breaker("tool:search").state is BreakerState.FORCED_OPEN
    last = on_store("breakers", "show", "tool:search", "-o", "json").json["history"][-1]
    assert (last["actor"], last["reason"]) == ("ana", "index is rebuilt")
    assert "ana: index is rebuilt" in on_store("breakers", "list", "-o", "plain").out
    assert "when it is reset" in on_store("breakers", "list", "-o", "plain").out
    assert "it ends with: airflow agentic breakers reset tool:search" in ended.err


@pytest.mark.usefixtures("outage")
def test_what_is_set_for_a_time_says_when_it_ends(on_store: Run, store: Store) -> None:
    tripped = on_store("breakers", "trip", "tool:search", "--reason", "x", "--for", "10m")
    held = on_store("breakers", "force-closed", "conn:primary", "--reason", "x", "--for", "2h", "-o", "plain")

    assert "it ends at 2" in tripped.err
    assert "ends in 1 h 59 min" in held.out
    assert store.breaker("conn:primary").state is BreakerState.FORCED_CLOSED


@pytest.mark.usefixtures("outage")
def test_reset_closes_it_and_forgets_all_results(on_store: Run, store: Store) -> None:
    ended = on_store("breakers", "reset", "conn:primary", "--reason", "provider is back", "-o", "json")

    assert (ended.code, ended.json[0]["state"], ended.json[0]["calls"]) == (0, "closed", 0)
    assert ended.err == ""
    assert store.breaker("conn:primary").view().actor


@pytest.mark.usefixtures("outage")
def test_reset_of_what_nobody_knows_is_refused(on_store: Run, store: Store) -> None:
    ended = on_store("breakers", "reset", "primary", "--reason", "x")

    assert ended.code == 1
    assert "Did you mean 'conn:primary'?" in ended.err
    assert [view.key for view in store.guarding.breakers()] == ["conn:primary", "tool:search"]


@pytest.mark.usefixtures("outage")
def test_trip_of_what_nobody_called_yet_holds_and_asks_whether_it_was_meant(
    on_store: Run, store: Store
) -> None:
    ended = on_store("breakers", "trip", "tool:serach", "--reason", "not before monday")

    assert ended.code == 0
    assert store.breaker("tool:serach").state is BreakerState.FORCED_OPEN
    assert "no call went through 'tool:serach' yet" in ended.err
    assert "Did you mean 'tool:search'?" in ended.err


@pytest.mark.usefixtures("outage")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--reason", " "], "reason= and actor="),
        (["--reason", "x", "--for", "0"], "give a time above zero"),
        (["--reason", "x", "--for", "9999999d"], "is for ever: leave it out"),
    ],
)
def test_what_cannot_be_set_is_refused_in_one_line(on_store: Run, words: list[str], told: str) -> None:
    ended = on_store("breakers", "trip", "conn:primary", *words)

    assert ended.code == 1
    assert told in ended.err
    assert "Traceback" not in ended.err


def test_a_reason_is_asked_for(on_store: Run, store: Store) -> None:
    assert on_store("breakers", "trip", "conn:primary").code == 2


@pytest.mark.usefixtures("outage")
def test_whoever_subscribed_hears_of_what_a_person_did(on_store: Run, store: Store) -> None:
    store.bus.subscribe("on-call", "agentic.breakers.#")

    on_store("breakers", "trip", "tool:search", "--reason", "x", "--actor", "ana")
    [delivery] = store.bus.receive("on-call")

    assert isinstance(delivery.message, Message)
    assert (delivery.message.type, delivery.message.subject) == (
        "agentic.breakers.forced_open",
        "tool:search",
    )
    assert delivery.message.data["actor"] == "ana"
