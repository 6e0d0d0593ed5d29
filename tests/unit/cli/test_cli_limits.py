from __future__ import annotations

import contextlib

from commandline import Run

from airflow_agentic.resilience import Bulkhead, Policy, RateLimit
from airflow_agentic.stores import Store


def test_a_rate_shows_what_is_in_use_and_the_next_turn(on_store: Run, store: Store) -> None:
    bucket = store.guard(Policy(limits=RateLimit(rate=4, per_seconds=3600)), "conn:primary")
    window = store.guard(
        Policy(limits=RateLimit(rate=3, per_seconds=600, algorithm="sliding_window")), "tool:search"
    )
    for _ in range(4):
        bucket.call(lambda: None)
    window.call(lambda: None)

    ended = on_store("limits", "list", "-o", "json")
    primary, search = ended.json
    shown = on_store("limits", "list", "-o", "plain").out

    assert (primary["kind"], primary["key"], primary["in_use"], primary["allowed"], primary["free"]) == (
        "rate", "conn:primary", 4, 4, False,
    )  # fmt: skip
    assert (search["key"], search["in_use"], search["allowed"], search["free"]) == ("tool:search", 1, 3, True)
    assert "4 in 3600 s (token bucket)" in shown
    assert "in 14 min 5" in shown
    assert "1 limit of 2 used up now" in ended.err


def test_a_bulkhead_shows_its_slots_and_when_their_leases_end(on_store: Run, store: Store) -> None:
    policy = Policy(bulkhead=Bulkhead(max_concurrent=2))
    with contextlib.ExitStack() as calls:
        calls.enter_context(store.guard(policy, "conn:primary").attempt())
        one = on_store("limits", "list", "-o", "json").json[0]
        calls.enter_context(store.guard(policy, "conn:primary").attempt())
        two = on_store("limits", "list", "-o", "json").json[0]
        shown = on_store("limits", "list", "-o", "plain").out
    after = on_store("limits", "list", "-o", "json").json[0]

    assert (one["kind"], one["in_use"], one["allowed"], one["free"]) == ("slots", 1, 2, True)
    assert (two["in_use"], two["free"], two["free_at"], len(two["leases"])) == (2, False, None, 2)
    assert "when a call returns" in shown
    assert (after["in_use"], after["free"]) == (0, True)


def test_a_prefix_picks_some(on_store: Run, store: Store) -> None:
    for key in ("conn:a", "tool:b"):
        store.guard(Policy(limits=RateLimit(rate=4), bulkhead=Bulkhead(max_concurrent=2)), key).call(
            lambda: None
        )

    found = on_store("limits", "list", "--prefix", "tool:", "-o", "json").json

    assert [(each["kind"], each["key"]) for each in found] == [("rate", "tool:b"), ("slots", "tool:b")]


def test_without_any_the_list_is_empty(on_store: Run, store: Store) -> None:
    ended = on_store("limits", "list", "-o", "json")

    assert ended.json == []
    assert "no call went through a limit or a bulkhead yet" in ended.err
