"""The composition root: Airflow's configuration and connections in, wired services out.

The only module that reads Airflow's configuration.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.context import AgentContext, RunIdentity
from airflow_agentic.agents.registry import registry
from airflow_agentic.agents.runner import AgentRunner
from airflow_agentic.agents.transport import HttpTransport
from airflow_agentic.config.options import OPTIONS, SECTION
from airflow_agentic.config.settings import Settings
from airflow_agentic.errors import AgenticError, ConfigurationError, InvalidOption
from airflow_agentic.messaging.bus import BusOptions
from airflow_agentic.messaging.message import Message

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from airflow.sdk.definitions.context import Context

    from airflow_agentic.stores import Store

DEFAULT_CONN_ID = "agentic_default"
CONN_TYPE = "agentic"


@dataclass(frozen=True)
class StoreTarget:
    """Where a store is and what its bus may do.

    Attributes:
        url: The store.
        settings: Values of ``[agentic]`` with those of the connection on top.
        origin: Where the URL came from, for people.
        conn_id: The connection it came from, if any.
    """

    url: str
    settings: Settings
    origin: str
    conn_id: str | None = None

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
        )

    def open(self) -> Store:
        """Open the store; the caller closes it.

        Raises:
            StoreError: It cannot be opened, or its schema is of another version.
        """
        # SQLAlchemy is not needed until a store is opened (promise P13).
        from airflow_agentic.stores import open_store

        return open_store(self.url, options=self.options)


def settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Read ``[agentic]``, with ``overrides`` on top.

    Raises:
        InvalidOption: A value cannot be used.
    """
    return Settings.parse({**_configured(), **(overrides or {})})


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
    values = settings()
    if values.store_url:
        return StoreTarget(values.store_url, values, f"[{SECTION}] store_url")
    return StoreTarget(_embedded_url(), values, "the embedded default")


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
    keys = {option.key for option in OPTIONS}
    if unknown := sorted(set(extra) - keys - {"url"}):
        raise InvalidOption(
            f"connection {connection.conn_id!r} has unknown fields: {', '.join(unknown)}. "
            f"Known are url, {', '.join(sorted(keys - {'store_url'}))}."
        )
    own = {key: value for key, value in extra.items() if key in keys and value is not None}
    Settings.parse(own, where=f"connection {connection.conn_id!r}:")
    values = settings(own)
    url = extra.get("url") or values.store_url or _embedded_url()
    return StoreTarget(str(url), values, f"connection {connection.conn_id}", connection.conn_id)


def open_store(conn_id: str | None = None) -> Store:
    """Open the store of a connection; see :func:`target`. The caller closes it."""
    return target(conn_id).open()


def identity(context: Context) -> RunIdentity:
    """Return who is working, from a task's context."""
    ti = context["ti"]
    return RunIdentity(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        # Airflow raises max_tries when a task is cleared, and leaves it alone when it retries.
        generation=getattr(ti, "max_tries", 0) or 0,
        try_number=ti.try_number,
    )


def build_agent(name: str, config: Mapping[str, Any] | None, store: Store) -> BaseAgent[Any, Any]:
    """Make an agent whose state and numbers are kept in ``store``.

    Raises:
        UnknownAgent: No agent of that name is registered here.
        ConfigurationError: ``config`` does not fit the agent.
    """
    return registry.resolve(name).create(config, store.agents)


def build_runner(
    agent: BaseAgent[Any, Any],
    store: Store,
    run: RunIdentity,
    lease: timedelta | None = None,
    http: Callable[[str], HttpTransport] | None = None,
) -> AgentRunner:
    """Make the runner of an agent for one task of a DAG run.

    Args:
        agent: Which.
        store: Where its messages are.
        run: The task it works in.
        lease: How long a message belongs to it at a time; default: the bus's lease.
        http: Makes a transport for an HTTP connection.
    """

    def make_context(messages: tuple[Message, ...]) -> AgentContext:
        return AgentContext(agent.name, run=run, messages=messages, http=http)

    return AgentRunner(agent, store.bus, make_context, lease)


@contextlib.contextmanager
def airflow_failures() -> Iterator[None]:
    """Turn our errors that a retry cannot help into Airflow's failure that is not retried.

    Raises:
        AirflowFailException: In place of such an error, with its text.
    """
    from airflow.sdk.exceptions import AirflowFailException

    try:
        yield
    except AgenticError as error:
        if error.retry_helps:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def web_url(path: str) -> str:
    """Return the address of a page of Airflow's UI; relative if ``[api] base_url`` is not set."""
    from airflow.configuration import conf  # noqa: TID251  # see the module docstring

    base = conf.get("api", "base_url", fallback="") or ""
    return base.rstrip("/") + path


def _configured() -> dict[str, object]:
    from airflow.configuration import conf  # noqa: TID251  # see the module docstring

    return {option.key: conf.get(SECTION, option.key, fallback=None) for option in OPTIONS}


def _embedded_url() -> str:
    home = os.path.expanduser(os.environ.get("AIRFLOW_HOME", "~/airflow"))  # noqa: PTH111  # as Airflow does it
    return f"sqlite:///{home}/agentic.db"


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
