"""What failures mean: every exception, HTTP status and database error has a category, and users may say otherwise."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_agentic.config.policies import FailureRule
from airflow_agentic.errors import (
    AgenticError,
    Category,
    NotAdmitted,
    ServiceError,
    ServiceRefused,
    ServiceThrottled,
)

# RFC 9110, RFC 8470 and RFC 6585: the only client errors that say nothing against trying again.
_STATUSES: Mapping[int, Category] = {
    401: Category.CONFIGURATION,
    403: Category.CONFIGURATION,
    407: Category.CONFIGURATION,
    408: Category.TRANSIENT,
    425: Category.TRANSIENT,
    429: Category.RESOURCE_EXHAUSTION,
    501: Category.PERMANENT,
    505: Category.PERMANENT,
    507: Category.RESOURCE_EXHAUSTION,
}
# Names, as most of these classes are of packages that need not be there. With the module's first part where the name
# alone says too little; a class is known by its own name and by those of what it is derived from.
_NAMES: Mapping[str, Category] = {
    "asyncio.CancelledError": Category.CANCELLED,
    "builtins.KeyboardInterrupt": Category.CANCELLED,
    "builtins.SystemExit": Category.CANCELLED,
    "builtins.GeneratorExit": Category.CANCELLED,
    # A durable run that waits: it says nothing of the other side.
    "airflow_agentic.RunSuspended": Category.CANCELLED,
    "airflow.AirflowTaskTerminated": Category.CANCELLED,
    "airflow.AirflowTaskTimeout": Category.DEADLINE_EXCEEDED,
    "builtins.TimeoutError": Category.DEADLINE_EXCEEDED,
    "requests.Timeout": Category.DEADLINE_EXCEEDED,
    "httpx.TimeoutException": Category.DEADLINE_EXCEEDED,
    "aiohttp.ServerTimeoutError": Category.DEADLINE_EXCEEDED,
    "redis.TimeoutError": Category.DEADLINE_EXCEEDED,
    "builtins.MemoryError": Category.RESOURCE_EXHAUSTION,
    "airflow.AirflowNotFoundException": Category.CONFIGURATION,
    "airflow.AirflowConfigException": Category.CONFIGURATION,
    "airflow.AirflowOptionalProviderFeatureException": Category.CONFIGURATION,
    "airflow.AirflowFailException": Category.PERMANENT,
    "builtins.ImportError": Category.CONFIGURATION,
    "builtins.NotImplementedError": Category.PERMANENT,
    "requests.InvalidURL": Category.CONFIGURATION,
    "requests.MissingSchema": Category.CONFIGURATION,
    "requests.InvalidSchema": Category.CONFIGURATION,
    "httpx.InvalidURL": Category.CONFIGURATION,
    "httpx.UnsupportedProtocol": Category.CONFIGURATION,
    "httpx.PoolTimeout": Category.RESOURCE_EXHAUSTION,
    "aiohttp.InvalidURL": Category.CONFIGURATION,
    "aiohttp.NonHttpUrlClientError": Category.CONFIGURATION,
    **{
        f"{module}.{name}": Category.PERMANENT
        for module in ("sqlalchemy", "sqlite3", "psycopg", "psycopg2")
        for name in ("IntegrityError", "DataError", "ProgrammingError", "NotSupportedError")
    },
    "sqlalchemy.TimeoutError": Category.RESOURCE_EXHAUSTION,
    "psycopg_pool.PoolTimeout": Category.RESOURCE_EXHAUSTION,
    "redis.AuthenticationError": Category.CONFIGURATION,
    "redis.NoPermissionError": Category.CONFIGURATION,
    "redis.OutOfMemoryError": Category.RESOURCE_EXHAUSTION,
    "redis.MaxConnectionsError": Category.RESOURCE_EXHAUSTION,
    # A server that is starting, failing over or being moved; what else it answers with is about the request.
    "redis.ReadOnlyError": Category.TRANSIENT,
    "redis.ClusterDownError": Category.TRANSIENT,
    "redis.TryAgainError": Category.TRANSIENT,
    "redis.MasterDownError": Category.TRANSIENT,
    "redis.ResponseError": Category.PERMANENT,
}
# OSError: no space, too many open files.
_EXHAUSTED = frozenset({28, 23, 24, 122, 12})
# PostgreSQL's classes of errors (appendix A of its manual).
_SQLSTATES: Mapping[str, Category] = {
    "08": Category.TRANSIENT,
    "40": Category.TRANSIENT,
    "53": Category.RESOURCE_EXHAUSTION,
    "57": Category.TRANSIENT,
    "28": Category.CONFIGURATION,
    "3D": Category.CONFIGURATION,
    "42501": Category.CONFIGURATION,
    "42": Category.PERMANENT,
    "22": Category.PERMANENT,
    "23": Category.PERMANENT,
}
_LONGEST_ASKED_SECONDS = 31 * 86_400.0
_DEEPEST = 10  # errors that wrap errors
_UNHEALTHY = frozenset({Category.TRANSIENT, Category.RESOURCE_EXHAUSTION, Category.DEADLINE_EXCEEDED})


@dataclass(frozen=True)
class Failure:
    """What a failure means.

    Attributes:
        category: What it is.
        retry_after_seconds: Nobody should try again before that; ``None`` if nothing was said.
        status: HTTP status, if there was an answer.
        begun: Whether the work was begun; a guard that refuses it says nothing about the other side.
    """

    category: Category
    retry_after_seconds: float | None = None
    status: int | None = None
    begun: bool = True

    @property
    def is_unhealthy(self) -> bool | None:
        """Whether a breaker counts it as a failure; ``None`` if it says nothing of the other side's health.

        An answer that refuses the request (most of 4xx) is a sign of life.
        """
        if not self.begun or self.category is Category.CANCELLED:
            return None
        if self.category in _UNHEALTHY:
            return True
        return None if self.category is Category.CONFIGURATION and self.status is None else False


class Classifier:
    """Says what exceptions mean.

    Args:
        rules: What the project file says; the first one that fits decides.
    """

    def __init__(self, rules: Sequence[FailureRule] = ()) -> None:
        self._rules = tuple(rules)

    def failure(self, error: BaseException) -> Failure:
        """Return what an exception means. What is not known is transient: a try more is the smaller harm."""
        source = _source(error)
        status, after = _status(source), _retry_after(source)
        for rule in self._rules:
            if _fits(rule, error, status):
                after = rule.retry_after_seconds if rule.retry_after_seconds is not None else after
                return Failure(Category(rule.category), after, status)
        if isinstance(error, NotAdmitted):
            left = (
                None
                if error.retry_at is None
                else max(0.0, (error.retry_at - datetime.now(UTC)).total_seconds())
            )
            return Failure(Category(error.category), left, begun=False)
        return Failure(_category(source) or Category.TRANSIENT, after, status)


def category_of(error: BaseException) -> Category:
    """Return the category of an exception by the provider's own judgement."""
    return _DEFAULT.failure(error).category


def category_of_status(status: int) -> Category:
    """Return the category of an HTTP status that is no success."""
    if status in _STATUSES:
        return _STATUSES[status]
    return Category.TRANSIENT if status >= 500 else Category.PERMANENT


def service_error(text: str, status: int, headers: Mapping[str, str]) -> ServiceError:
    """Return the error for an HTTP answer that is no success.

    Args:
        text: What is said of it.
        status: Its status.
        headers: Its headers; ``Retry-After`` is kept.
    """
    after = retry_after_seconds({name.lower(): value for name, value in headers.items()}.get("retry-after"))
    category = category_of_status(status)
    if category is Category.RESOURCE_EXHAUSTION:
        return ServiceThrottled(text, status, after)
    if category is Category.TRANSIENT:
        return ServiceError(text, status, after)
    return ServiceRefused(text + "; asking again will not help", status, after)


def retry_after_seconds(header: str | None, now: datetime | None = None) -> float | None:
    """Return what an HTTP ``Retry-After`` says (RFC 9110, 10.2.3): seconds, or a date; ``None`` if it cannot be read."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return min(float(text), _LONGEST_ASKED_SECONDS)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    at = at.replace(tzinfo=at.tzinfo or UTC)
    left = (at - (now or datetime.now(UTC))).total_seconds()
    return min(max(0.0, left), _LONGEST_ASKED_SECONDS)


def _source(error: BaseException) -> BaseException:
    """Return the error that says what happened: an unknown one may only wrap it, as those of Airflow's hooks do."""
    found: BaseException | None = error
    for _ in range(_DEEPEST):
        if found is None or _category(found) is not None:
            return found or error
        above = found
        found = above.__cause__
        if found is None and not above.__suppress_context__ and _is_airflows(above):
            found = above.__context__
    return error


def _is_airflows(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "airflow"


def _category(error: BaseException) -> Category | None:
    """Return the category of an exception by what it is itself; ``None`` if that says nothing."""
    if isinstance(error, AgenticError):
        return Category(error.category)
    if (status := _status(error)) is not None and status >= 300:
        return category_of_status(status)
    if isinstance(error, asyncio.CancelledError | concurrent.futures.CancelledError):
        return Category.CANCELLED
    for holder in (error, _attribute(error, "orig")):
        state = _attribute(holder, "sqlstate") or _attribute(holder, "pgcode")
        if isinstance(state, str) and (known := _SQLSTATES.get(state) or _SQLSTATES.get(state[:2])):
            return known
    for kind in type(error).__mro__:
        named = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
        if named in _NAMES:
            return _NAMES[named]
    if isinstance(error, OSError):
        return Category.RESOURCE_EXHAUSTION if error.errno in _EXHAUSTED else Category.TRANSIENT
    return None


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an exception bears: of requests, httpx, aiohttp, pydantic-ai, openai and our own."""
    # Each of Airflow's own bears one, for what its API answers: it says nothing of the other side.
    holders = () if _is_airflows(error) else (error, _attribute(error, "response"))
    for holder in holders:
        for name in ("status_code", "status"):
            value = _attribute(holder, name)
            if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
                return value
    return None


def _retry_after(error: BaseException) -> float | None:
    if isinstance(error, ServiceError):
        return error.retry_after_seconds
    for holder in (error, _attribute(error, "response")):
        headers = _attribute(holder, "headers")
        if isinstance(headers, Mapping) or hasattr(headers, "get"):
            found = headers.get("Retry-After") or headers.get("retry-after")
            if isinstance(found, str):
                return retry_after_seconds(found)
    return None


def _attribute(holder: object, name: str) -> Any:
    try:
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001  # somebody's property
        return None


def _fits(rule: FailureRule, error: BaseException, status: int | None) -> bool:
    if rule.status and not any(
        status == said or (said < 10 and status is not None and status // 100 == said) for said in rule.status
    ):
        return False
    if rule.contains is not None and rule.contains not in str(error):
        return False
    return rule.error is None or rule.error in {
        name
        for kind in type(error).__mro__
        for name in (
            kind.__name__,
            f"{kind.__module__}:{kind.__name__}",
            f"{kind.__module__}.{kind.__name__}",
        )
    }


_DEFAULT = Classifier()
