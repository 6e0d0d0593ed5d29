"""Lanes: deliveries of one mailbox with one ordering key, in order and one at a time."""

from __future__ import annotations

import itertools

from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.testing.conformance.bench import LONG, Bench, Outcome, equal, said, true
from airflow_agentic.testing.conformance.promises import Capability, Chapter

lanes = Chapter()
ORDERING, REDRIVE = Capability.ORDERING, Capability.REDRIVE


@lanes.promise(ORDERING)
def a_lane_is_handed_out_one_at_a_time(bench: Bench) -> None:
    """Of those with one ordering key only the first open one is handed out."""
    bench.send_all(1, 2, key="k")
    bench.send(3, key="k")
    for expected in (1, 2, 3):
        claims = bench.claim(9)
        equal(said(claims), [expected], "what can be claimed")
        equal(claims[0].ordering_key, "k", "the ordering key of the claim")
        equal(bench.claim(9), [], "what can be claimed while the first is leased")
        bench.settle(claims[0])
    equal(bench.counts(), (0, 0, 3, 0), "(ready, leased, done, dead)")


@lanes.promise(ORDERING)
def a_lane_holds_up_nobody_else(bench: Bench) -> None:
    """A blocked lane holds up neither other keys, nor what has none, nor the same key elsewhere."""
    bench.send_all("k1", "k2", key="k")
    bench.send("l1", key="l")
    bench.send("none")
    bench.send("elsewhere", bench.to(bench.other), key="k")
    equal(said(bench.claim(1)), ["k1"], "the first claim")
    equal(said(bench.claim(9)), ["l1", "none"], "what can be claimed while a lane is leased")
    equal(said(bench.claim(9, mailbox=bench.other)), ["elsewhere"], "what another mailbox gives")


@lanes.promise(ORDERING)
def what_waits_in_a_lane_is_told_apart(bench: Bench) -> None:
    """What waits in a lane is ready, and is counted and shown as waiting."""
    bench.send_all(1, 2, 3, key="k")
    bench.send("free")
    stats = bench.stats()
    equal(
        (stats.ready, stats.waiting, stats.claimable, stats.delayed),
        (4, 2, 2, 0),
        "(ready, waiting, claimable, delayed)",
    )
    equal(
        [record.waiting for record in bench.find()],
        [False, True, True, False],
        "waiting, delivery by delivery",
    )
    bench.settle(bench.one())
    stats = bench.stats()
    equal(
        (stats.ready, stats.waiting, stats.done),
        (3, 1, 1),
        "(ready, waiting, done) after the first was acked",
    )


@lanes.promise(ORDERING)
def what_ends_in_any_way_lets_the_next_go(bench: Bench) -> None:
    """Whatever ends the first of a lane (ack, rejection, spent attempts), the next one can be claimed."""
    ways: tuple[tuple[Outcome, str], ...] = (
        ("ack", "an ack"),
        ("reject", "a rejection"),
        ("nack", "the last nack"),
    )
    for number, (outcome, how) in enumerate(ways):
        key = f"key-{number}"
        bench.send(f"first-{number}", bench.to(max_attempts=1), key=key)
        bench.send(f"next-{number}", key=key)
        bench.settle(bench.one(), outcome, reason="over")
        claim = bench.one()
        equal(said([claim]), [f"next-{number}"], f"what can be claimed after {how}")
        bench.settle(claim)


@lanes.promise(ORDERING)
def the_end_of_the_last_lease_lets_the_next_go(bench: Bench) -> None:
    """When the first of a lane spent its attempts by leases that ended, the next one can be claimed."""
    bench.send("kills its receiver", bench.to(max_attempts=1), key="k")
    bench.send("next", key="k")
    bench.one(bench.short)
    bench.let_pass()
    claims = bench.claim(9) or bench.claim(9)
    equal(said(claims), ["next"], "what can be claimed after the last lease ended")
    equal(bench.counts(), (0, 1, 0, 1), "(ready, leased, done, dead)")


@lanes.promise(ORDERING)
def who_comes_back_keeps_the_first_place(bench: Bench) -> None:
    """A first one that comes back (release, nack, ended lease) is still the first, and those behind wait."""
    bench.send_all(1, 2, key="k")
    bench.settle(bench.one(), "release")
    claims = bench.claim(9)
    equal(said(claims), [1], "what can be claimed after a release")
    bench.settle(claims[0], "nack")
    claims = bench.claim(9, bench.short)
    equal(said(claims), [1], "what can be claimed after a nack")
    bench.let_pass()
    equal(said(bench.claim(9)), [1], "what can be claimed after a lease ended")


@lanes.promise(ORDERING)
def a_nack_with_a_delay_holds_its_lane(bench: Bench) -> None:
    """While the first of a lane waits for its delay, the others of the lane wait too."""
    bench.send_all(1, 2, key="k")
    bench.send("free")
    bench.settle(bench.one(), "nack", delay=LONG)
    equal(said(bench.claim(9)), ["free"], "what can be claimed during the delay")


@lanes.promise(ORDERING)
def a_release_with_a_delay_holds_its_lane(bench: Bench) -> None:
    """While the first of a lane was given back for later, the others of the lane wait too; then it is the first."""
    bench.send_all(1, 2, key="k")
    bench.send("free")
    bench.settle(bench.one(), "release", delay=bench.short)
    equal(said(bench.claim(9)), ["free"], "what can be claimed during the delay")
    bench.let_pass()
    equal(said(bench.claim(9)), [1], "what can be claimed when the delay is over")


@lanes.promise(ORDERING, Capability.DELAYS)
def a_delayed_message_holds_its_lane(bench: Bench) -> None:
    """A message for later that is the first of its lane holds up those behind it."""
    bench.send("later", key="k", delay=LONG)
    bench.send("behind it", key="k")
    equal(bench.claim(9), [], "what can be claimed")
    equal([record.waiting for record in bench.find()], [False, True], "waiting, delivery by delivery")


@lanes.promise(ORDERING, Capability.PRIORITIES)
def priorities_do_not_overtake_in_a_lane(bench: Bench) -> None:
    """In a lane the order counts and not the priority."""
    bench.send("first", key="k", priority=0)
    bench.send("second", key="k", priority=5)
    bench.send("third", key="k", priority=9)
    for expected in ("first", "second", "third"):
        claim = bench.one()
        equal(said([claim]), [expected], "what can be claimed")
        bench.settle(claim)


@lanes.promise(ORDERING, Capability.EXPIRY)
def an_expired_message_lets_the_next_go(bench: Bench) -> None:
    """When the first of a lane expires, the next one can be claimed."""
    bench.send("of no use", key="k", ttl=bench.short)
    bench.send("next", key="k")
    bench.let_pass()
    claims = bench.claim(9) or bench.claim(9)
    equal(said(claims), ["next"], "what can be claimed")
    equal(bench.counts(), (0, 1, 0, 1), "(ready, leased, done, dead)")


@lanes.promise(ORDERING, Capability.EXPIRY, Capability.PURGE)
def a_purge_lets_the_next_go(bench: Bench) -> None:
    """When a purge buries the first of a lane, and some that wait, the next one can be claimed."""
    bench.send_all("of no use", "nor this", key="k", ttl=bench.short)
    bench.send("next", key="k")
    bench.let_pass()
    bench.store.books.purge(LONG, 1_000_000)
    equal(bench.counts(), (1, 0, 0, 2), "(ready, leased, done, dead) after the purge")
    equal([record.waiting for record in bench.find()], [False] * 3, "waiting, delivery by delivery")
    equal(said(bench.claim(9)), ["next"], "what can be claimed")


@lanes.promise(ORDERING, REDRIVE)
def a_redriven_delivery_waits_for_its_lane(bench: Bench) -> None:
    """A redriven delivery waits until the open one of its lane has ended; then the lowest number goes first."""
    number = bench.bury(1, key="k")
    bench.send_all(2, 3, key="k")
    second = bench.one()
    equal(bench.redrive(), [number], "what was redriven")
    true(
        bench.record(number).waiting, "a redriven delivery must wait while another one of its lane is leased"
    )
    equal(bench.claim(9), [], "what can be claimed while another one of the lane is leased")
    bench.settle(second)
    for expected in (1, 3):
        claims = bench.claim(9)
        equal(said(claims), [expected], "what can be claimed then")
        bench.settle(claims[0])


@lanes.promise(ORDERING, REDRIVE)
def several_redriven_ones_form_their_lane_again(bench: Bench) -> None:
    """Several that are redriven together are a lane again, in their order."""
    for number in (1, 2, 3):
        bench.bury(number, key="k")
    equal(len(bench.redrive()), 3, "the number of those redriven")
    equal([record.waiting for record in bench.find()], [False, True, True], "waiting, delivery by delivery")
    for expected in (1, 2, 3):
        claims = bench.claim(9)
        equal(said(claims), [expected], "what can be claimed")
        bench.settle(claims[0])


@lanes.promise(ORDERING, REDRIVE)
def a_redrive_elsewhere_joins_the_lane_there(bench: Bench) -> None:
    """Redriven to another mailbox, a delivery and its copies join the lanes of their key there."""
    number = bench.bury(1, key="k")
    bench.send("there already", bench.to(bench.other), key="k")
    bench.redrive(query=DeliveryQuery(ids=(number,)), to=(bench.other, bench.third))
    claim = bench.one(mailbox=bench.other)
    equal(said([claim]), ["there already"], "what the first mailbox gives")
    equal(bench.claim(9, mailbox=bench.other), [], "what it gives while that is leased")
    equal(said(bench.claim(9, mailbox=bench.third)), [1], "what the second mailbox gives")
    bench.settle(claim, mailbox=bench.other)
    equal(said(bench.claim(9, mailbox=bench.other)), [1], "what the first mailbox gives after the ack")


@lanes.promise(ORDERING)
def many_lanes_keep_their_order_whatever_fails(bench: Bench) -> None:
    """Many lanes keep their order while deliveries fail and come back."""
    keys = [f"key-{number}" for number in range(3)]
    for turn, key in itertools.product(range(4), keys):
        bench.send([key, turn], bench.to(max_attempts=100), key=key)
    handled: dict[str, list[int]] = {key: [] for key in keys}
    ways: itertools.cycle[Outcome] = itertools.cycle(
        ("ack", "nack", "release", "ack", "reject", "nack", "ack")
    )
    for _ in range(100):
        claims = bench.claim(3)
        for claim in claims:
            outcome = next(ways)
            [(key, turn)] = said([claim])
            if outcome in ("ack", "reject"):
                handled[key].append(turn)
            bench.settle(claim, outcome, delay=bench.short)
        if not claims and not bench.stats().open:
            break
        if not claims:
            bench.let_pass()
    equal(handled, {key: list(range(4)) for key in keys}, "what ended, key by key")
