"""Texts that begin in some way, as a range that an index has them in."""

from __future__ import annotations

_LAST_CHARACTER = "\U0010ffff"
_SURROGATES = range(0xD800, 0xE000)


def behind(prefix: str) -> str:
    """Return the first text behind all that begin so, in the order of bytes; nothing if there is none."""
    left = prefix.rstrip(_LAST_CHARACTER)
    if not left:
        return ""
    following = ord(left[-1]) + 1
    return left[:-1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
