"""Whether a Redis server keeps what it says that it has written."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from airflow_agentic.cli.checks.finding import Finding, Result
from airflow_agentic.runtime import StoreTarget

CHECK = "durability"

_PATIENCE_SECONDS = 10
_ASKED = ("appendonly", "appendfsync", "maxmemory-policy")


def is_redis(target: StoreTarget) -> bool:
    """Whether a store is on Redis."""
    return urlsplit(target.url).scheme in ("redis", "rediss")


def durability(target: StoreTarget) -> Finding:
    """Ask a Redis server when it writes to its disk, and what it drops when its memory is full."""
    from redis import Redis, exceptions

    parsed = urlsplit(target.url)
    # What else is there is for the store, not for the driver.
    options = [(name, value) for name, value in parse_qsl(parsed.query) if name.startswith("ssl_")]
    where = parsed._replace(query=urlencode(options)).geturl()
    with Redis.from_url(where, decode_responses=True, socket_timeout=_PATIENCE_SECONDS, protocol=2) as server:
        try:
            said: Any = server.config_get(*_ASKED)
        except exceptions.ResponseError:
            return Finding(
                CHECK,
                Result.OK,
                "the server does not tell its settings; ask whoever runs it for appendonly yes, appendfsync always and "
                "maxmemory-policy noeviction",
            )
    return judged(said)


def judged(said: dict[str, str]) -> Finding:
    """Judge the settings of a server."""
    losses, settings = [], []
    if said.get("appendonly", "yes") != "yes":
        losses.append("all messages since its last snapshot, when it ends without one (appendonly is no)")
        settings += ["appendonly yes", "appendfsync always"]
    elif (sync := said.get("appendfsync", "always")) != "always":
        losses.append(f"about a second of messages, when its machine fails (appendfsync is {sync})")
        settings.append("appendfsync always")
    if (policy := said.get("maxmemory-policy", "noeviction")) != "noeviction":
        losses.append(f"messages, when its memory is full (maxmemory-policy is {policy})")
        settings.append("maxmemory-policy noeviction")
    if not losses:
        return Finding(CHECK, Result.OK, "what is sent is on the server's disk, and nothing is dropped")
    commands = "; ".join(f"CONFIG SET {setting}" for setting in settings)
    return Finding(
        CHECK,
        Result.WARNING,
        f"the server may lose {' and '.join(losses)}",
        f"in redis-cli: {commands}; CONFIG REWRITE",
    )
