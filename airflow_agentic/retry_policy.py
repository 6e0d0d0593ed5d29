"""Airflow's own retries, led by what failures mean (AIP-105)."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy

from airflow_agentic import runtime
from airflow_agentic.errors import BudgetExceeded, Category, NotAdmitted
from airflow_agentic.resilience.failures import Failure

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

# A moment more, so that the breaker is half open when the task comes.
_AFTER = timedelta(seconds=1)


class AgenticRetryPolicy(RetryPolicy):
    """Turns the category of a failure into Airflow's decision: ``retry_policy=AgenticRetryPolicy()`` on any task.

    - transient, deadline exceeded: retry, as the task says; after ``Retry-After``, if the other side asked for that.
    - resource exhaustion: the same, after at least ``exhausted_delay``.
    - permanent, configuration, cancelled: fail at once; a retry would cost and change nothing.
    - a guard refused (an open breaker, a used up rate): retry when it may go, which is the next probe.
    - a budget is used up: fail, unless its next period begins within ``longest_delay``.

    What failures mean can be said under ``failures:`` of the project file. A retry is still one of the task's
    ``retries``: tasks that need not spend any use ``RunAgentOperator``, which waits without a slot.

    Args:
        exhausted_delay: Shortest delay after something was used up.
        longest_delay: No retry is later than that; what would be fails.
    """

    def __init__(
        self,
        exhausted_delay: timedelta = timedelta(seconds=30),
        longest_delay: timedelta = timedelta(hours=6),
    ) -> None:
        self.exhausted_delay = exhausted_delay
        self.longest_delay = longest_delay

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  # Airflow's signature
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Decide; see the class."""
        failure = runtime.failures().failure(exception)
        said = f"[{failure.category}] {type(exception).__name__}"
        if isinstance(exception, NotAdmitted):
            return self._refused(exception, failure, said)
        if not failure.category.retry_helps:
            return RetryDecision.fail(f"{said}: a retry would not help")
        delay = timedelta(seconds=failure.retry_after_seconds or 0)
        if failure.category is Category.RESOURCE_EXHAUSTION:
            delay = max(delay, self.exhausted_delay)
        if delay > self.longest_delay:
            return RetryDecision.fail(f"{said}: it may be tried again in {delay}, which is too late")
        return RetryDecision.retry(delay or None, f"{said}: a retry may help")

    def serialize(self) -> dict[str, Any]:
        """Return this as JSON."""
        return {
            "exhausted_delay": self.exhausted_delay.total_seconds(),
            "longest_delay": self.longest_delay.total_seconds(),
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AgenticRetryPolicy:
        """Make it again."""
        return cls(timedelta(seconds=data["exhausted_delay"]), timedelta(seconds=data["longest_delay"]))

    def _refused(self, refusal: NotAdmitted, failure: Failure, said: str) -> RetryDecision:
        if refusal.retry_at is None or failure.retry_after_seconds is None:
            return RetryDecision.fail(f"{said}: nobody knows when it may be tried again")
        delay = timedelta(seconds=failure.retry_after_seconds) + _AFTER
        if delay > self.longest_delay:
            what = "the budget" if isinstance(refusal, BudgetExceeded) else "the guard"
            return RetryDecision.fail(f"{said}: {what} lets nothing go for {delay}, which is too late")
        return RetryDecision.retry(
            delay, f"{said}: {refusal.key} lets it go at {refusal.retry_at:%H:%M:%S} UTC"
        )
