"""The connection type ``agentic``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from airflow_agentic import runtime
from airflow_agentic.errors import AgenticError

if TYPE_CHECKING:
    from airflow_agentic.stores import Store


class AgenticHook(BaseHook):
    """Opens the store of a connection: ``with AgenticHook().get_conn() as store: store.bus.send(…)``.

    Args:
        agentic_conn_id: A connection of type ``agentic``, ``postgres`` or ``redis``; by default ``agentic_default`` if
            it exists, else ``[agentic] store_url``, else the embedded SQLite file under AIRFLOW_HOME.
    """

    conn_name_attr = "agentic_conn_id"
    default_conn_name = runtime.DEFAULT_CONN_ID
    conn_type = runtime.CONN_TYPE
    hook_name = "Agentic store"

    def __init__(self, agentic_conn_id: str | None = None) -> None:
        super().__init__()
        self.agentic_conn_id = agentic_conn_id

    def get_conn(self) -> Store:
        """Open the store; use it as a context manager or close it.

        Raises:
            ConfigurationError: The connection does not exist, is of another type or has a bad value.
            StoreError: The store cannot be opened, or its schema is of another version.
        """
        return runtime.open_store(self.agentic_conn_id)

    def test_connection(self) -> tuple[bool, str]:
        """Open the store, read it and prove that it can be written; leaves nothing behind in it.

        Returns:
            Whether it works, and a sentence for the person who asked.
        """
        try:
            found = runtime.target(self.agentic_conn_id)
            with found.open() as store:
                schema = store.probe()
                boxes = store.bus.mailboxes()
        except AgenticError as error:
            return False, f"{type(error).__name__}: {error}"
        waiting = sum(box.ready for box in boxes)
        return (
            True,
            f"{found.shown}: schema {schema}, {len(boxes)} mailboxes, {waiting} messages ready, writable",
        )
