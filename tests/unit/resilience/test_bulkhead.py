from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_agentic.resilience import Bulkhead, Category, bulkhead

START = 1_700_000_000.0
PLAIN = Bulkhead(max_concurrent=3, lease_seconds=10)
SEEKING = Bulkhead(max_concurrent=30, adaptive=True)

steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "leave", "renew", "wait"]),
        st.integers(0, 9),
        st.floats(0, 12),
        st.sampled_from([None, None, Category.RESOURCE_EXHAUSTION, Category.TRANSIENT]),
    ),
    max_size=80,
)


def fill(settings, doc=None, now=START, count=100):
    tokens = []
    for number in range(count):
        slot, doc = bulkhead.take(doc, settings, now, f"{now}-{number}")
        if not slot.taken:
            break
        tokens.append(f"{now}-{number}")
    return tokens, doc


@given(steps=steps, allowed=st.integers(1, 4), adaptive=st.booleans())
@settings(max_examples=300, deadline=None)
def test_whatever_happens_no_more_are_in_than_may_be(steps, allowed, adaptive):
    policy = Bulkhead(max_concurrent=allowed, lease_seconds=10, adaptive=adaptive)
    doc, now, held, count = None, START, {}, 0
    for kind, which, seconds, category in steps:
        if kind == "wait":
            now += seconds
        held = {token: until for token, until in held.items() if until > now}
        token = sorted(held)[which % len(held)] if held else "nobody"
        if kind == "take":
            count += 1
            slot, doc = bulkhead.take(doc, policy, now, str(count))
            assert slot.taken == (len(held) < bulkhead.allowed_of(doc, policy))
            if slot.taken:
                held[str(count)] = now + 10
        elif kind == "leave":
            doc = bulkhead.leave(doc, policy, now, token, category)
            held.pop(token, None)
        elif kind == "renew":
            renewed = bulkhead.renew(doc, policy, now, token)
            assert (renewed is not None) == (token in held)
            if renewed is not None:
                doc, held[token] = renewed, now + 10
        assert len(held) <= allowed


def test_a_slot_of_which_nothing_is_heard_comes_free_when_its_lease_ends_and_not_before():
    tokens, doc = fill(PLAIN)
    assert len(tokens) == 3
    assert not bulkhead.take(doc, PLAIN, START + 9.99, "x")[0].taken
    assert bulkhead.take(doc, PLAIN, START + 10, "x")[0].taken


def test_a_slot_that_was_lost_cannot_be_had_back():
    tokens, doc = fill(PLAIN)
    _, doc = bulkhead.take(doc, PLAIN, START + 10, "x")
    assert bulkhead.renew(doc, PLAIN, START + 10, tokens[0]) is None
    assert bulkhead.leave(doc, PLAIN, START + 10, tokens[0], None)["slots"].keys() == {"x"}


def test_fewer_may_be_in_when_the_settings_say_so():
    _, doc = fill(PLAIN)
    fewer = Bulkhead(max_concurrent=1, lease_seconds=10)
    slot, _ = bulkhead.take(doc, fewer, START, "x")
    assert (slot.taken, slot.in_use, slot.allowed) == (False, 3, 1)


def test_more_may_be_in_when_the_settings_say_so_and_whoever_looks_sees_it():
    _, doc = fill(PLAIN)
    more = Bulkhead(max_concurrent=5, lease_seconds=10)
    slot, doc = bulkhead.take(doc, more, START, "x")
    assert (slot.taken, slot.in_use, slot.allowed) == (True, 4, 5)
    assert doc["limit"] == 5


def rounds(doc, now, count, bearable):
    """So many rounds of as many calls as may be out; those beyond what the other side bears are throttled."""
    for _ in range(count):
        tokens, doc = fill(SEEKING, doc, now)
        now += 2
        for number, token in enumerate(tokens):
            category = Category.RESOURCE_EXHAUSTION if number >= bearable else None
            doc = bulkhead.leave(doc, SEEKING, now, token, category)
    return doc, now


def test_it_finds_the_number_that_the_other_side_bears_and_goes_up_again_when_that_grows():
    doc, now = rounds(None, START, 60, bearable=8)
    assert 4 <= bulkhead.allowed_of(doc, SEEKING) <= 9
    doc, now = rounds(doc, now, 3_000, bearable=1_000)
    assert bulkhead.allowed_of(doc, SEEKING) == 30


def test_one_round_that_was_throttled_is_one_sign():
    tokens, doc = fill(SEEKING)
    for token in tokens:
        doc = bulkhead.leave(doc, SEEKING, START + 2, token, Category.RESOURCE_EXHAUSTION)
    assert bulkhead.allowed_of(doc, SEEKING) == 20


def test_what_is_not_about_load_changes_nothing_and_who_uses_little_learns_nothing():
    tokens, doc = fill(SEEKING, count=10)
    doc = bulkhead.leave(doc, SEEKING, START + 2, tokens.pop(), Category.DEADLINE_EXCEEDED)
    assert doc["limit"] == 20
    for category in (Category.PERMANENT, Category.CANCELLED, None, None):
        doc = bulkhead.leave(doc, SEEKING, START + 4, tokens.pop(), category)
    assert doc["limit"] == 20


def test_it_never_comes_below_one():
    doc, now = rounds(None, START, 100, bearable=0)
    assert bulkhead.allowed_of(doc, SEEKING) == 1
    # And it goes up from there as slowly as from anywhere.
    doc, _ = rounds(doc, now, 1, bearable=9)
    assert bulkhead.allowed_of(doc, SEEKING) == 2
