"""Breakers as people see them: how they stand, and how they are set by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_agentic.config.policies import Breaker
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.resilience import breaker
from airflow_agentic.resilience.breaker import BreakerState, Tally
from airflow_agentic.resilience.ports import GuardKey
from airflow_agentic.resilience.shared import Decision, Doc, Docs, SharedState

_LONGEST = timedelta(days=3650)


@dataclass(frozen=True)
class BreakerView:
    """How a breaker stands.

    Attributes:
        key: What it protects.
        state: As a call would find it now.
        since: When it came to the state that is written down; ``None`` if nothing ever happened.
        until: When that state ends by itself; for an open one the next probe.
        tally: What is known of the last calls.
        trips: How often it opened without having closed in between.
        out: Calls that are counted and not yet back: probes, or the first ones.
        reason: Why it came to that state.
        actor: Who set it by hand; empty if nobody did.
        history: Changes of state, the oldest first: at, from, to, reason, actor.
        settings: Those of the policy that was used last.
    """

    key: str
    state: BreakerState
    since: datetime | None
    until: datetime | None
    tally: Tally
    trips: int
    out: int
    reason: str
    actor: str
    history: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]


class BreakerHandle:
    """One breaker of a store.

    Args:
        shared: Where it is.
        key: What it protects, for example ``conn:openai``.

    Attributes:
        key: As given.
    """

    def __init__(self, shared: SharedState, key: str) -> None:
        self._shared = shared
        self._at = GuardKey("breaker", key)
        self.key = key

    @property
    def state(self) -> BreakerState:
        """How it stands now, as the store says.

        Raises:
            StoreError: The store cannot be reached.
        """
        return self.view().state

    def view(self) -> BreakerView:
        """Return all there is to know of it; of one that no call went through, that it is closed.

        Raises:
            StoreError: The store cannot be reached.
        """
        docs, now = self._shared.read([self._at])
        return view(self.key, docs.get(self._at), now)

    def glance(self) -> BreakerView:
        """Do what :meth:`view` does, from memory if this process knows it from just before: for many who look often.

        Raises:
            StoreError: The store cannot be reached.
        """
        known = self._shared.peek(self._at)
        return self.view() if known is None else view(self.key, known[0] or None, known[1])

    def trip(self, *, reason: str, actor: str, lasts: timedelta | None = None) -> BreakerView:
        """Stop all calls, until :meth:`reset` or for a time.

        Args:
            reason: Why; kept in the history.
            actor: Who.
            lasts: For how long; default until somebody resets it.

        Raises:
            ConfigurationError: Reason or actor are empty, or the time is not positive or above ten years.
            StoreError: The store cannot be reached.
        """
        return self._force(BreakerState.FORCED_OPEN, reason, actor, lasts)

    def reset(self, *, reason: str, actor: str) -> BreakerView:
        """Close it, and forget all results; see :meth:`trip`."""
        return self._force(BreakerState.CLOSED, reason, actor, None)

    def force_closed(self, *, reason: str, actor: str, lasts: timedelta | None = None) -> BreakerView:
        """Let all calls go, whatever becomes of them, until :meth:`reset` or for a time; see :meth:`trip`."""
        return self._force(BreakerState.FORCED_CLOSED, reason, actor, lasts)

    def _force(self, to: BreakerState, reason: str, actor: str, lasts: timedelta | None) -> BreakerView:
        if not reason.strip() or not actor.strip():
            raise ConfigurationError("a breaker is set by hand with reason= and actor=: both are kept")
        if lasts is not None and lasts <= timedelta(0):
            raise ConfigurationError(f"a breaker cannot be set for {lasts}: give a time above zero")

        if lasts is not None and lasts > _LONGEST:
            raise ConfigurationError(
                f"a breaker cannot be set for {lasts}: give at most {_LONGEST.days} days, or no time at all"
            )

        def decide(docs: Docs, now: float) -> Decision[BreakerView]:
            until = None if lasts is None else now + lasts.total_seconds()
            doc, events = breaker.force(
                docs.get(self._at), self.key, now, to, actor=actor, reason=reason, until=until
            )
            return Decision(view(self.key, doc, now), {self._at: doc}, events)

        return self._shared.insist([self._at], decide)


def views(shared: SharedState, prefix: str = "") -> list[BreakerView]:
    """Return the breakers of a store whose keys begin so, by key.

    Raises:
        StoreError: The store cannot be reached.
    """
    now = shared.read([])[1]
    return [view(name, doc, now) for name, doc, _ in shared.listed("breaker", prefix)]


def view(key: str, doc: Doc | None, now: float) -> BreakerView:
    """Return how a breaker stands, of its document."""
    doc = doc or breaker.fresh()
    last = doc["history"][-1] if doc["history"] else {"reason": "", "actor": ""}
    # Not validated: a newer or older worker may have written what this one does not know.
    settings = Breaker.model_construct(**doc["settings"])
    return BreakerView(
        key=key,
        state=breaker.state_at(doc, now),
        since=_moment(doc["since"]) if doc["history"] else None,
        until=None if doc["until"] is None else _moment(doc["until"]),
        tally=breaker.tally(doc, settings, now),
        trips=doc["trips"],
        out=sum(until > now for until in doc["out"].values()),
        reason=last["reason"],
        actor=last["actor"],
        history=tuple(doc["history"]),
        settings=doc["settings"],
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
