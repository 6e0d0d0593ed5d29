"""What pydantic-ai's errors mean, as errors of this provider. Needs pydantic-ai: import it late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_ai.exceptions import (
    AgentRunError,
    ContentFilterError,
    ModelAPIError,
    RunCancelled,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
)

from airflow_agentic.errors import (
    AgentError,
    AgenticError,
    Category,
    InvalidResult,
    NotAdmitted,
    RejectMessage,
    ServiceError,
    ServiceRefused,
    ServiceThrottled,
    WorkCancelled,
)
from airflow_agentic.resilience.failures import category_of_status

# By name, as pydantic-ai gains such classes; the first that an error is decides.
_CATEGORIES = {
    "ModelRateLimitError": Category.RESOURCE_EXHAUSTION,
    "ModelQuotaExceededError": Category.RESOURCE_EXHAUSTION,
    "ModelAuthenticationError": Category.CONFIGURATION,
    "ModelNotFoundError": Category.CONFIGURATION,
    "ModelRequestRejectedError": Category.PERMANENT,
    "ModelTimeoutError": Category.DEADLINE_EXCEEDED,
    "ModelRequestTimeout": Category.DEADLINE_EXCEEDED,
}
_LATEST = datetime.max.replace(tzinfo=UTC)


class _ModelError(ServiceError, ModelAPIError):
    """Both ours and pydantic-ai's, so that whoever catches one of them goes on to."""

    def __init__(
        self,
        text: str,
        model_name: str,
        category: Category,
        status: int | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        ModelAPIError.__init__(self, model_name, text)
        self.category = Category(category)  # type: ignore[misc]  # each has its own
        self.status = status
        self.retry_after_seconds = self.retry_after = retry_after_seconds

    def __reduce__(self) -> tuple[Any, ...]:
        values = (self.message, self.model_name, self.category, self.status, self.retry_after_seconds)
        return type(self), values


class ModelUnavailable(_ModelError):
    """A model failed or did not answer. A retry may help."""


class ModelThrottled(_ModelError, ServiceThrottled):
    """A model is asked too often or too much, or its account is used up. A retry may help, later."""


class ModelRefused(_ModelError, ServiceRefused):
    """A model, or its provider, understood the request and refused it. A retry does not help."""


def model_error(error: ModelAPIError | UnexpectedModelBehavior, conn_id: str) -> _ModelError:
    """Return our error for one that a model raised.

    Its text says what happened, and not what the provider answered: that may quote the request.

    Args:
        error: What pydantic-ai raised when it asked the model.
        conn_id: The connection that leads to the model.
    """
    if isinstance(error, _ModelError):
        return error
    name = getattr(error, "model_name", "")
    status = getattr(error, "status_code", None)
    after = getattr(error, "retry_after", None)
    category = _category(error, status)
    what = _NAMED.get(type(error).__name__) or (f"answered {status}" if status else "failed")
    code = getattr(error, "provider_error_code", None)
    text = f"connection {conn_id!r}: the model {name or 'behind it'} {what}"
    text += f" ({code})" if code else ""
    text += f"; it asks to be left alone for {after:g} s" if after else ""
    made = {
        Category.RESOURCE_EXHAUSTION: ModelThrottled,
        Category.CONFIGURATION: ModelRefused,
        Category.PERMANENT: ModelRefused,
    }.get(category, ModelUnavailable)
    return made(f"{text}: {_ADVICE[category]}", name, category, status, after)


_NAMED = {
    "UnexpectedModelBehavior": "answered with something that is no answer of a model",
    "ModelTimeoutError": "did not answer in time",
    "ModelRequestTimeout": "did not answer in time",
    "ModelConnectionError": "could not be reached, or broke off",
}
_ADVICE = {
    Category.TRANSIENT: "it may work the next time",
    Category.DEADLINE_EXCEEDED: "it may work the next time, or with a longer timeout",
    Category.RESOURCE_EXHAUSTION: "ask less, later, or raise the quota of the account",
    Category.CONFIGURATION: "look at the key, the model and the address in the connection",
    Category.PERMANENT: "the request has to be another",
}


def agent_error(error: Exception, agent: str, conn_id: str) -> Exception:
    """Return our error for one that a run of a pydantic-ai agent raised; what has no meaning here stays as it is.

    Args:
        error: What came out of the run.
        agent: Name of the agent.
        conn_id: The connection that leads to the model.
    """
    if isinstance(error, AgenticError):
        return error
    if isinstance(error, ExceptionGroup):
        return chain_error(error, conn_id) or error
    if isinstance(error, ModelAPIError):
        return model_error(error, conn_id)
    if isinstance(error, UsageLimitExceeded):
        # No retry: it would spend as much again.
        return AgentError(
            f"agent {agent!r} needs more than it may use for one task: {error}. Raise it under limits: in its "
            "configuration, or ask for less."
        )
    if isinstance(error, RunCancelled):
        return WorkCancelled(f"agent {agent!r} was told to stop")
    if isinstance(error, ContentFilterError):
        return RejectMessage(
            f"agent {agent!r}: the provider's content filter stopped the answer to this task"
        )
    if isinstance(error, UnexpectedModelBehavior):
        return _unexpected(error, agent, conn_id)
    return AgentError(f"agent {agent!r}: {error}") if isinstance(error, AgentRunError) else error


def chain_error(group: ExceptionGroup[Any], conn_id: str) -> AgenticError | None:
    """Return the one error that says best why no model of a chain answered; ``None`` if none is of a kind known here.

    That is the one which gives the most hope: if all were refused by guards, the refusal that ends first.

    Args:
        group: What pydantic-ai raised.
        conn_id: The first connection of the chain.
    """
    found = list(_leaves(group))
    ours = [
        model_error(each, conn_id) if isinstance(each, ModelAPIError | UnexpectedModelBehavior) else each
        for each in found
    ]
    known = [each for each in ours if isinstance(each, AgenticError)]
    if not known:
        return None
    best = min(known, key=_hope)
    told = "; ".join(str(each) for each in known)
    text = f"no model of the chain of connection {conn_id!r} answered: {told}"
    if isinstance(best, NotAdmitted):
        return type(best)(text, best.key, best.retry_at)
    if isinstance(best, _ModelError):
        return type(best)(text, best.model_name, best.category, best.status, best.retry_after_seconds)
    return best


def _hope(error: AgenticError) -> tuple[bool, datetime]:
    """Order errors by when, if ever, a retry may help."""
    if isinstance(error, NotAdmitted):
        return False, error.retry_at or _LATEST
    after = getattr(error, "retry_after_seconds", None) or 0.0
    return not error.retry_helps, datetime.now(UTC) + timedelta(seconds=after)


def _unexpected(error: UnexpectedModelBehavior, agent: str, conn_id: str) -> Exception:
    if type(error.__cause__).__name__ == "ToolRetryError":
        return InvalidResult(
            f"agent {agent!r}: the model's answers did not fit what was asked for: {error.message}. "
            "Say it better in instructions:, allow more output_retries:, or take a better model."
        )
    if type(error) is not UnexpectedModelBehavior:  # the answer was cut off
        return AgentError(f"agent {agent!r}: {error.message}")
    return model_error(error, conn_id)


def _category(error: Exception, status: int | None) -> Category:
    for kind in type(error).__mro__:
        if kind.__name__ in _CATEGORIES:
            return _CATEGORIES[kind.__name__]
    return Category.TRANSIENT if status is None else category_of_status(status)


def _leaves(group: ExceptionGroup[Any]) -> Any:
    for each in group.exceptions:
        if isinstance(each, ExceptionGroup):
            yield from _leaves(each)
        else:
            yield each
