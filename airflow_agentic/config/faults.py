"""Faults that are injected on purpose: settings, as the project file says them under ``faults:``.

``airflow_agentic.resilience.faults`` brings them about.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from airflow_agentic.config.policies import CategoryName, Seconds, Share
from airflow_agentic.config.sections import Section

FaultKind = Literal["latency", "error", "sigkill", "drop", "duplicate", "corrupt", "slow_store", "clock_jump"]
"""What can be done to work, messages and the store."""

PLACES: dict[FaultKind, tuple[str, ...]] = {
    "latency": ("agent", "call", "send", "receive"),
    "error": ("agent", "call", "send", "receive", "store"),
    "sigkill": ("agent", "call", "send", "receive", "store"),
    "drop": ("send", "receive", "store"),
    "duplicate": ("send",),
    "corrupt": ("receive",),
    "slow_store": ("store",),
    "clock_jump": ("store",),
}
"""Where each can happen."""

_TIMED = ("latency", "slow_store", "clock_jump")
_CATEGORISED = ("agent", "call")
_LONGEST_SLEEP = 3_600.0


class FaultRule(Section):
    """One kind of fault at one kind of place.

    An attempt is each time that work comes by the place while the rule is active, in the whole fleet.
    """

    description: str | None = Field(None, description="What it is for.")
    where: str = Field(
        min_length=1,
        max_length=300,
        description="`agent:NAME` (its work), `call:KEY` (a guarded call, as in `call:conn:openai`), `send:MAILBOX`, "
        "`receive:MAILBOX`, or `store` (all that touches messages and guards); `*` in a name stands for any characters.",
        examples=["agent:triage", "call:conn:*", "store"],
    )
    what: FaultKind = Field(
        description="latency: it takes `seconds` longer. error: it fails before it begins. sigkill: the process is "
        "killed when the work is done and nobody knows it yet. drop: it is done, and the answer is lost. duplicate: the "
        "message is sent twice. corrupt: one byte of the message is broken on its way out. slow_store: each operation "
        "takes `seconds` longer. clock_jump: this process's clock is off by `seconds`, as the store sees it."
    )
    category: CategoryName | None = Field(
        None,
        description="error at agents and calls: what kind of failure it is. Default: transient. The store's own errors "
        "are always that.",
    )
    seconds: Seconds | None = Field(
        None,
        description="Needed by latency, slow_store and clock_jump: how long, or how far ahead (below 0: behind) the "
        "clock is.",
        examples=[0.5],
    )
    probability: Share = Field(
        1.0, description="Share of the attempts that it happens to; which ones, `seed` says."
    )
    count: int | None = Field(None, ge=1, description="At most so often in the whole fleet.")
    after: int = Field(0, ge=0, description="The first so many attempts are let alone.")
    from_seconds: Seconds = Field(
        0.0,
        ge=0,
        description="Begins so long after the rule was added; one of a project file, after work came by for the first time.",
    )
    for_seconds: Seconds | None = Field(None, gt=0, description="Lasts so long from then. Default: for ever.")
    seed: int = Field(0, description="The same seed picks the same attempts again.")

    @property
    def place(self) -> str:
        """The kind of place: what stands before the first colon."""
        return self.where.partition(":")[0]

    def covers(self, point: str) -> bool:
        """Whether a point, such as ``agent:triage``, is meant."""
        return _pattern(self.where).fullmatch(point) is not None

    @model_validator(mode="after")
    def _can_happen(self) -> FaultRule:
        self._check_place()
        self._check_time()
        if self.category is not None and (self.what != "error" or self.place not in _CATEGORISED):
            raise ValueError(
                "category must only stand with errors at agents and calls: what the bus and the store raise is transient"
            )
        return self

    def _check_place(self) -> None:
        place, colon, name = self.where.partition(":")
        known = sorted({each for places in PLACES.values() for each in places})
        if place not in known:
            raise ValueError(f"where must begin with one of {', '.join(known)}, not {place[:50]!r}")
        if (place == "store") == bool(colon) or (colon and not name):
            raise ValueError(
                "where must be `store` alone, or agent, call, send or receive with :NAME after it"
            )
        if place not in PLACES[self.what]:
            places = " or ".join(PLACES[self.what])
            raise ValueError(f"{self.what} cannot happen at {place}: where must begin with {places}")

    def _check_time(self) -> None:
        if self.what not in _TIMED:
            if self.seconds is not None:
                raise ValueError(
                    f"seconds must only stand with {', '.join(_TIMED)}: {self.what} takes no time"
                )
            return
        if self.seconds is None or self.seconds == 0:
            raise ValueError(f"{self.what} must have seconds, other than 0")
        if self.what != "clock_jump" and not 0 < self.seconds <= _LONGEST_SLEEP:
            raise ValueError(
                f"{self.what} must have seconds above 0 and at most {_LONGEST_SLEEP:g}, not {self.seconds:g}"
            )


def _pattern(where: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, where.split("*"))), re.DOTALL)
