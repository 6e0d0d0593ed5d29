"""A message as the result of a task: the XCom leads to it, and the message is loaded when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from airflow_agentic.errors import MessageNotFound, UndecodableMessage
from airflow_agentic.xcom import MARK

if TYPE_CHECKING:
    from airflow_agentic.messaging.message import Message

_MESSAGE = "message"


class MessageReference(dict[str, Any]):
    """Leads to a message in a store.

    It is a plain ``dict`` of what ``messaging.delivery.reference`` says, so it can be stored and shown by any XCom
    backend. ``AgenticXComBackend`` gives it back as this class; nothing is read from the store before ``message`` or
    ``data`` is asked for.

    Args:
        values: What another reference holds.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._message: Message | None = None

    @classmethod
    def of(cls, message: Message, agentic_conn_id: str | None = None) -> Self:
        """Make a reference to a message.

        Args:
            message: Which.
            agentic_conn_id: The store that it is in; by default that of the tasks that read it.
        """
        # Every task process imports the backend, and few make references.
        from airflow_agentic.messaging.delivery import reference

        where = {} if agentic_conn_id is None else {"agentic_conn_id": agentic_conn_id}
        return cls({MARK: _MESSAGE, **reference(message), **where})

    @property
    def message(self) -> Message:
        """The message with its data, loaded once.

        Raises:
            MessageNotFound: It is not in the store (any more).
            UndecodableMessage: It was written by a newer version.
            ClaimCheckDamaged: Its data is kept elsewhere, and is gone or was changed.
            ConfigurationError: The connection cannot be used.
            StoreError: The store cannot be opened or read.
        """
        if self._message is None:
            self._message = self._loaded()
        return self._message

    @property
    def data(self) -> Any:
        """What the message carries; raises what ``message`` does."""
        return self.message.data

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        """Where it is carried to by pickling, a virtual environment for example, this package need not be."""
        return dict, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(dict(self))

    def _loaded(self) -> Message:
        # A store is not needed until somebody asks (promise P13).
        from airflow_agentic import runtime
        from airflow_agentic.messaging.ports import DeliveryQuery

        with runtime.open_store(self.get("agentic_conn_id")) as store:
            unreadable = None
            for record in store.bus.find(DeliveryQuery(message_id=str(self["id"]))):
                if record.message is None:
                    unreadable = record.reason
                elif record.message.source == self["source"]:
                    return store.bus.loaded(record.message)
        named = f"message {self['id']} from {self['source']!r}"
        if unreadable is not None:
            raise UndecodableMessage(f"{named}: {unreadable}")
        raise MessageNotFound(
            f"{named} is not in the store {store.url}: it was purged, or the reference is of another store"
        )


def with_references(value: Any) -> Any:
    """Return a value in which every dict that is a reference is a :class:`MessageReference`."""
    if type(value) is list:
        return [with_references(each) for each in value]
    if type(value) is tuple:
        return tuple(with_references(each) for each in value)
    if type(value) is not dict:
        return value
    if (
        value.get(MARK) == _MESSAGE
        and isinstance(value.get("id"), str)
        and isinstance(value.get("source"), str)
    ):
        return MessageReference(value)
    return {key: with_references(each) for key, each in value.items()}
