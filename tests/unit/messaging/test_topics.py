"""Topic patterns, held against a regular expression that says the same."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_agentic.errors import InvalidMessage
from airflow_agentic.messaging.topics import TopicIndex, check_pattern

words = st.sampled_from(["a", "b", "orders", "x-1", "_"])
topics = st.lists(words, min_size=1, max_size=6).map(".".join)
patterns = st.lists(words | st.sampled_from(["*", "#", "#"]), min_size=1, max_size=6).map(".".join)


def oracle(pattern, topic):
    """Say the same in other words: each word of the pattern takes its words with the dots before them."""
    parts = {"*": r"\.[^.]+", "#": r"(\.[^.]+)*"}
    expression = "".join(parts.get(word, re.escape(f".{word}")) for word in pattern.split("."))
    return re.fullmatch(expression, f".{topic}") is not None


def matches(pattern, topic):
    return TopicIndex([(pattern, "found")]).matching(topic) == ["found"]


@given(patterns, topics)
def test_a_pattern_matches_what_the_oracle_says(pattern, topic):
    assert matches(pattern, topic) == oracle(pattern, topic)


@given(st.lists(patterns, max_size=12), topics)
def test_an_index_finds_what_matches_each_once_and_in_order(known, topic):
    index = TopicIndex(list(zip(known, range(len(known)), strict=True)))
    assert index.matching(topic) == [n for n, pattern in enumerate(known) if oracle(pattern, topic)]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("orders.*.created", ["orders.eu.created"], ["orders.created", "orders.eu.de.created", "orders.eu"]),
        ("audit.#", ["audit", "audit.a", "audit.a.b"], ["audits", "an.audit"]),
        ("#", ["a", "a.b.c"], []),
        ("*", ["a"], ["a.b"]),
        ("#.error", ["error", "a.error", "a.b.error"], ["error.a"]),
        ("a.#.b.#.c", ["a.b.c", "a.x.b.c", "a.b.x.y.c", "a.b.b.c.c"], ["a.c.b", "a.b"]),
        ("a.b", ["a.b"], ["a", "a.b.c", "A.b"]),
    ],
)
def test_patterns_are_those_of_amqp(pattern, yes, no):
    assert [topic for topic in (*yes, *no) if matches(pattern, topic)] == yes


@pytest.mark.parametrize(
    "pattern",
    ["", ".", "a.", ".a", "a..b", "a.**", "a.b*", "#a", "a b", "ü", "a.\n", "a/b", "a." * 5, "$SYS"],
)
def test_what_is_no_pattern_is_refused_with_examples(pattern):
    with pytest.raises(InvalidMessage, match=r"cannot be used.*as in orders\.\*\.created or audit\.#"):
        check_pattern(pattern)


@given(patterns)
def test_what_is_a_pattern_is_taken(pattern):
    assert check_pattern(pattern) == pattern


def test_patterns_that_could_match_in_many_ways_are_answered_quickly():
    index = TopicIndex([(".".join(["#", "a"] * 60), 1), (".".join(["#"] * 100), 2)])
    start = time.perf_counter()
    assert index.matching(".".join(["a"] * 250)) == [1, 2]
    assert time.perf_counter() - start < 5  # as a regular expression it takes years


def test_patterns_that_share_no_word_are_not_looked_at():
    index = TopicIndex([(f"source-{n}.created", n) for n in range(50_000)])
    start = time.perf_counter()
    for _ in range(1_000):
        assert index.matching("source-777.created") == [777]
    assert time.perf_counter() - start < 5  # a thousand times fifty thousand take minutes
