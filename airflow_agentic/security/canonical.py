"""JSON, strictly and in one form: what is not JSON is refused, and the place in the value that it is at is named."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic_core import from_json, to_json

DEEPEST = 199
"""So many lists and objects may lie in each other: one more, the envelope, is what readers of JSON take."""


_PLAIN = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
_SORTED = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def as_json(value: Any, path: str) -> bytes:
    """Return a value as JSON in UTF-8, with its keys in the order they have.

    Args:
        value: Any JSON value.
        path: How the caller calls it.

    Raises:
        ValueError: It is not JSON; the text names the place.
    """
    return _encoded(_PLAIN, value, path)[0]


def canonical(value: Any, path: str) -> bytes:
    """Return a value as JSON in UTF-8 in the form that digests are made of: keys sorted, no spaces.

    Equal values have equal bytes. That is RFC 8785 (JCS), but for numbers and the order of keys beyond the basic plane,
    which are as Python has them.

    Args:
        value: Any JSON value.
        path: How the caller calls it.

    Raises:
        ValueError: It is not JSON; the text names the place.
    """
    return _encoded(_SORTED, value, path)[0]


def canonical_and_read(value: Any, path: str) -> tuple[bytes, Any]:
    """Return what :func:`canonical` does, and the value as it will be read from it; the same errors."""
    return _encoded(_SORTED, value, path)


def _encoded(encoder: json.JSONEncoder, value: Any, path: str) -> tuple[bytes, Any]:
    try:
        # The same bytes in a third of the time, which is what a long text takes.
        text = to_json(value) if type(value) is str else encoder.encode(value).encode()
        [read] = from_json(b"[%b]" % text)  # what cannot be read again is not written
    except (TypeError, ValueError, RecursionError):
        raise ValueError(first_non_json(value, path)) from None
    return text, read


def first_non_json(value: Any, path: str) -> str:
    """Say which part of ``value`` is not JSON, as in ``data['user'].tags is a set``.

    Args:
        value: What could not be encoded.
        path: How the caller calls it.
    """
    try:
        return _search(value, path, ()) or f"{path} is not JSON"
    except RecursionError:
        return f"{path} is nested too deeply"


def _search(value: Any, path: str, above: tuple[int, ...]) -> str | None:
    if not isinstance(value, dict | list | tuple):
        return _fault(value, path)
    if id(value) in above:
        return f"{path} contains itself"
    if len(above) >= DEEPEST:
        raise RecursionError
    items: list[tuple[Any, Any]]
    if isinstance(value, dict):
        for key in value:
            if fault := _key_fault(key, path):
                return fault
        items = list(value.items())
    else:
        items = list(enumerate(value))
    above = (*above, id(value))
    return next((found for at, item in items if (found := _search(item, f"{path}[{at!r}]", above))), None)


def _fault(value: Any, path: str) -> str | None:
    if isinstance(value, str):
        return None if _is_unicode(value) else f"{path} has half a surrogate pair, which is not Unicode"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{path} is {value}, which JSON does not have"
    if value is None or isinstance(value, int):
        return None
    return f"{path} is a {type(value).__name__}, which is not JSON"


def _key_fault(key: Any, path: str) -> str | None:
    if not isinstance(key, str | int | float | bool | None):
        return f"{path} has a key of type {type(key).__name__}"
    if isinstance(key, str) and not _is_unicode(key):
        return f"{path} has a key with half a surrogate pair, which is not Unicode"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
