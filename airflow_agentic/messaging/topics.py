"""Topics and patterns of topics: words with dots between them, as in AMQP 0-9-1.

In a pattern ``*`` stands for one word and ``#`` for any number of words, none included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from airflow_agentic.config.names import is_topic_pattern
from airflow_agentic.errors import InvalidMessage

T = TypeVar("T")

TOPIC_PATTERN = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"


def check_pattern(pattern: str) -> str:
    """Return a pattern that can be matched.

    Raises:
        InvalidMessage: It is not made of words, ``*`` and ``#`` with dots between them.
    """
    if not is_topic_pattern(pattern):
        raise InvalidMessage(
            f"the topic pattern {pattern!r} cannot be used: write words with dots between them, with * for one "
            "word and # for any number, as in orders.*.created or audit.#"
        )
    return pattern


@dataclass
class _Node(Generic[T]):
    here: list[tuple[int, T]] = field(default_factory=list)
    below: dict[str, _Node[T]] = field(default_factory=dict)


class TopicIndex(Generic[T]):
    """Finds whatever is filed under patterns that match a topic; a pattern that shares no word is never looked at.

    Args:
        entries: Patterns, and what is filed under each.
    """

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        self._root: _Node[T] = _Node()
        for position, (pattern, value) in enumerate(entries):
            node = self._root
            for word in pattern.split("."):
                node = node.below.setdefault(word, _Node())
            node.here.append((position, value))

    def matching(self, topic: str) -> list[T]:
        """Return what matches a topic, in the order it was filed; a value that is filed twice is returned twice."""
        words = topic.split(".")
        # A pattern with several # may reach one node in several ways: each node counts once.
        found: dict[int, _Node[T]] = {}
        seen: set[tuple[int, int]] = set()
        todo = [(self._root, 0)]
        while todo:
            node, at = todo.pop()
            if (id(node), at) in seen:
                continue
            seen.add((id(node), at))
            if at == len(words):
                found[id(node)] = node
            todo.extend(_next(node, words, at))
        filed = [entry for node in found.values() for entry in node.here]
        return [value for _, value in sorted(filed, key=lambda entry: entry[0])]


def _next(node: _Node[T], words: list[str], at: int) -> Iterator[tuple[_Node[T], int]]:
    if rest := node.below.get("#"):
        yield from ((rest, end) for end in range(at, len(words) + 1))
    if at < len(words):
        for word in (words[at], "*"):
            if follower := node.below.get(word):
                yield follower, at + 1
