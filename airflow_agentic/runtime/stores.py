"""Which store is meant: connections and settings in, a target out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_agentic.config.options import BOOTSTRAP, OPTIONS, SECTION
from airflow_agentic.config.settings import Settings
from airflow_agentic.errors import ConfigurationError, InvalidOption
from airflow_agentic.messaging.bus import BusOptions
from airflow_agentic.runtime.configuration import embedded_url, project, settings_of

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_agentic.config.project import Project
    from airflow_agentic.stores import Store

DEFAULT_CONN_ID = "agentic_default"
CONN_TYPE = "agentic"


@dataclass(frozen=True)
class StoreTarget:
    """Where a store is and what its bus may do.

    Attributes:
        url: The store, with its password if there is one in it: see ``shown``.
        settings: Values of ``[agentic]`` with those of the connection on top.
        origin: Where the URL came from, for people.
        conn_id: The connection it came from, if any.
        attempts: Attempts of mailboxes whose agents have a policy that says so.
    """

    url: str = field(repr=False)
    settings: Settings
    origin: str
    conn_id: str | None = None
    attempts: Mapping[str, int] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The URL for people, without its password."""
        from airflow_agentic.stores.urls import masked

        return masked(self.url)

    @property
    def options(self) -> BusOptions:
        """The settings as the bus takes them."""
        return BusOptions(
            max_message_bytes=self.settings.max_message_bytes,
            max_attempts=self.settings.max_attempts,
            lease=self.settings.lease,
            retry_base=timedelta(seconds=self.settings.retry_base_seconds),
            retry_max=timedelta(seconds=self.settings.retry_max_seconds),
            poll=timedelta(seconds=self.settings.poll_seconds),
            attempts=self.attempts,
        )

    def open(self) -> Store:
        """Open the store; the caller closes it.

        Raises:
            StoreError: It cannot be opened, or its schema is of another version.
        """
        # SQLAlchemy is not needed until a store is opened (promise P13).
        from airflow_agentic.stores import open_store

        return open_store(self.url, options=self.options)


def target(conn_id: str | None = None) -> StoreTarget:
    """Find the store of a connection.

    Args:
        conn_id: A connection of type ``agentic``. By default ``agentic_default`` if it exists, else
            ``[agentic] store_url``, else the embedded SQLite file under AIRFLOW_HOME.

    Raises:
        ConfigurationError: The named connection does not exist or is of another type.
        InvalidOption: One of its values cannot be used.
    """
    connection = _connection(conn_id)
    if connection is not None:
        return target_of(connection)
    declared = project()
    values = settings_of(declared)
    if values.store_url:
        return StoreTarget(values.store_url, values, f"[{SECTION}] store_url", attempts=_attempts(declared))
    return StoreTarget(embedded_url(), values, "the embedded default", attempts=_attempts(declared))


def target_of(connection: Connection) -> StoreTarget:
    """Find the store of a connection at hand.

    Raises:
        ConfigurationError: It is of another type.
        InvalidOption: One of its values cannot be used.
    """
    if connection.conn_type != CONN_TYPE:
        raise ConfigurationError(
            f"connection {connection.conn_id!r} is of type {connection.conn_type!r}; "
            f"the agentic provider needs one of type {CONN_TYPE!r}"
        )
    extra = connection.extra_dejson
    keys = {option.key for option in OPTIONS} - BOOTSTRAP
    if unknown := sorted(set(extra) - keys - {"url"}):
        raise InvalidOption(
            f"connection {connection.conn_id!r} has unknown fields: {', '.join(unknown)}. "
            f"Known are url, {', '.join(sorted(keys - {'store_url'}))}."
        )
    own = {key: value for key, value in extra.items() if key in keys and value is not None}
    Settings.parse(own, where=f"connection {connection.conn_id!r}:")
    declared = project()
    values = settings_of(declared, own)
    url = extra.get("url") or values.store_url or embedded_url()
    origin = f"connection {connection.conn_id}"
    return StoreTarget(str(url), values, origin, connection.conn_id, _attempts(declared))


def open_store(conn_id: str | None = None) -> Store:
    """Open the store of a connection; see :func:`target`. The caller closes it."""
    return target(conn_id).open()


def _connection(conn_id: str | None) -> Connection | None:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection: Connection = BaseHook.get_connection(conn_id or DEFAULT_CONN_ID)
    except AirflowNotFoundException:
        if conn_id is None or conn_id == DEFAULT_CONN_ID:
            return None
        raise ConfigurationError(
            f"there is no connection {conn_id!r}. Create it (type 'agentic'), or leave the connection out to use "
            f"{DEFAULT_CONN_ID} or [{SECTION}] store_url."
        ) from None
    return connection


def _attempts(declared: Project) -> dict[str, int]:
    """A message's attempts are counted from when it is sent: so its sender must know them."""
    policies = {name: agent.policy for name, agent in declared.agents.items() if agent.policy}
    retries = {name: declared.policies[policy].retry.max_attempts for name, policy in policies.items()}
    return {name: attempts for name, attempts in retries.items() if attempts is not None}
