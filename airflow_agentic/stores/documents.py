"""What documents of guards may be: the same on every store, and refused before anything is asked of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airflow_agentic.errors import StoreError
from airflow_agentic.resilience.ports import GuardChange, GuardKey

NAME_CHARACTERS = 400
"""A name is no longer."""

VALUE_BYTES = 256 * 1024
"""A value is no longer."""

_SHOWN = 60


def check_keys(keys: Iterable[GuardKey]) -> None:
    """Refuse what no store can keep.

    Raises:
        StoreError: A name is too long, or is no text that every store keeps as it is.
    """
    for key in keys:
        check_name(key.kind, key.name)


def check_name(kind: str, name: str) -> None:
    """Refuse a name, or the beginning of names, that no store can keep.

    Raises:
        StoreError: It is too long, or is no text that every store keeps as it is.
    """
    if len(name) > NAME_CHARACTERS:
        raise StoreError(
            f"the name {name[:_SHOWN]!r}… of a {kind} has {len(name):,} characters, and a store keeps "
            f"{NAME_CHARACTERS}: use a shorter key"
        )
    if "\0" in name or not (name.isascii() or _has_bytes(name)):
        raise StoreError(
            f"the name {name[:_SHOWN]!r} of a {kind} has half a character or a NUL in it: use another key"
        )


def check_changes(changes: Sequence[GuardChange]) -> None:
    """Refuse changes that no store can make; none of them is to be made then.

    Raises:
        StoreError: A name or a value is too long, or one document is changed twice.
    """
    check_keys(change.key for change in changes)
    for change in changes:
        if change.value is not None and len(change.value) > VALUE_BYTES:
            raise StoreError(
                f"the {change.key.kind} {change.key.name[:_SHOWN]!r} would have {len(change.value):,} bytes, and a "
                f"store keeps {VALUE_BYTES:,}; nothing was changed. Spread it over more keys, or reset it"
            )
    if len({change.key for change in changes}) != len(changes):
        raise StoreError("one change names a document twice; nothing was changed. Make two changes of it")


def _has_bytes(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
