"""From a URL to a server that is fit to be a store."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis import exceptions

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.errors import InvalidOption, SchemaTooNew, StoreError
from airflow_agentic.stores.redis import faults
from airflow_agentic.stores.redis.connections import Connections
from airflow_agentic.stores.redis.scripts import SCHEMA
from airflow_agentic.stores.redis.server import RedisServer
from airflow_agentic.stores.redis.whole import WholeRedis
from airflow_agentic.stores.urls import masked

SCHEMA_VERSION = 1
"""Of the keys and what is in them."""

_OLDEST = (7, 0)
_FORM = "Use redis://user:password@host:6379/0, or rediss:// for TLS."
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
_OPTIONS = ("prefix", "timeout", *_TLS)
_PREFIX = re.compile(r"[A-Za-z0-9_.{}-]{1,100}")
_log = logging.getLogger(__name__)


def opened(url: str, clock: Callable[[], datetime] | None) -> WholeRedis:
    """Connect; see :func:`airflow_agentic.stores.redis.open_redis`."""
    shown, parsed = masked(url), _parsed(url)
    options = _options(parsed)
    connections = _connections(parsed, options)
    try:
        version = _version(connections)
        _check_version(version, shown)
        _warn_of_losses(connections, shown)
        server = WholeRedis(connections, shown, f"{options.get('prefix', 'agentic')}:", version, clock)
        _check_schema(server)
        server.probe()
    except exceptions.RedisError as error:
        connections.close()
        raise faults.translated(error, shown, connections.password) from None
    except BaseException:
        connections.close()
        raise
    return server


def _parsed(url: str) -> SplitResult:
    parsed = urlsplit(url)
    if not _has_port(parsed):
        raise InvalidOption(f"the store URL cannot be read. {_FORM}")
    if not parsed.hostname or parsed.fragment or parsed.port == 0:
        raise InvalidOption(f"the store URL {masked(url)} names no server. {_FORM}")
    database = parsed.path.removeprefix("/")
    if database and not database.isdecimal():
        raise InvalidOption(f"the database of the store URL {masked(url)} is no number. {_FORM}")
    return parsed


def _has_port(parsed: SplitResult) -> bool:
    """Whether the port is a number, or not there; the error of one that is neither can have a password in it."""
    with contextlib.suppress(ValueError):
        return parsed.port is None or parsed.port >= 0
    return False


def _options(parsed: SplitResult) -> dict[str, str]:
    options = dict(parse_qsl(parsed.query, keep_blank_values=True))
    known = _OPTIONS if parsed.scheme == "rediss" else tuple(name for name in _OPTIONS if name not in _TLS)
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known) or f"known are {', '.join(known)}"
            raise InvalidOption(f"the store URL has an unknown option {name!r}: {hint}")
    if not _PREFIX.fullmatch(options.get("prefix", "agentic")):
        raise InvalidOption(
            f"the option prefix of the store URL is {options['prefix']!r}; use letters, digits and . _ - {{ }}"
        )
    return options


def _connections(parsed: SplitResult, options: dict[str, str]) -> Connections:
    timeout = _seconds(options.get("timeout", "30"))
    values: dict[str, Any] = {
        "host": parsed.hostname,
        "port": parsed.port or 6379,
        "db": int(parsed.path.removeprefix("/") or 0),
        "username": None if not parsed.username else unquote(parsed.username),
        "password": None if parsed.password is None else unquote(parsed.password),
        "socket_connect_timeout": min(10.0, timeout),
        "socket_timeout": timeout,
        "socket_keepalive": True,
        "socket_keepalive_options": _keepalive(),
        **{name: value for name, value in options.items() if name in _TLS},
    }
    return Connections(tls=parsed.scheme == "rediss", **values)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise InvalidOption(f"the option timeout of the store URL is {text!r}; it takes seconds, more than 0")
    return seconds


def _keepalive() -> dict[int, int]:
    """A server that is gone without a word is noticed within half a minute."""
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def _version(connections: Connections) -> str:
    try:
        # Unlike INFO, it is allowed to everybody.
        said = connections.ask("HELLO")
    except exceptions.ResponseError as error:
        if "unknown command" in str(error):
            return "5.0 or older"
        raise
    return str(dict(zip(said[::2], said[1::2], strict=True))[b"version"].decode())


def _check_version(version: str, shown: str) -> None:
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < _OLDEST:
        raise StoreError(
            f"the store {shown} runs Redis {version}; it takes 7.0 or newer. Upgrade the server, or name another."
        )


def _warn_of_losses(connections: Connections, shown: str) -> None:
    try:
        said = connections.ask("CONFIG", "GET", "append*", "maxmemory-policy")
    except exceptions.ResponseError:
        # Hosted servers do not tell.
        return
    config = {said[i].decode(): said[i + 1].decode() for i in range(0, len(said), 2)}
    faults_found = []
    if config.get("appendonly") == "no":
        faults_found.append(
            "may lose all messages since its last snapshot (set appendonly yes, appendfsync always)"
        )
    elif config.get("appendfsync", "always") != "always":
        faults_found.append("may lose about a second of messages (set appendfsync always)")
    if (policy := config.get("maxmemory-policy", "noeviction")) != "noeviction":
        faults_found.append(
            f"may drop messages when its memory is full (maxmemory-policy is {policy}: set noeviction)"
        )
    if faults_found:
        _log.warning("the store %s %s", shown, ", and ".join(faults_found))


def _check_schema(server: RedisServer) -> None:
    found = server.run(SCHEMA, SCHEMA_VERSION).decode(errors="replace")
    if not found.isdecimal() or int(found) > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the store {server.url} has schema {found}, this version knows up to {SCHEMA_VERSION}. "
            "Upgrade airflow-provider-agentic here."
        )
