"""How work is guarded: settings, as the project file says them under ``policies:`` and as code makes them.

``airflow_agentic.resilience`` hands these on; what they bring about is written there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, model_validator

from airflow_agentic.config.sections import Name, Section

CategoryName = Literal[
    "transient", "permanent", "configuration", "resource_exhaustion", "cancelled", "deadline_exceeded"
]
"""Why something failed; see ``airflow_agentic.errors.Category``."""

DEFAULT_ATTEMPTS = 3
DEFAULT_BASE_SECONDS = 1.0
DEFAULT_MAX_SECONDS = 60.0


def _seconds(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _section_or_name(value: object) -> str:
    return "[section]" if isinstance(value, Mapping | BaseModel) else "[name]"


def _several(value: object) -> object:
    return (value,) if isinstance(value, RateLimit | dict) else value


Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float)]
"""A span of time in seconds; code may give a timedelta."""
Share = Annotated[float, Field(gt=0, le=1)]


class Retry(Section):
    """How failed work is tried again: after random times, the longest of which doubles with each try (full jitter).

    A failed message comes back to its mailbox so, and holds no worker meanwhile; a task or a call is tried again in
    its place. Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """

    max_attempts: int | None = Field(
        None,
        ge=1,
        description="How often work is tried, the first time included. Of messages the default is that of `settings`, "
        f"of calls {DEFAULT_ATTEMPTS}.",
    )
    base_seconds: Seconds | None = Field(
        None,
        ge=0,
        description="Upper bound of the first random delay. Of messages the default is that of `settings`, of calls "
        f"{DEFAULT_BASE_SECONDS:g}.",
    )
    max_seconds: Seconds | None = Field(
        None,
        ge=0,
        description="Upper bound of all such delays. Of messages the default is that of `settings`, of calls "
        f"{DEFAULT_MAX_SECONDS:g}. A call is not tried again in its place if the other side asks for a longer time.",
    )
    categories: tuple[CategoryName, ...] = Field(
        ("transient", "resource_exhaustion"),
        min_length=1,
        description="Which failures are tried again.",
    )
    budget: Share | None = Field(
        None,
        description="At most this share of all calls of a key, over the last minute and in the whole fleet, may be "
        "retries. A few are always allowed. Default: as many as there are.",
        examples=[0.2],
    )

    @property
    def attempts(self) -> int:
        """How often a call is tried."""
        return self.max_attempts or DEFAULT_ATTEMPTS

    @property
    def longest(self) -> float:
        """Upper bound of all delays of calls, in seconds."""
        return DEFAULT_MAX_SECONDS if self.max_seconds is None else self.max_seconds

    def bound(self, failed: int) -> float:
        """Return the upper bound of the delay after so many failed tries, in seconds."""
        base = DEFAULT_BASE_SECONDS if self.base_seconds is None else self.base_seconds
        return min(base * 2.0 ** min(failed - 1, 60), self.longest)


class Breaker(Section):
    """A circuit breaker that all workers share.

    Words and meaning are those of resilience4j (https://resilience4j.readme.io/docs/circuitbreaker). Open times grow
    with repeated trips as Envoy's ejections do.
    """

    key: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What it protects: all who say the same share it. Default: that of the call, as `conn:NAME` or "
        "`agent:NAME`.",
        examples=["conn:openai"],
    )
    window: Literal["count", "time"] = Field(
        "count", description="Whether the last so many calls count, or those of the last so many seconds."
    )
    window_size: int = Field(
        20, ge=1, le=3_600, description="How many calls, or seconds; at most 1,000 calls."
    )
    minimum_calls: int = Field(
        10,
        ge=1,
        le=1_000,
        description="So many results must be known before it judges. Until then at most so many calls are out at once: "
        "nobody knows yet whether the other side is well.",
    )
    failure_rate: Share = Field(0.5, description="It opens when this share of the calls has failed.")
    slow_call_seconds: Seconds | None = Field(
        None, gt=0, description="A call that takes longer is slow. Default: none is."
    )
    slow_call_rate: Share = Field(1.0, description="It opens when this share of the calls was slow.")
    open_seconds: Seconds = Field(
        30.0, gt=0, description="How long it stays open before it lets probes through."
    )
    open_growth: float = Field(
        2.0, ge=1, le=100, description="How many times longer each further time, if the probes failed."
    )
    max_open_seconds: Seconds = Field(600.0, gt=0, description="Upper bound of that time.")
    half_open_calls: int = Field(
        3, ge=1, le=1_000, description="So many probes are let through, in the whole fleet; they decide."
    )
    probe_lease_seconds: Seconds = Field(
        60.0,
        gt=0,
        description="A probe, or another counted call, of which nothing is heard for so long is forgotten: its worker "
        "died. Renewed while the call goes on.",
    )

    @model_validator(mode="after")
    def _can_work(self) -> Breaker:
        if self.window == "count" and self.window_size > 1_000:
            raise ValueError("window_size must be at most 1000 calls; count seconds with window: time")
        if self.window == "count" and self.minimum_calls > self.window_size:
            raise ValueError(
                f"minimum_calls ({self.minimum_calls}) is above window_size ({self.window_size}): it would never open. It "
                f"must be at most {self.window_size}"
            )
        if self.max_open_seconds < self.open_seconds:
            raise ValueError(
                f"max_open_seconds ({self.max_open_seconds:g}) must be at least open_seconds ({self.open_seconds:g})"
            )
        return self


class RateLimit(Section):
    """How many calls the whole fleet may make in a time."""

    rate: int = Field(ge=1, description="So many calls …")
    per_seconds: Seconds = Field(1.0, gt=0, description="… in so many seconds.")
    burst: int | None = Field(
        None,
        ge=1,
        description="token_bucket: so many may come at once after a quiet time. Default: `rate`.",
    )
    algorithm: Literal["token_bucket", "sliding_window"] = Field(
        "token_bucket",
        description="token_bucket: an even flow (GCRA). sliding_window: never more than `rate` in any `per_seconds`.",
    )
    key: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What is limited: all who say the same share it. Default: that of the call.",
        examples=["conn:openai"],
    )

    @model_validator(mode="after")
    def _can_work(self) -> RateLimit:
        if self.algorithm == "sliding_window" and self.burst is not None:
            raise ValueError("burst must be left out: a sliding_window may be filled at once as it is")
        return self


class Bulkhead(Section):
    """How many calls may be out at once in the whole fleet. A slot is a lease: a killed worker's comes free."""

    max_concurrent: int = Field(ge=1, le=2_000, description="So many at once.")
    adaptive: bool = Field(
        default=False,
        description="Look for the right number between 1 and `max_concurrent`: one more after a round of good calls, a "
        "third fewer after one that was throttled or too late (AIMD).",
    )
    lease_seconds: Seconds = Field(
        60.0, gt=0, description="How long a slot is held at a time; renewed while the call goes on."
    )
    key: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="What is protected: all who say the same share it. Default: that of the call.",
    )


class Budget(Section):
    """What may be spent."""

    description: str | None = Field(None, description="What it is for.")
    period: Literal["run", "day", "month"] = Field(
        "day", description="Time it is for: a DAG run, or a day or month of UTC."
    )
    per: Literal["agent", "dag", "team", "all"] = Field("agent", description="Who has one each.")
    calls: int | None = Field(None, ge=0, description="Calls of models, tools and services.")
    tokens: int | None = Field(None, ge=0, description="Tokens of models.")
    cost_usd: float | None = Field(None, ge=0, description="Money, in US dollars.")
    reserve_tokens: int = Field(
        0, ge=0, description="So many tokens are set aside before a call; what it took is known afterwards."
    )
    reserve_cost_usd: float = Field(0.0, ge=0, description="The same for money.")
    alert_at: tuple[Share, ...] = Field(
        (0.8,), description="Somebody is told when this share of a limit is spent."
    )
    lease_seconds: Seconds = Field(
        3_600.0,
        gt=0,
        description="What a call set aside and never settled counts as spent after so long: its worker died.",
    )

    @model_validator(mode="after")
    def _can_work(self) -> Budget:
        for unit, reserve in (("tokens", self.reserve_tokens), ("cost_usd", self.reserve_cost_usd)):
            limit = getattr(self, unit)
            if limit is not None and reserve > limit:
                raise ValueError(
                    f"reserve_{unit} ({reserve:g}) is above {unit} ({limit:g}): nobody could begin. It must be less"
                )
        return self


class Fallback(Section):
    """What is done when the work cannot be, in this order: other agents, the last good answer, a person, a default.

    A result that came so is degraded, and says so.
    """

    agents: tuple[Name, ...] = Field(
        (), description="Agents to ask instead, in order; each is guarded by its own policy."
    )
    cached_seconds: Seconds | None = Field(
        None, gt=0, description="Take the last good answer to the same task if it is no older."
    )
    person: str | None = Field(
        None,
        min_length=1,
        description="What a person is asked, in Airflow's page of required actions. No worker waits meanwhile.",
    )
    person_seconds: Seconds = Field(
        86_400.0, gt=0, description="How long the person has; then the default, or the failure."
    )
    default: Any = Field(None, description="The result if nothing else is left: any JSON.")
    categories: tuple[CategoryName, ...] = Field(
        ("transient", "resource_exhaustion", "deadline_exceeded"),
        min_length=1,
        description="For which failures. A refusal of a guard is one of them.",
    )

    @property
    def has_default(self) -> bool:
        """Whether a default is said, be it null."""
        return "default" in self.model_fields_set

    @model_validator(mode="after")
    def _can_work(self) -> Fallback:
        if not (self.agents or self.cached_seconds or self.person or self.has_default):
            raise ValueError(
                "it says nothing to fall back to: it must name agents, cached_seconds, person or default"
            )
        if len(set(self.agents)) < len(self.agents):
            raise ValueError("an agent stands in agents twice, and must stand there once")
        return self


class Policy(Section):
    """How work is guarded. What is left out does not guard.

    A call goes through the guards in this order, whatever the order they are written in: ``fallback`` around
    ``deadline`` around ``retry``, and for each try ``breaker``, ``limits``, ``bulkhead`` and ``budget`` decide together
    before ``timeout`` runs.
    """

    description: str | None = Field(None, description="What it is for.")
    retry: Retry | None = Field(None, description="How failed work is tried again.")
    timeout: Seconds | None = Field(None, gt=0, description="How long one try may take, in seconds.")
    deadline: Seconds | None = Field(
        None, gt=0, description="How long all tries may take together, waits included, in seconds."
    )
    breaker: Breaker | None = Field(None, description="Stops calls of what is down.")
    limits: Annotated[tuple[RateLimit, ...], BeforeValidator(_several)] = Field(
        (), description="Rates; all of them hold."
    )
    bulkhead: Bulkhead | None = Field(None, description="How many calls may be out at once.")
    budget: (
        Annotated[
            Annotated[Budget, Tag("[section]")] | Annotated[Name, Tag("[name]")],
            Discriminator(_section_or_name),
        ]
        | None
    ) = Field(None, description="What may be spent: one of `budgets`, or a section.")
    fallback: Fallback | None = Field(None, description="What is done instead.")
    when_refused: Literal["wait", "fallback", "fail"] = Field(
        "wait",
        description="What a task does that a guard refuses: wait until it may go, with no slot held and no retry spent "
        "(a call waits in its place, for at most `max_wait`); fall back; or fail.",
    )
    max_wait: Seconds = Field(
        0.0, ge=0, description="How long a call waits for limits, a slot or a budget, in seconds."
    )
    without_store: Literal["closed", "open"] = Field(
        "closed",
        description="While the store cannot be reached: closed, as of a breaker, lets work go on, guarded by each "
        "process alone; open refuses it.",
    )
    lease_seconds: Seconds | None = Field(
        None, ge=0.1, description="How long a message belongs to the agent at a time; renewed while it works."
    )

    @model_validator(mode="after")
    def _can_work(self) -> Policy:
        if self.when_refused == "fallback" and self.fallback is None:
            raise ValueError(
                "when_refused is 'fallback', and there is none: give a fallback, or say 'wait' or 'fail'"
            )
        if self.deadline is None:
            return self
        if self.timeout is not None and self.timeout > self.deadline:
            raise ValueError(f"timeout ({self.timeout:g} s) must be at most deadline ({self.deadline:g} s)")
        if self.retry is not None and (longest := longest_wait(self.retry)) > self.deadline:
            raise ValueError(
                f"retry may wait up to {longest:g} s between its {self.retry.attempts} attempts, and deadline is "
                f"{self.deadline:g} s: the last ones would never come. Waits must end before it: try less often, or sooner"
            )
        return self


class FailureRule(Section):
    """What a failure means. The first rule that fits decides; what none fits is judged by the provider itself."""

    error: str | None = Field(
        None,
        min_length=1,
        description="Name of the exception's class or of one it is derived from: `TimeoutError`, or with its module: "
        "`billing.errors:Throttled`.",
    )
    status: tuple[int, ...] = Field(
        (), description="HTTP statuses; a single digit stands for a hundred: 5 for 500 to 599."
    )
    contains: str | None = Field(None, min_length=1, description="Part of the error's text.")
    category: CategoryName = Field(description="What it is.")
    retry_after_seconds: Seconds | None = Field(None, ge=0, description="No try before that.")

    @model_validator(mode="after")
    def _can_work(self) -> FailureRule:
        if self.error is None and not self.status and self.contains is None:
            raise ValueError("it fits every failure: it must say error, status or contains")
        return self


def longest_wait(retry: Retry) -> float:
    """Return the longest time that retries may wait, all together, in seconds."""
    return sum(retry.bound(failed) for failed in range(1, retry.attempts))
