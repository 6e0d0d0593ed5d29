"""How deliveries end: what every store must do, and what one commit means."""

from __future__ import annotations

from airflow_agentic.errors import MailboxFull, StaleLease, StateConflict
from airflow_agentic.messaging.delivery import DeliveryState
from airflow_agentic.testing.conformance.bench import ATTEMPTS, LONG, Bench, equal, refused, said, true
from airflow_agentic.testing.conformance.promises import Capability, Chapter

settling = Chapter()


@settling.promise()
def an_acked_delivery_never_comes_again(bench: Bench) -> None:
    """An acked delivery is done and never comes again."""
    bench.send("one")
    claim = bench.one(bench.short)
    bench.settle(claim)
    bench.let_pass()
    equal(bench.claim(9), [], "what can be claimed after the ack")
    record = bench.record(claim.delivery_id)
    equal(
        (record.state, record.reason, record.history),
        (DeliveryState.DONE, None, ()),
        "(state, reason, history)",
    )


@settling.promise()
def a_nacked_delivery_comes_again_after_its_delay(bench: Bench) -> None:
    """A nacked delivery comes again when its delay is over, with one more attempt."""
    bench.send_all("soon", "later")
    soon, later = bench.claim(2)
    bench.settle(later, "nack", delay=LONG, reason="service down")
    bench.settle(soon, "nack", delay=bench.short, reason="service down")
    record = bench.record(later.delivery_id)
    equal(
        (record.state, record.reason), (DeliveryState.READY, "service down"), "(state, reason) after the nack"
    )
    bench.let_pass()
    claims = bench.claim(9)
    equal(said(claims), ["soon"], "what can be claimed when a short delay is over")
    equal(claims[0].attempt, 2, "its attempt")


@settling.promise()
def spent_attempts_end_in_the_dead_letters(bench: Bench) -> None:
    """After its last attempt a nacked delivery is dead, with every failure in its history."""
    bench.send("one")
    for attempt in range(1, ATTEMPTS + 1):
        claim = bench.one()
        equal(claim.attempt, attempt, "the attempt")
        bench.settle(claim, "nack", reason=f"failure {attempt}")
    equal(bench.claim(9), [], "what can be claimed after the last attempt")
    dead = bench.record(claim.delivery_id)
    equal((dead.state, dead.attempts), (DeliveryState.DEAD, ATTEMPTS), "(state, attempts)")
    equal(dead.reason, f"attempts spent: failure {ATTEMPTS}", "the reason")
    history = [(entry.event, entry.attempt, entry.actor, entry.detail) for entry in dead.history]
    expected = [("nack", attempt, "worker", f"failure {attempt}") for attempt in range(1, ATTEMPTS + 1)]
    equal(history, expected, "the history (event, attempt, actor, detail)")


@settling.promise()
def a_rejected_delivery_is_dead_at_once(bench: Bench) -> None:
    """A rejected delivery is dead at once and keeps the reason, whatever is written in it."""
    reason = "line 1\nline 2: ü, 漢字, 'quoted', \"twice\", 100%, ${x}, {y}, ?, :z, \\"
    bench.send("one")
    claim = bench.one()
    bench.settle(claim, "reject", reason=reason)
    equal(bench.claim(9), [], "what can be claimed after the rejection")
    dead = bench.record(claim.delivery_id)
    equal((dead.state, dead.reason), (DeliveryState.DEAD, reason), "(state, reason)")
    equal(
        [(entry.event, entry.detail) for entry in dead.history],
        [("reject", reason)],
        "the history (event, detail)",
    )


@settling.promise()
def a_released_delivery_costs_no_attempt(bench: Bench) -> None:
    """A released delivery can be claimed at once, and its attempt is not counted."""
    bench.send("one")
    for _ in range(ATTEMPTS + 1):
        claim = bench.one()
        equal(claim.attempt, 1, "the attempt after a release")
        bench.settle(claim, "release")
    record = bench.record(claim.delivery_id)
    equal((record.state, record.attempts), (DeliveryState.READY, 0), "(state, attempts) after a release")


@settling.promise()
def a_released_delivery_comes_again_after_its_delay(bench: Bench) -> None:
    """A released delivery comes again when its delay is over, and not before; its attempt is not counted."""
    bench.send_all("soon", "later")
    soon, later = bench.claim(2)
    bench.settle(later, "release", delay=LONG)
    bench.settle(soon, "release", delay=bench.short)
    record = bench.record(later.delivery_id)
    found = (record.state, record.attempts, record.reason, record.history)
    equal(found, (DeliveryState.READY, 0, None, ()), "(state, attempts, reason, history) after the release")
    bench.let_pass()
    claims = bench.claim(9)
    equal(said(claims), ["soon"], "what can be claimed when a short delay is over")
    equal(claims[0].attempt, 1, "its attempt")


@settling.promise(Capability.ONE_COMMIT)
def one_call_settles_sends_and_claims(bench: Bench) -> None:
    """One call settles several deliveries, stores what they produced and claims what comes then."""
    bench.send_all(1, 2, 3, 4)
    one, two = bench.claim(2)
    claims = bench.store.messages.settle(
        [bench.settlement(one), bench.settlement(two, "nack", delay=LONG)],
        [bench.outgoing("produced", bench.to(bench.other))],
        then=bench.wanted(1),
    )
    equal(said(claims), [3], "what it claimed")
    bench.settle(claims[0])
    equal(said(bench.claim(9, mailbox=bench.other)), ["produced"], "what it stored")
    equal(bench.counts(), (2, 0, 2, 0), "(ready, leased, done, dead)")


@settling.promise(Capability.ONE_COMMIT)
def what_was_sent_before_stops_no_ack(bench: Bench) -> None:
    """A produced message that is known already is left out, and the rest is done."""
    bench.send("earlier", bench.to(bench.other), id=f"{bench.source}-answer")
    bench.send("work")
    again = bench.outgoing("again", bench.to(bench.other), id=f"{bench.source}-answer")
    bench.store.messages.settle([bench.settlement(bench.one())], [again])
    equal(bench.counts(), (0, 0, 1, 0), "(ready, leased, done, dead) of the mailbox that was acked")
    equal(said(bench.claim(9, mailbox=bench.other)), ["earlier"], "what the other mailbox gives")


def _nothing_happened(bench: Bench, answer: str, before: object) -> None:
    equal(bench.find(), before, "the mailbox after a settlement that was refused")
    equal(bench.stats(bench.other).total, 0, "the number of messages that a refused settlement sent")
    again = bench.outgoing("answer", bench.to(bench.other), id=answer)
    equal(
        bench.store.messages.append([again]),
        [True],
        "the answer to a message that a refused settlement did not send",
    )


@settling.promise(Capability.ONE_COMMIT)
def a_stale_lease_sends_nothing(bench: Bench) -> None:
    """If a lease is stale, nothing is sent and nothing claimed."""
    bench.send_all("work", "more")
    claim = bench.one()
    bench.settle(claim, "release")
    before, answer = bench.find(), f"{bench.source}-answer"
    with refused(StaleLease, "settling with a stale lease"):
        bench.store.messages.settle(
            [bench.settlement(claim)],
            [bench.outgoing("answer", bench.to(bench.other), id=answer)],
            then=bench.wanted(2),
        )
    _nothing_happened(bench, answer, before)


@settling.promise(Capability.ONE_COMMIT, Capability.BACK_PRESSURE)
def a_full_mailbox_settles_nothing(bench: Bench) -> None:
    """If there is no room for what was produced, nothing is settled, sent or claimed."""
    bench.send("waits", bench.to(bench.third))
    bench.send_all("work", "more")
    claim = bench.one()
    before, answer = bench.find(), f"{bench.source}-answer"
    with refused(MailboxFull, "settling with a message to a full mailbox"):
        bench.store.messages.settle(
            [bench.settlement(claim)],
            [
                bench.outgoing("answer", bench.to(bench.other), id=answer),
                bench.outgoing("too many", bench.to(bench.third, limit=1)),
            ],
            then=bench.wanted(2),
        )
    equal(bench.counts(bench.third), (1, 0, 0, 0), "(ready, leased, done, dead) of the full mailbox")
    _nothing_happened(bench, answer, before)
    bench.settle(claim)


@settling.promise(Capability.ONE_COMMIT, Capability.BACK_PRESSURE)
def an_ack_makes_room_for_what_it_sends(bench: Bench) -> None:
    """A delivery that ends makes room for a message to its own mailbox in the same commit."""
    bench.send("one", bench.to(limit=1))
    claim = bench.one()
    bench.store.messages.settle([bench.settlement(claim)], [bench.outgoing("two", bench.to(limit=1))])
    equal(bench.counts(), (1, 0, 1, 0), "(ready, leased, done, dead)")


@settling.promise(Capability.ONE_COMMIT, Capability.STATE)
def state_changes_with_the_ack(bench: Bench) -> None:
    """State changes in the commit of the ack."""
    bench.send("work")
    changes = [bench.change("total", b"1", expected=0), bench.change("name", b'"x"')]
    bench.store.messages.settle([bench.settlement(bench.one())], changes=changes)
    kept = {entry.key: (entry.value, entry.version) for entry in bench.store.state.entries(bench.box)}
    equal(kept, {"total": (b"1", 1), "name": (b'"x"', 1)}, "the values (value, version)")
    equal(bench.counts(), (0, 0, 1, 0), "(ready, leased, done, dead)")


@settling.promise(Capability.ONE_COMMIT, Capability.STATE)
def a_state_conflict_settles_nothing(bench: Bench) -> None:
    """If somebody else changed a value, nothing is settled, sent, changed or claimed."""
    bench.store.state.write([bench.change("total", b"1")])
    bench.send_all("work", "more")
    claim = bench.one()
    before, answer = bench.find(), f"{bench.source}-answer"
    with refused(StateConflict, "settling with a value of another version"):
        bench.store.messages.settle(
            [bench.settlement(claim)],
            [bench.outgoing("answer", bench.to(bench.other), id=answer)],
            [
                bench.change("first", b"1"),
                bench.change("total", b"2", expected=7),
                bench.change("last", b"1"),
            ],
            then=bench.wanted(2),
        )
    kept = {entry.key: (entry.value, entry.version) for entry in bench.store.state.entries(bench.box)}
    equal(kept, {"total": (b"1", 1)}, "the values after a settlement that was refused")
    _nothing_happened(bench, answer, before)
    bench.settle(claim)


@settling.promise(Capability.ONE_COMMIT, Capability.STATE)
def a_stale_lease_changes_no_state(bench: Bench) -> None:
    """If a lease is stale, no value is changed."""
    bench.send("work")
    claim = bench.one()
    bench.settle(claim, "release")
    with refused(StaleLease, "settling with a stale lease"):
        bench.store.messages.settle([bench.settlement(claim)], changes=[bench.change("total", b"1")])
    equal(bench.store.state.read(bench.box, "total"), None, "a value that a stale lease set")


@settling.promise(Capability.ONE_COMMIT, Capability.ORDERING)
def an_ack_hands_out_the_next_of_its_lane(bench: Bench) -> None:
    """Acking the first of a lane and receiving in one call gives the next of the lane, and nothing ahead of it."""
    bench.send_all(1, 2, 3, key="k")
    claim = bench.one()
    for expected in ([2], [3], []):
        claims = bench.store.messages.settle([bench.settlement(claim)], then=bench.wanted(9))
        equal(said(claims), expected, "what is handed out with the ack of the one before")
        claim = claims[0] if claims else claim
    equal(bench.counts(), (0, 0, 3, 0), "(ready, leased, done, dead)")
    true(not bench.claim(), "there is still something to claim")
