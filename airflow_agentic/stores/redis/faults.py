"""What went wrong between us and the server, as our own errors."""

from __future__ import annotations

from redis import exceptions

from airflow_agentic.errors import AgenticError, InvalidOption, StoreError, StoreNotWritable, StoreUnavailable

_NOT_WRITABLE = {
    "READONLY": "Name the primary server: this is a replica.",
    "OOM": "Its memory is full: raise maxmemory, or forget old messages (`airflow agentic messages purge`).",
    "MISCONF": "It cannot save to its disk: look at its log.",
    "NOPERM": "Let this user run EVAL, EVALSHA and the commands of the store on the keys of its prefix.",
}
_NOT_NOW = ("BUSY", "LOADING", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN", "CLUSTERDOWN", "UNKILLABLE")
_CLUSTER = ("MOVED", "ASK", "CROSSSLOT")
# What Redis 7.0 says of a script whose user may not do what it does.
_USER_OF_SCRIPT = "The user executing the script can't"


def translated(error: exceptions.RedisError, url: str, password: str | None) -> AgenticError:
    """Return our error for one of the driver.

    Args:
        error: What the driver raised.
        url: Where, without the password.
        password: What must not be shown.
    """
    code, text = _code(error), " ".join(str(error).split()).partition(" script: ")[0]
    if password:
        text = text.replace(password, "***")
    where = f"the store {url}"
    if code in _NOT_WRITABLE:
        return StoreNotWritable(f"{where} cannot be written: {text}. {_NOT_WRITABLE[code]}")
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError) or code in _NOT_NOW:
        return StoreUnavailable(f"cannot use {where}: {text}")
    if code in _CLUSTER:
        return InvalidOption(f"{where} is a Redis Cluster, which is not supported: name a single server")
    if isinstance(error, exceptions.DataError):
        return InvalidOption(f"{where} cannot be opened: {text}")
    return StoreError(f"{where} refused a command: {text}")


def is_lost_connection(error: exceptions.RedisError) -> bool:
    """Whether the server may not have seen the command, or its answer was lost; a new connection can help."""
    refused = exceptions.AuthenticationError | exceptions.AuthorizationError | exceptions.MaxConnectionsError
    lost = exceptions.ConnectionError | exceptions.TimeoutError
    return isinstance(error, lost) and not isinstance(error, refused)


def _code(error: exceptions.RedisError) -> str:
    if _USER_OF_SCRIPT in str(error):
        return "NOPERM"
    return str(getattr(error, "status_code", None) or str(error).partition(" ")[0])
