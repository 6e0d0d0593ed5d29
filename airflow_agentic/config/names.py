"""Names as people mistype them, and as environment variables spell them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")
_TOPIC_WORD = re.compile(r"[A-Za-z0-9_-]+|\*|#")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like ``name``, if one is like it at all."""
    by_spelling = {normalised(candidate): candidate for candidate in known}
    if normalised(name) in by_spelling:
        return by_spelling[normalised(name)]
    found = difflib.get_close_matches(normalised(name), by_spelling, n=1)
    return by_spelling[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the question to a person who mistyped a name, if there is a near one."""
    near = nearest(name, known)
    return None if near is None else f"did you mean {near!r}?"


def normalised(name: str) -> str:
    """Return the spelling in which an environment variable can say a name: ``license-auditor`` as ``license_auditor``."""
    return _NOT_ALPHANUMERIC.sub("_", name.lower())


def is_topic_pattern(pattern: str) -> bool:
    """Whether a text is words with dots between them, with ``*`` for one word and ``#`` for any number."""
    return all(_TOPIC_WORD.fullmatch(word) for word in pattern.split("."))
