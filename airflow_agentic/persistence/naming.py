"""Names and texts as every store keeps them, and values as JSON has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from airflow_agentic.errors import Category, ConfigurationError
from airflow_agentic.persistence.integrity import is_storable

LONGEST_KEY = 500
"""A key has at most so many characters."""

_LONGEST_TEXT = 2_000


def fault_of(name: Any, longest: int) -> str:
    """Return why something cannot be a name that every store keeps as it is; nothing if it can.

    Args:
        name: Whatever was given.
        longest: It has at most so many characters.
    """
    if not isinstance(name, str):
        return f"is a {type(name).__name__}, and not a text"
    if len(name) > longest:
        return f"has {len(name):,} characters, and at most {longest:,} are kept"
    return "" if is_storable(name) else "has a NUL or half a character in it"


def check_key(key: Any) -> str:
    """Refuse what cannot be a key.

    Raises:
        ConfigurationError: It is no text, empty, too long, or has a NUL or half a character in it.
    """
    if fault := "is empty" if key == "" else fault_of(key, LONGEST_KEY):
        raise ConfigurationError(f"the key of a run {fault}: use another one")
    return str(key)


def numbered(name: str, count: int) -> str:
    """Return a name that is asked for the n-th time as one of its own."""
    return name if count == 1 else f"{name}#{count}"


def shown(error: BaseException) -> str:
    """Return what an error says, as every store keeps it."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  # an error of somebody else's, that cannot even say what it is
        text = type(error).__name__
    return kept_text(text)


def said_of(
    error: BaseException, discreet: Callable[[str], str], category_of: Callable[[BaseException], Category]
) -> dict[str, str]:
    """Return what a journal says of a failure: ``error`` and ``category``.

    Args:
        error: What was raised.
        discreet: Takes secrets out of texts.
        category_of: Says what it means.
    """
    try:
        category = category_of(error)
    except Exception:  # noqa: BLE001  # as above: that it failed is recorded in any case
        category = Category.TRANSIENT
    return {"error": discreet(shown(error)), "category": category.value}


def kept_text(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Return a text for people, cut short, without what not every store keeps."""
    return text[:longest].replace("\0", "\\0").encode(errors="replace").decode()


def plain(value: Any) -> Any:
    """Return a value with its pydantic models as JSON."""
    try:
        return _plain(value)
    except RecursionError:
        return value  # Whoever makes JSON of it says where it is too deep, or contains itself.


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
