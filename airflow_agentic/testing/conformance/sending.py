"""How messages are stored: once, in many mailboxes, for later, for a time, by priority, and if there is room."""

from __future__ import annotations

from datetime import timedelta

from airflow_agentic.errors import MailboxFull
from airflow_agentic.messaging.delivery import DeliveryState
from airflow_agentic.messaging.ports import EXPIRED, Address, Outgoing, Overflow
from airflow_agentic.testing.conformance.bench import ATTEMPTS, LONG, Bench, equal, refused, said, true
from airflow_agentic.testing.conformance.promises import Capability, Chapter

sending = Chapter()
DEDUP, EXPIRY, FAN_OUT, BACK_PRESSURE = (
    Capability.DEDUP,
    Capability.EXPIRY,
    Capability.FAN_OUT,
    Capability.BACK_PRESSURE,
)


@sending.promise()
def nothing_sent_is_nothing_stored(bench: Bench) -> None:
    """An empty batch stores nothing."""
    equal(bench.store.messages.append([]), [], "the answer to an empty batch")
    equal(bench.store.messages.settle([]), [], "the answer to an empty settlement")
    equal(bench.find(), [], "what is in the mailbox")


@sending.promise(DEDUP)
def a_duplicate_is_stored_once(bench: Bench) -> None:
    """A message is known by its source and id: it is stored once, also after it was handled."""
    equal(bench.send("first", id="m-1"), True, "the answer to a new message")
    equal(bench.send("second", id="m-1"), False, "the answer to a duplicate")
    equal(
        bench.send("third", id="m-1", source=f"{bench.source}-b"),
        True,
        "the answer to the id of another source",
    )
    claims = bench.claim(9)
    equal(said(claims), ["first", "third"], "what can be claimed")
    bench.settle(claims[0])
    equal(bench.send("fourth", id="m-1"), False, "the answer to a duplicate of what is done")
    bench.settle(claims[1], "reject", reason="no")
    equal(
        bench.send("fifth", id="m-1", source=f"{bench.source}-b"),
        False,
        "the answer to a duplicate of a dead letter",
    )
    equal(bench.claim(9), [], "what can be claimed after that")


@sending.promise(DEDUP)
def a_batch_tells_what_was_new(bench: Bench) -> None:
    """A batch tells for each message whether it was new, also when it holds one twice."""
    bench.send(id="m-2")
    batch = [bench.outgoing(id=name) for name in ("m-1", "m-2", "m-3", "m-3")]
    equal(bench.store.messages.append(batch), [True, False, True, False], "the answer to a batch")
    equal(bench.counts(), (3, 0, 0, 0), "(ready, leased, done, dead)")


@sending.promise(Capability.PRIORITIES)
def higher_priorities_come_first(bench: Bench) -> None:
    """Higher priorities come first, and within one what came first; a claim takes the highest there are."""
    for data, priority in (("low", 1), ("normal 1", 4), ("high 1", 8), ("normal 2", 4), ("high 2", 8)):
        bench.send(data, priority=priority)
    claims = bench.claim(3)
    equal(said(claims), ["high 1", "high 2", "normal 1"], "the first three")
    equal([claim.priority for claim in claims], [8, 8, 4], "their priorities")
    bench.send("highest", priority=9)
    equal(said(bench.claim(9)), ["highest", "normal 2", "low"], "the rest")


@sending.promise(Capability.DELAYS)
def a_delayed_message_comes_when_its_time_has_come(bench: Bench) -> None:
    """A delayed message can be claimed when its time has come, and holds up nobody until then."""
    bench.send("soon", delay=bench.short)
    bench.send("later", delay=LONG)
    bench.send("now")
    stats = bench.stats()
    equal((stats.ready, stats.scheduled, stats.waiting), (3, stats.delayed, 0), "(ready, scheduled, waiting)")
    true(stats.delayed >= 1, "stats() counts no delayed delivery where there is one")
    bench.let_pass()
    equal(sorted(said(bench.claim(9))), ["now", "soon"], "what can be claimed when a short delay is over")
    equal(bench.stats().delayed, 1, "the number of delayed deliveries then")


@sending.promise(Capability.DELAYS, Capability.MOVABLE_CLOCK)
def a_delay_lasts_as_long_as_it_says(bench: Bench) -> None:
    """A delay lasts until its last moment, and not a moment longer."""
    bench.send("one", delay=10 * bench.short)
    bench.own_clock().advance(9.9 * bench.short)
    equal(bench.claim(), [], "what can be claimed just before the end of the delay")
    bench.own_clock().advance(bench.short / 10)
    equal(said(bench.claim()), ["one"], "what can be claimed at the end of the delay")


@sending.promise(EXPIRY)
def what_has_expired_is_handed_out_to_nobody(bench: Bench) -> None:
    """What has expired goes to the dead letters with the reason, and hides nothing behind it."""
    for number in range(3):
        bench.send(f"of no use {number}", ttl=bench.short)
    bench.send("fine", ttl=LONG)
    bench.let_pass()
    equal(said(bench.claim(1)), ["fine"], "what can be claimed")
    equal(bench.claim(9), [], "what can be claimed after that")
    dead = bench.find(mailbox=bench.box, states=(DeliveryState.DEAD,))
    equal(
        [(record.reason, record.attempts) for record in dead],
        [(EXPIRED, 0)] * 3,
        "(reason, attempts) of the dead",
    )
    equal([entry.event for entry in dead[0].history], ["expired"], "the history of a dead one")


@sending.promise(EXPIRY)
def what_comes_too_late_is_dead_at_once(bench: Bench) -> None:
    """A message that has no time left when it is stored is a dead letter at once."""
    for ttl in (timedelta(0), -LONG):
        equal(bench.send("late", ttl=ttl), True, "the answer to a message that comes too late")
    equal(bench.counts(), (0, 0, 0, 2), "(ready, leased, done, dead)")
    equal({record.reason for record in bench.find()}, {EXPIRED}, "their reasons")


@sending.promise(EXPIRY)
def who_holds_it_may_finish(bench: Bench) -> None:
    """What expires in somebody's hands can still be acked; if it is given back, it is dead."""
    for outcome in ("finish", "give back"):
        bench.send(outcome, ttl=5 * bench.short)
    finish, back = bench.claim(2)
    bench.let_pass(5)
    bench.settle(finish)
    bench.settle(back, "nack", reason="no time")
    equal(bench.claim(9), [], "what can be claimed after that")
    equal(bench.record(finish.delivery_id).state, DeliveryState.DONE, "the state of what was acked")
    dead = bench.record(back.delivery_id)
    equal((dead.state, dead.reason), (DeliveryState.DEAD, EXPIRED), "(state, reason) of what was given back")


@sending.promise(FAN_OUT)
def every_mailbox_gets_a_delivery_of_its_own(bench: Bench) -> None:
    """One message makes one delivery in each of its mailboxes, and what becomes of one is nothing to the others."""
    boxes = (bench.box, bench.other, bench.third)
    addresses = [bench.to(box, max_attempts=number) for number, box in enumerate(boxes, start=1)]
    equal(bench.send("news", *addresses, id="m-1"), True, "the answer to a new message")
    claims = [bench.one(mailbox=box) for box in boxes]
    equal([claim.max_attempts for claim in claims], [1, 2, 3], "max_attempts, mailbox by mailbox")
    equal(len({claim.delivery_id for claim in claims}), 3, "the number of different deliveries")
    bench.settle(claims[0])
    bench.settle(claims[1], "reject", mailbox=boxes[1], reason="no")
    bench.settle(claims[2], "release", mailbox=boxes[2])
    counts = [bench.counts(box) for box in boxes]
    equal(
        counts, [(0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 0, 0)], "(ready, leased, done, dead), mailbox by mailbox"
    )


@sending.promise(FAN_OUT, DEDUP)
def a_duplicate_reaches_no_mailbox(bench: Bench) -> None:
    """A duplicate reaches no mailbox, whichever it names."""
    bench.send("news", bench.to(bench.box), bench.to(bench.other), id="m-1")
    equal(
        bench.send("again", bench.to(bench.other), bench.to(bench.third), id="m-1"),
        False,
        "the answer to a duplicate",
    )
    totals = [bench.stats(box).total for box in (bench.box, bench.other, bench.third)]
    equal(totals, [1, 1, 0], "the number of deliveries, mailbox by mailbox")


@sending.promise(FAN_OUT)
def an_address_can_be_dead_at_once(bench: Bench) -> None:
    """A delivery to an address that is dead is a dead letter with the reason, and the others are not."""
    bench.send("news", bench.to(bench.box, dead="nobody is there"), bench.to(bench.other))
    equal(bench.claim(9), [], "what the mailbox of the dead address gives")
    [record] = bench.find()
    equal((record.state, record.reason), (DeliveryState.DEAD, "nobody is there"), "(state, reason)")
    equal(said(bench.claim(9, mailbox=bench.other)), ["news"], "what the other mailbox gives")


def _full(bench: Bench, overflow: Overflow) -> Address:
    """Put two messages, one of them leased, into a mailbox that may have two; return its address."""
    address = bench.to(limit=2, overflow=overflow)
    bench.send(1, address)
    bench.send(2, address)
    bench.one()
    return address


def _refuses_all(bench: Bench, batch: list[Outgoing], limit: str) -> None:
    with refused(MailboxFull, f"a batch with a message to a mailbox that is full ({limit})"):
        bench.store.messages.append(batch)


@sending.promise(BACK_PRESSURE)
def a_full_mailbox_refuses_the_whole_batch(bench: Bench) -> None:
    """A full mailbox refuses, and nothing of the batch is stored; what ends makes room for it."""
    overflows: tuple[Overflow, ...] = ("refuse", "block")
    for overflow in overflows:
        address = _full(bench, overflow)
        batch = [
            bench.outgoing("before", bench.to(bench.other)),
            bench.outgoing("too many", address),
            bench.outgoing("after", bench.to(bench.other)),
        ]
        _refuses_all(bench, batch, overflow)
        equal(bench.stats(bench.other).total, 0, "the number of stored messages of a batch that was refused")
        equal(bench.stats().open, 2, "the number of open deliveries in the full mailbox")
        for claim in bench.claim(9):
            bench.settle(claim)
        equal(
            bench.store.messages.append(batch), [True] * 3, "the answer to the same batch when there is room"
        )
        for mailbox in (bench.box, bench.other):
            _empty(bench, mailbox)
        bench.box, bench.other = f"{bench.box}-b", f"{bench.other}-b"


def _empty(bench: Bench, mailbox: str) -> None:
    for claim in bench.claim(99, mailbox=mailbox):
        bench.settle(claim, mailbox=mailbox)


@sending.promise(BACK_PRESSURE, FAN_OUT)
def a_full_mailbox_refuses_for_all_of_them(bench: Bench) -> None:
    """If one of the mailboxes of a message is full, none of them gets it."""
    address = _full(bench, "refuse")
    _refuses_all(bench, [bench.outgoing("news", bench.to(bench.other), address)], "refuse")
    equal(bench.stats(bench.other).total, 0, "the number of deliveries in the other mailbox")


@sending.promise(BACK_PRESSURE)
def a_batch_counts_against_the_limit(bench: Bench) -> None:
    """A batch counts as a whole: what it makes itself is not over the limit either."""
    address = bench.to(limit=2)
    _refuses_all(bench, [bench.outgoing(number, address) for number in range(3)], "2, for a batch of 3")
    equal(bench.stats().total, 0, "the number of stored messages")
    batch = [bench.outgoing(number, address) for number in range(2)]
    equal(bench.store.messages.append(batch), [True, True], "the answer to a batch that fills the mailbox")


@sending.promise(BACK_PRESSURE, DEDUP)
def a_duplicate_needs_no_room(bench: Bench) -> None:
    """Whoever sends again what is there already is told so, and not that there is no room."""
    address = bench.to(limit=1)
    bench.send("one", address, id="m-1")
    equal(bench.send("one", address, id="m-1"), False, "the answer to a duplicate")


@sending.promise(BACK_PRESSURE)
def no_limit_is_no_limit(bench: Bench) -> None:
    """A limit of 0 is none, and what is dead or done takes no room."""
    bench.store.messages.append([bench.outgoing(number) for number in range(20)])
    claims = bench.claim(20)
    equal(len(claims), 20, "the number of deliveries without a limit")
    for number, claim in enumerate(claims):
        bench.settle(claim, "ack" if number % 2 else "reject", reason="no")
    equal(bench.send("one", bench.to(limit=1)), True, "the answer where nothing is open")


@sending.promise(BACK_PRESSURE)
def an_overflow_can_go_to_the_dead_letters(bench: Bench) -> None:
    """A mailbox can make dead letters of what is too much, which say so; there is no error."""
    address = _full(bench, "dead-letter")
    batch = [bench.outgoing("too many", address), bench.outgoing("elsewhere", bench.to(bench.other))]
    equal(bench.store.messages.append(batch), [True, True], "the answer to the batch")
    equal(bench.counts(), (1, 1, 0, 1), "(ready, leased, done, dead)")
    [dead] = bench.find(mailbox=bench.box, states=(DeliveryState.DEAD,))
    true("full" in str(dead.reason), f"the reason must say that the mailbox is full, it is {dead.reason!r}")
    equal(said(bench.claim(9, mailbox=bench.other)), ["elsewhere"], "what the other mailbox gives")


@sending.promise(BACK_PRESSURE)
def a_batch_overflows_where_the_room_ends(bench: Bench) -> None:
    """Of a batch that is larger than the room, the first ones are ready and the others dead letters."""
    address = bench.to(limit=2, overflow="dead-letter")
    bench.store.messages.append([bench.outgoing(number, address) for number in range(4)])
    states = [record.state for record in bench.find()]
    equal(states, [DeliveryState.READY] * 2 + [DeliveryState.DEAD] * 2, "the states, in order")
    equal(
        [claim.max_attempts for claim in bench.claim(9)],
        [ATTEMPTS] * 2,
        "max_attempts of those that found room",
    )
