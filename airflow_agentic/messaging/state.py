"""Values that consumers keep in the store: they change in one commit with the ack of the message that changed them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from airflow_agentic.errors import InvalidMessage, StateConflict
from airflow_agentic.messaging.delivery import Delivery
from airflow_agentic.messaging.ports import StateChange, StateEntry, StateStore
from airflow_agentic.security.canonical import as_json

INBOX = "inbox/"
"""Beginning of the scopes that hold the receipts of consumers; old ones are forgotten. No mailbox is called so."""


def changes(
    scope: str, values: Mapping[str, Any] | None, versions: Mapping[str, int] | None = None
) -> list[StateChange]:
    """Return values as a store takes them.

    Raises:
        InvalidMessage: One is not JSON, or a version is given for a value that is not.
    """
    values, versions = values or {}, versions or {}
    if extra := sorted(set(versions) - set(values)):
        raise InvalidMessage(f"versions= names what state= does not change: {', '.join(extra)}")
    try:
        encoded = {
            key: None if value is None else as_json(value, f"state[{key!r}]") for key, value in values.items()
        }
    except ValueError as error:
        raise InvalidMessage(str(error)) from None
    return [StateChange(scope, key, value, versions.get(key)) for key, value in encoded.items()]


def receipt(consumer: str, source: str, message_id: str) -> StateChange:
    """Return the note that a consumer handled a message, which can be made once."""
    # With its length no other source and id look the same.
    return StateChange(INBOX + consumer, f"{len(source)} {source} {message_id}", b"true", expected=0)


def state_conflict(change: StateChange, version: int) -> StateConflict:
    """Return the error for a value that has another version than was expected."""
    return StateConflict(
        f"{change.key!r} of {change.scope!r} has version {version}, not {change.expected}: somebody else changed it. "
        "Nothing was changed; read it again."
    )


def effects(
    deliveries: Sequence[Delivery],
    state: Mapping[str, Any] | None,
    versions: Mapping[str, int] | None,
    inbox: str | None,
) -> list[StateChange]:
    """Return what handling deliveries changes: see ``Delivery.ack``.

    Raises:
        InvalidMessage: ``state`` is given for deliveries of several mailboxes, or is not JSON.
    """
    found: list[StateChange] = []
    if state or versions:
        scopes = {delivery.mailbox for delivery in deliveries}
        if len(scopes) != 1:
            raise InvalidMessage("state= is kept for a mailbox: ack deliveries of one mailbox at a time")
        found += changes(scopes.pop(), state, versions)
    if inbox is not None:
        # Once for a message, whose copies may be handled together.
        notes = [receipt(inbox, each.message.source, each.message.id) for each in deliveries]
        found += dict.fromkeys(notes)
    return found


class StateView:
    """The values of one scope.

    Args:
        store: Where.
        scope: Whose; that of ``delivery.ack(state=…)`` is the mailbox.
    """

    def __init__(self, store: StateStore, scope: str) -> None:
        self._store = store
        self._scope = scope

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or ``default``."""
        entry = self._store.read(self._scope, key)
        return default if entry is None else from_json(entry.value)

    def version(self, key: str) -> int:
        """Return the version of a value; 0 if there is none."""
        entry = self._store.read(self._scope, key)
        return 0 if entry is None else entry.version

    def read(self, key: str) -> tuple[Any, int]:
        """Return a value and its version, read together; ``(None, 0)`` if there is none."""
        entry = self._store.read(self._scope, key)
        return (None, 0) if entry is None else (from_json(entry.value), entry.version)

    def put(self, key: str, value: Any, version: int | None = None) -> None:
        """Keep a value; ``None`` forgets it.

        Args:
            key: Its name.
            value: Any JSON.
            version: Version that it must have now: 0 if it must not be there; by default that does not matter.

        Raises:
            StateConflict: It has another version.
            InvalidMessage: It is not JSON.
        """
        self._store.write(changes(self._scope, {key: value}, None if version is None else {key: version}))

    def entries(self, limit: int = 100) -> Iterator[StateEntry]:
        """Yield what is kept, ordered by key."""
        yield from self._store.entries(self._scope, limit)
