"""What every store must do: hand deliveries out, and let nobody do anything without a lease."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from airflow_agentic.errors import StaleLease
from airflow_agentic.messaging.delivery import DeliveryState
from airflow_agentic.messaging.message import DEFAULT_PRIORITY
from airflow_agentic.messaging.ports import Claim
from airflow_agentic.testing.conformance.bench import (
    ATTEMPTS,
    LONG,
    Bench,
    Outcome,
    equal,
    refused,
    said,
    true,
)
from airflow_agentic.testing.conformance.promises import Capability, Chapter

leases = Chapter()
OUTCOMES: tuple[Outcome, ...] = ("ack", "nack", "reject", "release")


@leases.promise()
def what_was_stored_is_handed_out(bench: Bench) -> None:
    """What was stored is handed out as it was."""
    sent = bench.outgoing({"ü": ["漢字", 1, 2.5, None, True]})
    equal(bench.store.messages.append([sent]), [True], "the answer to a new message")
    claim = bench.one()
    equal(claim.envelope, sent.envelope, "the envelope")
    equal((claim.attempt, claim.max_attempts), (1, ATTEMPTS), "(attempt, max_attempts)")
    equal((claim.ordering_key, claim.priority), (None, DEFAULT_PRIORITY), "(ordering_key, priority)")


@leases.promise()
def bytes_are_kept_as_they_are(bench: Bench) -> None:
    """Envelopes are bytes: small ones, large ones and those that nobody can read."""
    for number, envelope in enumerate((b"\x00\xff\xfe not JSON", b"", b"x" * 1_000_000)):
        bench.store.messages.append([bench.outgoing(envelope=envelope)])
        claim = bench.one()
        true(claim.envelope == envelope, f"envelope {number} was changed")
        record = bench.record(claim.delivery_id)
        true(record.message is None, "find() must have no message where the envelope cannot be read")
        true(bool(record.reason), "find() must say why an envelope cannot be read")
        bench.settle(claim, "reject", reason="nobody can read it")
    equal(bench.counts(), (0, 0, 0, 3), "(ready, leased, done, dead) after they were rejected")


@leases.promise()
def a_mailbox_gives_only_its_own(bench: Bench) -> None:
    """A mailbox gives only its own deliveries, and an unknown one gives none."""
    bench.send("mine")
    bench.send("theirs", bench.to(bench.other))
    equal(said(bench.claim(9, mailbox=bench.other)), ["theirs"], "what the other mailbox gives")
    equal(bench.claim(9, mailbox=bench.third), [], "what a mailbox without deliveries gives")
    equal(said(bench.claim(9)), ["mine"], "what the first mailbox gives")


@leases.promise()
def what_came_first_is_handed_out_first(bench: Bench) -> None:
    """Deliveries are handed out in the order they were stored, at most so many as were asked for."""
    bench.send_all(0, 1, 2)
    bench.send(3)
    bench.send(4)
    equal(said(bench.claim(3)), [0, 1, 2], "the first three")
    equal(said(bench.claim(3)), [3, 4], "the rest")
    equal(bench.claim(3), [], "what is left")


@leases.promise()
def a_leased_delivery_is_given_to_nobody_else(bench: Bench) -> None:
    """A leased delivery is given to nobody else."""
    bench.send("one")
    claim = bench.one()
    equal(bench.claim(9), [], "what a second receiver gets")
    record = bench.record(claim.delivery_id)
    equal(
        (record.state, record.attempts, record.owner),
        (DeliveryState.LEASED, 1, "worker"),
        "(state, attempts, owner)",
    )


@leases.promise()
def every_lease_has_a_token_of_its_own(bench: Bench) -> None:
    """Every lease has a token of its own, which cannot be guessed, also of the same delivery."""
    bench.send_all(1, 2)
    first, second = bench.claim(2)
    bench.settle(first, "release")
    again = bench.one()
    tokens = {first.token, second.token, again.token}
    equal(len(tokens), 3, "the number of different tokens of three leases")
    true(min(map(len, tokens)) >= 16, f"a token of {min(map(len, tokens))} characters can be guessed")


@leases.promise()
def a_lease_that_ended_gives_the_delivery_to_the_next(bench: Bench) -> None:
    """When a lease ended, the next claim gets the delivery, and the history says whose lease it was."""
    bench.send("one")
    first = bench.one(bench.short)
    bench.let_pass()
    again = bench.one()
    equal(
        (again.delivery_id, again.attempt),
        (first.delivery_id, 2),
        "(delivery_id, attempt) of the second claim",
    )
    history = bench.record(again.delivery_id).history
    events = [(entry.event, entry.attempt, entry.actor) for entry in history]
    equal(events, [("lease-expired", 1, "worker")], "the history (event, attempt, actor)")


def _stale_does_nothing(bench: Bench, claim: Claim, token: str, when: str) -> None:
    before = bench.record(claim.delivery_id)
    for outcome in OUTCOMES:
        with refused(StaleLease, f"{outcome} {when}"):
            bench.settle(claim, outcome, token=token, reason="late")
    ends = bench.store.messages.extend({claim.delivery_id: token}, LONG)
    equal(ends, {}, f"the leases that extend() found {when}")
    equal(bench.record(claim.delivery_id), before, f"the delivery after settling {when}")


@leases.promise()
def an_ended_lease_can_do_nothing(bench: Bench) -> None:
    """A lease that ended can do nothing, even if nobody else claimed the delivery."""
    bench.send("one")
    claim = bench.one(bench.short)
    bench.let_pass()
    _stale_does_nothing(bench, claim, claim.token, "after the lease ended")
    bench.one()


@leases.promise()
def a_lost_lease_can_do_nothing(bench: Bench) -> None:
    """A lease that somebody else holds now can do nothing to theirs."""
    bench.send("one")
    late = bench.one(bench.short)
    bench.let_pass()
    holder = bench.one()
    _stale_does_nothing(bench, late, late.token, "after somebody else claimed the delivery")
    bench.settle(holder)
    equal(bench.counts(), (0, 0, 1, 0), "(ready, leased, done, dead) after the holder acked")


@leases.promise()
def a_settled_lease_can_do_nothing(bench: Bench) -> None:
    """A lease that was settled can do nothing more."""
    for outcome in OUTCOMES:
        bench.send(outcome)
        claim = bench.one()
        bench.settle(claim, outcome, delay=timedelta(0) if outcome == "release" else LONG)
        _stale_does_nothing(bench, claim, claim.token, f"after {outcome}")
        if outcome == "release":
            bench.settle(bench.one())


@leases.promise()
def a_token_that_is_not_its_own_can_do_nothing(bench: Bench) -> None:
    """A lease needs its own token: neither an invented one will do, nor that of another delivery."""
    bench.send_all(1, 2)
    one, two = bench.claim(2)
    for token, whose in (
        ("0" * len(one.token), "an invented one"),
        ("", "none"),
        (two.token, "another one's"),
    ):
        _stale_does_nothing(bench, one, token, f"with {whose} for a token")
    bench.settle(one)
    bench.settle(two)


@leases.promise()
def a_lease_of_nothing_is_stale(bench: Bench) -> None:
    """Settling a delivery that is not there is refused."""
    bench.send("one")
    claim = bench.one()
    missing = replace(bench.settlement(claim), delivery_id=2**53)
    with refused(StaleLease, "ack of a delivery that is not there"):
        bench.store.messages.settle([missing])
    equal(
        bench.store.messages.extend({2**53: claim.token}, LONG),
        {},
        "the leases that extend() found of nothing",
    )


@leases.promise()
def one_stale_lease_stops_the_whole_settlement(bench: Bench) -> None:
    """Deliveries that are settled together are settled all or none."""
    bench.send_all(1, 2, 3)
    first, stale, last = bench.claim(3)
    bench.settle(stale, "release")
    for order in ((first, stale, last), (stale, first), (last, stale)):
        with refused(StaleLease, "a settlement with one stale lease"):
            bench.store.messages.settle([bench.settlement(claim) for claim in order])
        equal(bench.counts(), (1, 2, 0, 0), "(ready, leased, done, dead) after it was refused")
    bench.store.messages.settle([bench.settlement(first), bench.settlement(last, "reject", reason="no")])
    equal(
        bench.counts(), (1, 0, 1, 1), "(ready, leased, done, dead) after the two that are held were settled"
    )


@leases.promise()
def a_lease_can_be_extended_and_cut_short(bench: Bench) -> None:
    """An extension counts from now: it can make a lease longer, and shorter."""
    bench.send_all(1, 2, 3)
    longer, shorter, stale = bench.claim(3)
    bench.settle(stale, "release")
    ends = bench.store.messages.extend(
        {longer.delivery_id: longer.token, stale.delivery_id: stale.token}, 2 * LONG
    )
    equal(set(ends), {longer.delivery_id}, "the deliveries that extend() found of one held and one stale")
    true(
        ends[longer.delivery_id] > longer.lease_until, "a lease that was extended by more time ends no later"
    )
    visible = bench.record(longer.delivery_id).visible_at
    true(
        visible > longer.lease_until,
        f"find() says that the extended lease ends {visible}, which is when it did before",
    )
    bench.store.messages.extend({shorter.delivery_id: shorter.token}, bench.short)
    bench.let_pass()
    with refused(StaleLease, "ack after a lease that was cut short"):
        bench.settle(shorter)
    bench.settle(longer)
    equal(sorted(said(bench.claim(9))), [2, 3], "what can be claimed then")


@leases.promise(Capability.MOVABLE_CLOCK)
def a_lease_lasts_as_long_as_it_says(bench: Bench) -> None:
    """A lease lasts until its last moment, and not a moment longer."""
    clock = bench.own_clock()
    bench.send("one")
    start = clock()
    claim = bench.one(10 * bench.short)
    true(
        abs((claim.lease_until - start - 10 * bench.short).total_seconds()) < 0.01,
        "lease_until is not now + lease",
    )
    clock.advance(9.9 * bench.short)
    equal(bench.claim(), [], "what another one gets just before the end of the lease")
    ends = bench.store.messages.extend({claim.delivery_id: claim.token}, 10 * bench.short)
    true(
        abs((ends[claim.delivery_id] - clock() - 10 * bench.short).total_seconds()) < 0.01,
        "the new end is not now + lease",
    )
    clock.advance(9.9 * bench.short)
    bench.store.messages.extend({claim.delivery_id: claim.token}, bench.short)
    clock.advance(bench.short)
    with refused(StaleLease, "ack at the end of the lease"):
        bench.settle(claim)
    equal(bench.one().attempt, 2, "the attempt of the next one at the end of the lease")


@leases.promise()
def leases_that_end_spend_the_attempts(bench: Bench) -> None:
    """When the lease of the last attempt ended, the delivery is dead, and does not hide what is behind it."""
    bench.send("kills its receiver", bench.to(max_attempts=2))
    for attempt in (1, 2):
        claim = bench.one(bench.short)
        equal(claim.attempt, attempt, "the attempt")
        bench.let_pass()
    bench.send("fine")
    equal(said(bench.claim(1)), ["fine"], "what is claimed after that")
    dead = bench.record(claim.delivery_id)
    equal(dead.state, DeliveryState.DEAD, "the state of what spent its attempts")
    true(
        "attempts spent" in str(dead.reason),
        f"the reason must say that the attempts are spent, it is {dead.reason!r}",
    )
    equal([entry.event for entry in dead.history], ["lease-expired"] * 2, "its history")
