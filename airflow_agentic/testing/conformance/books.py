"""What became of messages: reading, counting, another chance for the dead, and forgetting."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from airflow_agentic.messaging.delivery import DeliveryState
from airflow_agentic.messaging.ports import DeliveryQuery, StateChange
from airflow_agentic.messaging.state import INBOX
from airflow_agentic.testing.conformance.bench import ATTEMPTS, LONG, Bench, data, equal, said, true
from airflow_agentic.testing.conformance.promises import Capability, Chapter

books = Chapter()
REDRIVE, PURGE = Capability.REDRIVE, Capability.PURGE
READY, LEASED, DONE, DEAD = DeliveryState
_ALL = 1_000_000


@books.promise()
def reading_changes_nothing(bench: Bench) -> None:
    """Reading takes no lease and changes nothing."""
    bench.send("seen")
    first = bench.find()
    equal(bench.find(), first, "what is read a second time")
    equal([(record.state, record.attempts) for record in first], [(READY, 0)], "(state, attempts)")
    equal(bench.one().attempt, 1, "the attempt of a claim after that")


@books.promise()
def all_conditions_of_a_query_must_hold(bench: Bench) -> None:
    """A query finds what fits all its conditions, oldest first, at most so many as were asked for."""
    one, two = f"{bench.source}-talk-1", f"{bench.source}-talk-2"
    bench.send("a", id=f"{bench.source}-a", talk=one)
    bench.send("b", bench.to(bench.other), id=f"{bench.source}-b", talk=one)
    bench.send("c", id=f"{bench.source}-c", talk=two)
    bench.settle(bench.one())

    def found(**conditions: object) -> list[object]:
        return data(bench.find(**conditions))

    numbers = tuple(record.delivery_id for record in bench.find())
    equal(found(mailbox=bench.box), ["a", "c"], "what is found of a mailbox")
    equal(found(mailbox=bench.box, states=(READY,)), ["c"], "what is found in one state")
    equal(found(mailbox=bench.box, states=(READY, DONE)), ["a", "c"], "what is found in one of two states")
    equal(found(ids=(*numbers, 2**53)), ["a", "c"], "what is found by numbers")
    equal(found(ids=()), [], "what is found by no numbers")
    equal(found(message_id=f"{bench.source}-b"), ["b"], "what is found by the id of a message")
    equal(found(correlation_id=one), ["a", "b"], "what is found of a conversation")
    equal(found(correlation_id=one, mailbox=bench.box), ["a"], "what is found of a conversation in a mailbox")
    equal(found(correlation_id=one, limit=1), ["a"], "what is found with a limit")


@books.promise()
def names_can_be_any_text(bench: Bench) -> None:
    """Sources, ids, conversations and keys are any text: what differs in one letter differs, and all of it is kept."""
    texts = (
        "a",
        "A",
        "a ",
        " a",
        "ä",
        "a\u0308",
        "a'b",
        'a"b',
        "a%b",
        "a_b",
        "a{b}",
        "a:b",
        "a\\b",
        "a\nb",
        "漢字",
        "😀",
    )
    for number, text in enumerate(texts):
        source, talk = f"{bench.source}{text}", f"{bench.source}/{text}"
        equal(
            bench.send(number, id=text, source=source, key=text, talk=talk), True, f"the answer to {text!r}"
        )
        equal(data(bench.find(correlation_id=talk)), [number], f"what is found of the conversation {text!r}")
    claims = bench.claim(99)
    equal(
        [claim.ordering_key for claim in claims], list(texts), "the keys, none of which holds up another one,"
    )
    found = [(record.message.id, record.message.source) for record in bench.find() if record.message]
    equal(found, [(text, f"{bench.source}{text}") for text in texts], "(id, source)")


@books.promise()
def many_at_once_are_no_matter(bench: Bench) -> None:
    """Two thousand are stored, claimed, extended, settled and found in one call each."""
    count = 2_000
    new = bench.store.messages.append([bench.outgoing(number) for number in range(count)])
    equal((len(new), all(new)), (count, True), "the number of answers to a batch, and whether all were new")
    claims = bench.claim(count)
    equal(said(claims), list(range(count)), "what can be claimed")
    ends = bench.store.messages.extend({claim.delivery_id: claim.token for claim in claims}, LONG)
    equal(len(ends), count, "the number of extended leases")
    bench.store.messages.settle([bench.settlement(claim, "reject", reason="no") for claim in claims])
    numbers = tuple(claim.delivery_id for claim in claims)
    equal(data(bench.find(ids=numbers, limit=count)), list(range(count)), "what is found by numbers")
    equal(bench.counts(), (0, 0, 0, count), "(ready, leased, done, dead)")


@books.promise()
def times_have_a_zone(bench: Bench) -> None:
    """Every time that the store tells is one of a zone, and they follow each other."""
    bench.send("one")
    claim = bench.one()
    bench.settle(claim, "nack", delay=LONG, reason="down")
    record = bench.record(claim.delivery_id)
    times = (record.history[0].at, record.updated_at, record.visible_at)
    true(all(time.tzinfo is not None for time in (*times, claim.lease_until)), f"a time has no zone: {times}")
    true(
        times[0] <= times[1] < times[2],
        f"(at, updated_at, visible_at) must follow each other, they are {times}",
    )


@books.promise()
def the_counts_add_up(bench: Bench) -> None:
    """Deliveries are counted by state, and the counts add up."""
    bench.send_all(*range(7))
    acked, rejected, nacked, lost, _held = [bench.one() for _ in range(5)]
    bench.settle(acked)
    bench.settle(rejected, "reject", reason="no")
    bench.settle(nacked, "nack", delay=LONG)
    bench.store.messages.extend({lost.delivery_id: lost.token}, bench.short)
    bench.let_pass()
    stats = bench.stats()
    equal((stats.ready, stats.leased, stats.done, stats.dead), (3, 2, 1, 1), "(ready, leased, done, dead)")
    equal((stats.delayed, stats.scheduled, stats.expired), (1, 0, 1), "(delayed, scheduled, expired)")
    equal((stats.total, stats.open, stats.claimable), (7, 5, 3), "(total, open, claimable)")
    equal(len(bench.claim(9)), 3, "the number of deliveries that a claim gives then")


@books.promise()
def what_could_be_claimed_has_an_age(bench: Bench) -> None:
    """The age of the oldest and the number of the newest are those of what could be claimed now."""
    equal(
        (bench.stats().oldest_ready_seconds, bench.stats().newest_claimable),
        (None, None),
        "(oldest, newest) of nothing",
    )
    bench.send_all("old", "newer")
    bench.let_pass()
    bench.send("new")
    newest = bench.find()[-1].delivery_id
    age = bench.stats().oldest_ready_seconds
    true(
        age is not None and age >= bench.short.total_seconds(),
        f"the age of the oldest is {age!r}, and must be more",
    )
    equal(bench.stats().newest_claimable, newest, "the number of the newest")
    equal(len(bench.claim(9)), 3, "the number of deliveries that a claim gives")
    equal(
        (bench.stats().oldest_ready_seconds, bench.stats().newest_claimable),
        (None, None),
        "(oldest, newest) of what is leased",
    )


@books.promise()
def every_mailbox_is_counted_by_itself(bench: Bench) -> None:
    """Every mailbox is counted by itself; they are listed by name, and an unknown one is not there."""
    for mailbox in (bench.third, bench.box, bench.box):
        bench.send("x", bench.to(mailbox))
    listed = [
        each for each in bench.store.books.stats() if each.mailbox in (bench.box, bench.other, bench.third)
    ]
    equal(
        [(each.mailbox, each.ready) for each in listed],
        [(bench.box, 2), (bench.third, 1)],
        "(mailbox, ready)",
    )
    equal(
        [each.mailbox for each in bench.store.books.stats(bench.third)],
        [bench.third],
        "the counts of one mailbox",
    )
    equal(bench.store.books.stats(bench.other), [], "the counts of an unknown mailbox")


@books.promise(REDRIVE)
def a_redrive_gives_another_chance(bench: Bench) -> None:
    """A redriven delivery has all its attempts again, and its history keeps what was and who redrove it, and why."""
    bench.send("one", bench.to(max_attempts=2))
    for reason in ("first", "second"):
        claim = bench.one()
        bench.settle(claim, "nack", reason=reason)
    equal(bench.redrive(), [claim.delivery_id], "the numbers of the redriven")
    record = bench.record(claim.delivery_id)
    equal(
        (record.state, record.attempts, record.redrives, record.reason),
        (READY, 0, 1, None),
        "(state, attempts, redrives, reason)",
    )
    history = [(entry.event, entry.actor, entry.detail) for entry in record.history]
    expected = [("nack", "worker", "first"), ("nack", "worker", "second"), ("redrive", "ana", "mended")]
    equal(history, expected, "the history (event, actor, detail)")
    for attempt in (1, 2):
        claim = bench.one()
        equal(claim.attempt, attempt, "the attempt after the redrive")
        bench.settle(claim, "nack", reason="again")
    equal(bench.record(claim.delivery_id).state, DEAD, "the state after the attempts are spent again")


@books.promise(REDRIVE)
def a_redrive_takes_the_dead_that_fit(bench: Bench) -> None:
    """A redrive takes what is dead and fits, all of it, and touches nothing else."""
    dead = [bench.bury(number) for number in range(4)]
    bench.bury("elsewhere", bench.to(bench.other))
    bench.send_all("done", "leased", "ready")
    bench.settle(bench.one())
    bench.one()
    chosen = DeliveryQuery(ids=(dead[0], dead[2], 2**53), limit=1)
    equal(
        bench.redrive(query=chosen),
        [dead[0], dead[2]],
        "what was redriven by number, with a limit that does not count",
    )
    equal(bench.counts(), (3, 1, 1, 2), "(ready, leased, done, dead)")
    equal(bench.redrive(query=chosen), [], "what was redriven a second time")
    equal(bench.redrive(), [dead[1], dead[3]], "what was redriven of the mailbox")
    equal(bench.counts(bench.other), (0, 0, 0, 1), "(ready, leased, done, dead) of the other mailbox")


@books.promise(REDRIVE, Capability.EXPIRY)
def a_redriven_delivery_does_not_expire_again(bench: Bench) -> None:
    """A redriven delivery does not expire again."""
    bench.send("late", ttl=bench.short)
    bench.let_pass()
    bench.claim()
    equal(bench.counts(), (0, 0, 0, 1), "(ready, leased, done, dead) of what has expired")
    bench.redrive()
    bench.let_pass()
    equal(said(bench.claim()), ["late"], "what can be claimed after the redrive")


@books.promise(REDRIVE)
def a_redrive_can_lead_elsewhere(bench: Bench) -> None:
    """Redriven to other mailboxes, the first gets the delivery, and the others copies without its history."""
    number = bench.bury("one")
    equal(bench.redrive(to=(bench.other, bench.third)), [number], "the numbers of the redriven")
    equal(bench.find(), [], "what is left in the mailbox")
    [moved], [copy] = bench.find(mailbox=bench.other), bench.find(mailbox=bench.third)
    equal((moved.delivery_id, moved.redrives), (number, 1), "(delivery_id, redrives) in the first mailbox")
    equal([entry.event for entry in moved.history], ["reject", "redrive"], "the history in the first mailbox")
    equal(
        (copy.state, copy.attempts, copy.max_attempts),
        (READY, 0, ATTEMPTS),
        "(state, attempts, max_attempts) of the copy",
    )
    equal(
        [entry for entry in copy.history if entry.event == "reject"],
        [],
        "the failures in the history of the copy",
    )
    true(copy.delivery_id != number, "the copy must be a delivery with a number of its own")
    for mailbox in (bench.other, bench.third):
        claim = bench.one(mailbox=mailbox)
        equal(said([claim]), ["one"], f"what can be claimed of {mailbox!r}")
        bench.settle(claim, mailbox=mailbox)


@books.promise(REDRIVE)
def a_redrive_can_be_spread_over_time(bench: Bench) -> None:
    """With a spacing, the n-th can be claimed n times that from now."""
    for number in range(3):
        bench.bury(number)
    bench.redrive(spacing=bench.short)
    visible = [record.visible_at for record in bench.find()]
    steps = [after - before for before, after in itertools.pairwise(visible)]
    true(
        all(abs((step - bench.short).total_seconds()) < 0.01 for step in steps),
        f"the steps are {steps}, and must be {bench.short}",
    )
    for number in range(3):
        bench.let_pass()
        equal(bench.stats().delayed <= 2 - number, True, "whether so many are due after so many times")
    equal(said(bench.claim(9)), [0, 1, 2], "what can be claimed in the end")


@books.promise(REDRIVE, Capability.MOVABLE_CLOCK)
def a_redrive_lets_nobody_come_early(bench: Bench) -> None:
    """With a spacing, each waits for its time."""
    for number in range(3):
        bench.bury(number)
    bench.redrive(spacing=bench.short)
    for number in range(3):
        equal(said(bench.claim(9)), [number], "what can be claimed at its time")
        bench.own_clock().advance(bench.short)


def _sweep(bench: Bench) -> None:
    """Forget what other checks left, so that a limit counts only what this one makes."""
    bench.let_pass()
    bench.store.books.purge(bench.short, _ALL)


def _forgotten(bench: Bench, envelopes: Sequence[bytes]) -> list[bytes]:
    """Return those that this bench sent."""
    return [envelope for envelope in envelopes if bench.source.encode() in envelope]


@books.promise(PURGE)
def only_what_is_old_and_done_is_forgotten(bench: Bench) -> None:
    """What is old and done is forgotten, and its envelope returned; what is open, dead or young stays."""
    bench.send_all("done", "leased", "dead", "ready")
    done, _leased, dead = bench.claim(3)
    bench.settle(done)
    bench.settle(dead, "reject", reason="no")
    equal(_forgotten(bench, bench.store.books.purge(LONG, _ALL)), [], "what is forgotten of what is young")
    bench.let_pass(5)
    bench.send("young", bench.to(bench.other))
    bench.settle(bench.one(mailbox=bench.other), mailbox=bench.other)
    envelopes = _forgotten(bench, bench.store.books.purge(5 * bench.short, _ALL))
    equal(envelopes, [done.envelope], "the envelopes of the forgotten")
    equal(bench.counts(), (1, 1, 0, 1), "(ready, leased, done, dead) after the purge")
    equal(bench.counts(bench.other), (0, 0, 1, 0), "(ready, leased, done, dead) of what is young")


@books.promise(PURGE)
def a_purge_forgets_at_most_so_many(bench: Bench) -> None:
    """A purge forgets at most so many messages."""
    _sweep(bench)
    bench.send_all(*range(3))
    for claim in bench.claim(3):
        bench.settle(claim)
    bench.let_pass()
    sizes = [len(_forgotten(bench, bench.store.books.purge(bench.short, 2))) for _ in range(3)]
    equal(sizes, [2, 1, 0], "the numbers of the forgotten, with a limit of 2")


@books.promise(PURGE, Capability.DEDUP)
def what_is_forgotten_is_new_again(bench: Bench) -> None:
    """A forgotten message is known as a duplicate no more, and until then it is."""
    bench.send("one", id="m-1")
    bench.settle(bench.one())
    bench.let_pass()
    bench.store.books.purge(LONG, _ALL)
    equal(bench.send("one", id="m-1"), False, "the answer to a duplicate within the window")
    bench.store.books.purge(bench.short, _ALL)
    equal(bench.send("one", id="m-1"), True, "the answer to the same message after it was forgotten")


@books.promise(PURGE, Capability.FAN_OUT)
def what_is_not_done_everywhere_is_kept(bench: Bench) -> None:
    """A message is kept, with all its deliveries, until all of them are done."""
    bench.send("news", bench.to(bench.box), bench.to(bench.other))
    bench.settle(bench.one())
    bench.let_pass()
    equal(
        _forgotten(bench, bench.store.books.purge(bench.short, _ALL)),
        [],
        "what is forgotten while one is open",
    )
    equal(bench.counts(), (0, 0, 1, 0), "(ready, leased, done, dead) where it is done")
    bench.settle(bench.one(mailbox=bench.other), mailbox=bench.other)
    equal(
        len(_forgotten(bench, bench.store.books.purge(bench.short, _ALL))),
        1,
        "the number of the forgotten when all are done",
    )
    equal(
        [bench.stats(box).total for box in (bench.box, bench.other)],
        [0, 0],
        "the number of deliveries after that",
    )


@books.promise(PURGE, Capability.EXPIRY)
def a_purge_buries_what_has_expired(bench: Bench) -> None:
    """A purge buries what has expired, also where nobody receives."""
    bench.send("late", ttl=bench.short)
    bench.send("in time", ttl=LONG)
    bench.let_pass()
    bench.store.books.purge(LONG, _ALL)
    states = {record.message.data: record.state for record in bench.find() if record.message}
    equal(states, {"late": DEAD, "in time": READY}, "the states after a purge")


@books.promise(PURGE, Capability.STATE)
def old_receipts_are_forgotten(bench: Bench) -> None:
    """A purge forgets old receipts of consumers, and no other values."""
    scope = f"{INBOX}{bench.source}"
    keep = bench.change("total", b"1")
    bench.store.state.write([StateChange(scope, "m-1", b"true", 0), keep])
    bench.let_pass(5)
    bench.store.state.write([StateChange(scope, "m-2", b"true", 0)])
    bench.store.books.purge(5 * bench.short, _ALL)
    equal([entry.key for entry in bench.store.state.entries(scope)], ["m-2"], "the receipts after a purge")
    true(bench.store.state.read(bench.box, "total") is not None, "a purge forgot a value that is no receipt")
