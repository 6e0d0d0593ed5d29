"""What a store keeps beside messages: subscriptions, signs of life, values."""

from __future__ import annotations

from airflow_agentic.errors import StateConflict
from airflow_agentic.messaging.ports import Heartbeat, StateChange
from airflow_agentic.messaging.routing import Subscription
from airflow_agentic.testing.conformance.bench import LONG, Bench, equal, refused, true
from airflow_agentic.testing.conformance.promises import Capability, Chapter

kept = Chapter()
SUBSCRIPTIONS, HEARTBEATS, STATE = Capability.SUBSCRIPTIONS, Capability.HEARTBEATS, Capability.STATE


def _subscribed(bench: Bench) -> list[Subscription]:
    ours = (bench.box, bench.other, bench.third)
    return [each for each in bench.store.subscriptions.subscriptions() if each.mailbox in ours]


@kept.promise(SUBSCRIPTIONS)
def subscriptions_are_kept_as_they_are(bench: Bench) -> None:
    """Subscriptions are kept as they are, and read by mailbox, topic and filter."""
    all_of_it = Subscription(bench.other, "a.*.#", "msg.data.x == 'ü'", "auditor", ("gpu", "eu"), 7)
    given = [
        all_of_it,
        Subscription(bench.box, "b"),
        Subscription(bench.box, "a", "msg.data.x > 1"),
        Subscription(bench.box, "a"),
        Subscription(bench.box, role="auditor"),
    ]
    for subscription in given:
        bench.store.subscriptions.subscribe(subscription)
    equal(_subscribed(bench), [given[4], given[3], given[2], given[1], all_of_it], "the subscriptions")


@kept.promise(SUBSCRIPTIONS)
def the_same_subscription_replaces_the_one_there_is(bench: Bench) -> None:
    """A subscription of the same mailbox, topic and filter replaces the one there is."""
    bench.store.subscriptions.subscribe(Subscription(bench.box, "a", None, "auditor", ("gpu",), 3))
    bench.store.subscriptions.subscribe(Subscription(bench.box, "a", "true"))
    bench.store.subscriptions.subscribe(Subscription(bench.box, "a", None, None, (), 5))
    expected = [Subscription(bench.box, "a", max_attempts=5), Subscription(bench.box, "a", "true")]
    equal(_subscribed(bench), expected, "the subscriptions")


@kept.promise(SUBSCRIPTIONS)
def subscriptions_end_one_by_one_or_together(bench: Bench) -> None:
    """Subscriptions of a mailbox end all together, those of a topic, or one; how many there were is told."""
    store = bench.store.subscriptions
    for topic, condition in (("a", None), ("a", "true"), ("b", None), ("c", None), ("c", "true")):
        store.subscribe(Subscription(bench.box, topic, condition))
    store.subscribe(Subscription(bench.other, "a"))
    equal(store.unsubscribe(bench.box, "a", "true"), 1, "how many ended, by topic and filter")
    equal(store.unsubscribe(bench.box, "c"), 2, "how many ended, by topic")
    equal(store.unsubscribe(bench.box, "nothing"), 0, "how many ended of those that there are not")
    left = [(each.mailbox, each.topic) for each in _subscribed(bench)]
    equal(left, [(bench.box, "a"), (bench.box, "b"), (bench.other, "a")], "(mailbox, topic) of what is left")
    equal(store.unsubscribe(bench.box), 2, "how many ended of the mailbox")
    equal([each.mailbox for each in _subscribed(bench)], [bench.other], "the mailboxes of what is left")


def _beats(bench: Bench) -> dict[str, Heartbeat]:
    """Return the heartbeats of this bench, by the end of their source."""
    found = [beat for beat in bench.store.heartbeats.heartbeats() if beat.source.startswith(bench.source)]
    equal([beat.source for beat in found], sorted(beat.source for beat in found), "the order of heartbeats")
    equal(
        len({beat.source for beat in found}),
        len(found),
        "the number of heartbeats kept, each source having one,",
    )
    return {beat.source.removeprefix(bench.source): beat for beat in found}


@kept.promise(HEARTBEATS)
def the_last_heartbeat_counts(bench: Bench) -> None:
    """Of every source the last heartbeat is kept, and no other."""
    store = bench.store.heartbeats
    for end, envelope in (("/b", b"b1"), ("/a", b"a1"), ("/b", b"b2"), ("/b", b"b\x003")):
        store.beat(bench.source + end, envelope, LONG)
    beats = _beats(bench)
    equal(
        {end: beat.envelope for end, beat in beats.items()}, {"/a": b"a1", "/b": b"b\x003"}, "the envelopes"
    )
    true(all(beat.due_at - beat.at == LONG for beat in beats.values()), "due_at is not alive_for after at")
    true(
        not any(beat.late or beat.reported for beat in beats.values()),
        "a heartbeat that just came is late or reported",
    )


@kept.promise(HEARTBEATS)
def a_heartbeat_that_does_not_come_is_late(bench: Bench) -> None:
    """When the next heartbeat does not come in time, the source is late; when it comes, it is not any more."""
    store = bench.store.heartbeats
    store.beat(f"{bench.source}/quick", b"1", bench.short)
    store.beat(f"{bench.source}/slow", b"1", LONG)
    bench.let_pass()
    equal(
        {end: beat.late for end, beat in _beats(bench).items()},
        {"/quick": True, "/slow": False},
        "who is late",
    )
    store.beat(f"{bench.source}/quick", b"2", LONG)
    equal(_beats(bench)["/quick"].late, False, "whether a source is late that came back")


@kept.promise(HEARTBEATS)
def a_late_heartbeat_is_reported_once(bench: Bench) -> None:
    """What was noted as reported stays so until the next heartbeat; a note that comes after that is void."""
    store, source = bench.store.heartbeats, f"{bench.source}/one"
    store.beat(source, b"1", bench.short)
    first = _beats(bench)["/one"]
    bench.let_pass()
    store.mark_reported(source, first.due_at)
    now = _beats(bench)["/one"]
    equal((now.late, now.reported), (True, True), "(late, reported) after it was reported")
    store.beat(source, b"2", bench.short)
    equal(_beats(bench)["/one"].reported, False, "whether a new heartbeat was reported")
    store.mark_reported(source, first.due_at)
    equal(_beats(bench)["/one"].reported, False, "whether it was, after a note about the one before")
    store.mark_reported(f"{bench.source}/nobody", first.due_at)
    equal(set(_beats(bench)), {"/one"}, "the sources after a note about one that is unknown")


@kept.promise(STATE)
def values_have_versions(bench: Bench) -> None:
    """A value has version 1 when it is made, and one more with each change; forgotten and made anew it has 1."""
    state = bench.store.state
    equal(state.read(bench.box, "total"), None, "a value that is not there")
    for version, value in enumerate((b"1", b'{"\xc3\xbc":[null]}', b"1"), start=1):
        state.write([bench.change("total", value)])
        entry = state.read(bench.box, "total")
        true(entry is not None, "a value that was written is not there")
        assert entry is not None
        equal((entry.scope, entry.key), (bench.box, "total"), "(scope, key)")
        equal((entry.value, entry.version), (value, version), "(value, version)")
    state.write([bench.change("total", None)])
    equal(state.read(bench.box, "total"), None, "a value that was forgotten")
    state.write([bench.change("total", b"2"), bench.change("never there", None)])
    equal(
        [(entry.key, entry.version) for entry in state.entries(bench.box)],
        [("total", 1)],
        "(key, version) of what is made anew",
    )


@kept.promise(STATE)
def a_value_of_another_version_is_not_changed(bench: Bench) -> None:
    """Values are changed if they are of the versions that they must be of: all of them, or none."""
    state = bench.store.state
    state.write([bench.change("a", b"1", expected=0)])
    for expected in (0, 2):
        for wrong in (bench.change("a", b"x", expected=expected), bench.change("a", None, expected=expected)):
            with refused(StateConflict, f"a change of version 1 that expects {expected}"):
                state.write([bench.change("b", b"x"), wrong, bench.change("c", b"x")])
    with refused(StateConflict, "a change of what is not there that expects version 1"):
        state.write([bench.change("b", b"x", expected=1)])
    found = [(entry.key, entry.value, entry.version) for entry in state.entries(bench.box)]
    equal(found, [("a", b"1", 1)], "(key, value, version) after conflicts")
    state.write([bench.change("a", b"2", expected=1), bench.change("b", b"1", expected=0)])
    found = [(entry.key, entry.value, entry.version) for entry in state.entries(bench.box)]
    equal(
        found,
        [("a", b"2", 2), ("b", b"1", 1)],
        "(key, value, version) after changes that expected the right ones",
    )


@kept.promise(STATE)
def the_values_of_a_scope_are_read_by_key(bench: Bench) -> None:
    """The values of a scope are read in the order of their keys, at most so many as were asked for."""
    state = bench.store.state
    state.write([bench.change(key, b"1") for key in ("b", "a", "ü", "c")])
    state.write([StateChange(bench.other, "0", b"1")])
    equal([entry.key for entry in state.entries(bench.box)], ["a", "b", "c", "ü"], "the keys")
    equal([entry.key for entry in state.entries(bench.box, 2)], ["a", "b"], "the keys with a limit of 2")
    equal(state.entries(bench.third), [], "the values of a scope that has none")
