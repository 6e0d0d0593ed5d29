"""Airflow connections of servers, as URLs of stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow_agentic.config.options import BOOTSTRAP, OPTIONS, SECTION
from airflow_agentic.errors import ConfigurationError, InvalidOption

if TYPE_CHECKING:
    from airflow.sdk import Connection

CONN_TYPE = "agentic"
"""Connections of this type name the store by its URL, and may set options of the bus."""

# Of the extra of Airflow's PostgreSQL connections, what libpq knows; the rest is for Airflow's hooks.
_LIBPQ = frozenset(
    {
        "application_name", "channel_binding", "client_encoding", "connect_timeout", "gssencmode", "hostaddr",
        "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname",
        "load_balance_hosts", "options", "passfile", "require_auth", "service", "sslcert", "sslcompression",
        "sslcrl", "sslcrldir", "sslkey", "sslmode", "sslpassword", "sslrootcert", "sslsni",
        "target_session_attrs", "tcp_user_timeout",
    }
)  # fmt: skip
# Airflow's hook would ask a cloud for the password.
_CLOUD = ("iam", "redshift", "azure_conn_id")
_TLS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_keyfile", "ssl_certfile")
_NO = (False, "false", "False", 0)
_REDIS_PORT = 6379


def url_of(connection: Connection) -> str:
    """Return the URL of the store that a connection of a server's own type leads to, with its password.

    Raises:
        ConfigurationError: It is of another type.
        InvalidOption: It has something that cannot be used here.
    """
    make = {"postgres": _postgresql, "redis": _redis}.get(connection.conn_type or "")
    if make is None:
        raise ConfigurationError(
            f"connection {connection.conn_id!r} is of type {connection.conn_type!r}; the agentic provider needs one of "
            f"type {CONN_TYPE!r}, 'postgres' or 'redis'"
        )
    extra = connection.extra_dejson
    if ours := sorted(({option.key for option in OPTIONS} - BOOTSTRAP) & set(extra)):
        raise InvalidOption(
            f"connection {connection.conn_id!r} is of type {connection.conn_type!r} and sets {', '.join(ours)}: say that "
            f"in [{SECTION}], or in a connection of type {CONN_TYPE!r} that names the same server by its URL"
        )
    return make(connection, extra)


def _postgresql(connection: Connection, extra: dict[str, Any]) -> str:
    if clouds := [key for key in _CLOUD if extra.get(key)]:
        raise InvalidOption(
            f"connection {connection.conn_id!r} gets its password from a cloud ({', '.join(clouds)}), which this provider "
            f"does not do: name the server in a connection of type {CONN_TYPE!r}"
        )
    from sqlalchemy.engine import URL

    host = connection.host or ""
    options = {key: _text(extra[key]) for key in sorted(_LIBPQ & set(extra)) if extra[key] not in (None, "")}
    is_socket = host.startswith("/")
    if is_socket:
        options["host"] = host
    made = URL.create(
        "postgresql",
        username=connection.login or None,
        password=connection.password or None,
        host=None if is_socket else host or None,
        port=connection.port,
        database=connection.schema or None,
        query=options,
    )
    return made.render_as_string(hide_password=False)


def _redis(connection: Connection, extra: dict[str, Any]) -> str:
    database = str(extra.get("db") if extra.get("db") not in (None, "") else connection.schema or "0")
    if not database.isdecimal():
        raise InvalidOption(
            f"connection {connection.conn_id!r} names the database {database!r}; Redis has numbers: give db in the extra"
        )
    secure = bool(extra.get("ssl")) and extra["ssl"] not in _NO
    if secure and "ssl_check_hostname" in extra and extra["ssl_check_hostname"] in _NO:
        raise InvalidOption(
            f"connection {connection.conn_id!r} sets ssl_check_hostname to false, which a store does not take: name the "
            "server as its certificate does, or check no certificate at all (ssl_cert_reqs: none)"
        )
    options = {key: _text(extra[key]) for key in _TLS if extra.get(key) not in (None, "")} if secure else {}
    who = ":".join(quote(part, safe="") for part in (connection.login or "", connection.password or ""))
    host = connection.host or "localhost"
    if ":" in host:
        host = f"[{host}]"
    return (
        f"{'rediss' if secure else 'redis'}://{'' if who == ':' else f'{who}@'}{host}:{connection.port or _REDIS_PORT}"
        f"/{database}{'?' if options else ''}{urlencode(options)}"
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
