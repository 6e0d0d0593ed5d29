"""Which store is meant: connections and settings in, a target out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, cast

from airflow_agentic.config.options import BOOTSTRAP, DEPLOYMENT, OPTIONS, SECTION
from airflow_agentic.config.settings import Settings
from airflow_agentic.errors import ConfigurationError, InvalidOption
from airflow_agentic.messaging.options import BusOptions, MailboxRules
from airflow_agentic.messaging.ports import Blobs, Overflow
from airflow_agentic.messaging.routing import Subscription
from airflow_agentic.runtime.configuration import embedded_url, project, settings_of
from airflow_agentic.runtime.connections import CONN_TYPE, url_of
from airflow_agentic.runtime.ports import AirflowMetrics

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_agentic.config.faults import FaultRule
    from airflow_agentic.config.policies import Budget, FailureRule
    from airflow_agentic.config.project import Project
    from airflow_agentic.stores import Store

DEFAULT_CONN_ID = "agentic_default"


@dataclass(frozen=True)
class StoreTarget:
    """Where a store is and what its bus may do.

    Attributes:
        url: The store, with its password if there is one in it: see ``shown``.
        settings: Values of ``[agentic]`` with those of the connection on top.
        origin: Where the URL came from, for people.
        conn_id: The connection it came from, if any.
        mailboxes: Mailboxes of which the project says something.
        subscriptions: Those that the project declares.
        failures: What the project says that failures mean.
        budgets: Those that the project declares.
        faults: Rules of fault injection that the project declares; obeyed if ``fault_injection`` is set.
    """

    url: str = field(repr=False)
    settings: Settings
    origin: str
    conn_id: str | None = None
    mailboxes: Mapping[str, MailboxRules] = field(default_factory=dict)
    subscriptions: tuple[Subscription, ...] = ()
    failures: tuple[FailureRule, ...] = ()
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    faults: Mapping[str, FaultRule] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The URL for people, without its password."""
        from airflow_agentic.stores.urls import masked

        return masked(self.url)

    @property
    def options(self) -> BusOptions:
        """The settings as the bus takes them."""
        said = self.settings
        return BusOptions(
            max_message_bytes=said.max_message_bytes,
            max_attempts=said.max_attempts,
            lease=said.lease,
            retry_base=timedelta(seconds=said.retry_base_seconds),
            retry_max=timedelta(seconds=said.retry_max_seconds),
            poll=timedelta(seconds=said.poll_seconds),
            request_timeout=timedelta(seconds=said.request_timeout_seconds),
            heartbeat=timedelta(seconds=said.heartbeat_seconds),
            dedup_window=timedelta(seconds=said.dedup_window_seconds),
            claim_check_bytes=said.claim_check_bytes,
            mailbox_limit=said.mailbox_limit,
            overflow=cast("Overflow", said.mailbox_overflow),
            block=timedelta(seconds=said.block_seconds),
            mailboxes=self.mailboxes,
            subscriptions=self.subscriptions,
        )

    @property
    def blobs(self) -> Blobs | None:
        """Where large data is kept; ``None`` if it travels."""
        if not self.settings.claim_check_path:
            return None
        from airflow_agentic.runtime.ports import ObjectStorageBlobs

        return ObjectStorageBlobs(self.settings.claim_check_path)

    def open(self, owner: str | None = None, *, calm: bool = False) -> Store:
        """Open the store; the caller closes it.

        Args:
            owner: Name of this process in leases and histories; default ``host:pid``.
            calm: Inject no faults, whatever is configured: for people who look at things.

        Raises:
            ProjectInvalid: The filter of a declared subscription does not compile.
            StoreError: It cannot be opened, or its schema is of another version.
        """
        # SQLAlchemy and CEL are not needed until a store is opened (promise P13).
        from airflow_agentic.resilience import Classifier, GuardOptions
        from airflow_agentic.stores import open_store

        if any(each.filter for each in self.subscriptions):
            from airflow_agentic.messaging.declared import require_usable

            require_usable(self.subscriptions)
        metrics = AirflowMetrics()
        return open_store(
            self.url,
            options=self.options,
            owner=owner,
            metrics=metrics,
            blobs=self.blobs,
            guard_options=GuardOptions(Classifier(self.failures), self.budgets, metrics),
            faults=self.faults if self.settings.fault_injection and not calm else None,
        )


def target(conn_id: str | None = None) -> StoreTarget:
    """Find the store of a connection.

    Args:
        conn_id: A connection of type ``agentic``, ``postgres`` or ``redis``. By default ``agentic_default`` if it
            exists, else ``[agentic] store_url``, else the embedded SQLite file under AIRFLOW_HOME.

    Raises:
        ConfigurationError: The named connection does not exist or is of another type.
        InvalidOption: One of its values cannot be used.
    """
    connection = _connection(conn_id)
    if connection is not None:
        return target_of(connection)
    declared = project()
    values = settings_of(declared)
    origin = f"[{SECTION}] store_url" if values.store_url else "the embedded default"
    return _target(declared, values, values.store_url or embedded_url(), origin)


def target_at(url: str, origin: str) -> StoreTarget:
    """Make a target of a URL that somebody gave.

    Args:
        url: Of the store.
        origin: Who gave it, for people.

    Raises:
        ProjectInvalid: The project configuration cannot be used.
    """
    declared = project()
    return _target(declared, settings_of(declared), url, origin)


def target_of(connection: Connection) -> StoreTarget:
    """Find the store of a connection at hand.

    Raises:
        ConfigurationError: It is of another type.
        InvalidOption: One of its values cannot be used.
    """
    origin = f"connection {connection.conn_id}"
    if connection.conn_type != CONN_TYPE:
        url = url_of(connection)
        declared = project()
        return _target(declared, settings_of(declared), url, origin, connection.conn_id)
    extra = connection.extra_dejson
    keys = {option.key for option in OPTIONS} - BOOTSTRAP - DEPLOYMENT
    if unknown := sorted(set(extra) - keys - {"url"}):
        raise InvalidOption(
            f"connection {connection.conn_id!r} has unknown fields: {', '.join(unknown)}. "
            f"Known are url, {', '.join(sorted(keys - {'store_url'}))}."
        )
    own = {key: value for key, value in extra.items() if key in keys and value not in (None, "")}
    where = f"connection {connection.conn_id!r}:"
    Settings.parse(own, where=where)
    declared = project()
    values = settings_of(declared, own, where)
    url = str(extra.get("url") or values.store_url or embedded_url())
    return _target(declared, values, url, origin, connection.conn_id)


def open_store(conn_id: str | None = None, owner: str | None = None) -> Store:
    """Open the store of a connection; see :func:`target`. The caller closes it.

    Args:
        conn_id: See :func:`target`.
        owner: Name of this process in leases and histories; default ``host:pid``.
    """
    return target(conn_id).open(owner)


def _target(
    declared: Project, values: Settings, url: str, origin: str, conn_id: str | None = None
) -> StoreTarget:
    from airflow_agentic.messaging.declared import declared_subscriptions, mailbox_rules

    return StoreTarget(
        url,
        values,
        origin,
        conn_id,
        mailbox_rules(declared),
        declared_subscriptions(declared),
        declared.failures,
        declared.budgets,
        declared.faults,
    )


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
