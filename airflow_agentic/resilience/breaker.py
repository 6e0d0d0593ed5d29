"""The circuit breaker as a state machine over a document. Pure: time and settings come in, documents go out.

Words, window and transitions are those of resilience4j; open times grow as Envoy's ejections. Two things are of a fleet:
what is let through to find out how the other side is (probes, and calls while too few results are known) is counted and
leased, so that no number of workers sends more; a result that comes after the state has changed decides nothing.

The document::

    {"state": "closed", "since": 0.0, "until": null, "trips": 0, "era": 0,
     "ring": "0010",                       window by count: 0 good, 1 failed, 2 slow, 3 both; the oldest first
     "seconds": [[1700000000, 5, 1, 0]],   window by time: second, calls, failed, slow
     "out": {"token": 1700000060.0},       leases of counted calls
     "probes": "01",                       results of the half-open state
     "history": [{"at", "from", "to", "reason", "actor"}], "settings": {…}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from airflow_agentic.config.policies import Breaker
from airflow_agentic.resilience.ports import GuardEvent
from airflow_agentic.resilience.shared import Doc

_LONGEST_HISTORY = 20
_SHORTEST_WAIT = 0.2


class BreakerState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    """Calls go."""
    OPEN = "open"
    """No call goes until the next probe."""
    HALF_OPEN = "half_open"
    """A few probes go, and decide."""
    FORCED_OPEN = "forced_open"
    """A person stopped all calls."""
    FORCED_CLOSED = "forced_closed"
    """A person lets all calls go, whatever becomes of them."""


_EVENTS = {
    BreakerState.CLOSED: "breaker.closed",
    BreakerState.OPEN: "breaker.opened",
    BreakerState.HALF_OPEN: "breaker.half_opened",
    BreakerState.FORCED_OPEN: "breaker.forced_open",
    BreakerState.FORCED_CLOSED: "breaker.forced_closed",
}


@dataclass(frozen=True)
class Verdict:
    """Whether a call may go.

    Attributes:
        admitted: Whether it may.
        counted: Whether its token was noted: its result is needed, and its lease must be renewed.
        retry_at: When to ask again, in seconds since 1970.
        reason: Why it may not.
        warming: It waits for the first results of others, and not because anything failed.
        era: How often the state had changed by then; the result is to say so.
    """

    admitted: bool
    counted: bool = False
    retry_at: float | None = None
    reason: str = ""
    warming: bool = False
    era: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        failed: Whether it failed; ``None`` if it says nothing of the other side's health.
        seconds: How long it took.
        token: The one it was admitted with.
        era: That of its verdict; ``None`` if it is not known, and the result counts whenever it comes.
        times: So many calls ended like this.
    """

    failed: bool | None
    seconds: float = 0.0
    token: str = ""
    era: int | None = None
    times: int = 1


@dataclass(frozen=True)
class Tally:
    """What is known of the last calls.

    Attributes:
        calls: How many count.
        failed: How many of them failed.
        slow: How many of them were slow.
    """

    calls: int
    failed: int
    slow: int

    @property
    def failure_rate(self) -> float:
        """Share that failed."""
        return self.failed / self.calls if self.calls else 0.0

    @property
    def slow_call_rate(self) -> float:
        """Share that was slow."""
        return self.slow / self.calls if self.calls else 0.0


Step = tuple[dict[str, Any], tuple[GuardEvent, ...]]


def fresh() -> dict[str, Any]:
    """Return the document of a breaker that nothing is known of."""
    return {
        "state": BreakerState.CLOSED.value,
        "since": 0.0,
        "until": None,
        "trips": 0,
        "era": 0,
        "ring": "",
        "seconds": [],
        "out": {},
        "probes": "",
        "history": [],
        "settings": {},
    }


def admit(
    before: Doc | None, settings: Breaker, key: str, now: float, token: str
) -> tuple[Verdict, dict[str, Any], tuple[GuardEvent, ...]]:
    """Ask whether a call may go.

    Args:
        before: The document.
        settings: Of the breaker.
        key: Its name.
        now: The time.
        token: Names the call, should it be counted.
    """
    doc, events = _awake(before, settings, key, now)
    state = doc["state"]
    if state in (BreakerState.OPEN, BreakerState.FORCED_OPEN):
        until = doc["until"] or now + settings.open_seconds
        return Verdict(admitted=False, retry_at=until, reason=_why(doc)), doc, events
    if state == BreakerState.FORCED_CLOSED:
        return Verdict(admitted=True, era=doc["era"]), doc, events
    if state == BreakerState.HALF_OPEN:
        if len(doc["probes"]) + len(doc["out"]) >= settings.half_open_calls:
            retry_at = now + max(_SHORTEST_WAIT, min(1.0, settings.open_seconds / 10))
            return (
                Verdict(admitted=False, retry_at=retry_at, reason="its probes are under way"),
                doc,
                events,
            )
    elif (known := tally(doc, settings, now).calls) >= settings.minimum_calls:
        return Verdict(admitted=True, era=doc["era"]), doc, events
    elif known + len(doc["out"]) >= settings.minimum_calls:
        waits = Verdict(
            admitted=False,
            retry_at=now + _SHORTEST_WAIT,
            reason=f"{len(doc['out'])} calls are out, and nobody knows yet whether the other side is well",
            warming=True,
        )
        return waits, doc, events
    doc["out"] = {**doc["out"], token: now + settings.probe_lease_seconds}
    return Verdict(admitted=True, counted=True, era=doc["era"]), doc, events


def record(before: Doc | None, settings: Breaker, key: str, now: float, outcomes: Sequence[Outcome]) -> Step:
    """Take note of how calls ended."""
    doc, events = _awake(before, settings, key, now)
    doc["settings"] = _shown(settings)
    for outcome in outcomes:
        was_out = outcome.token in doc["out"]
        if was_out:
            doc["out"] = {token: until for token, until in doc["out"].items() if token != outcome.token}
        if outcome.failed is None:
            continue
        mark = int(outcome.failed) + 2 * int(is_slow(settings, outcome.seconds))
        if doc["state"] == BreakerState.CLOSED:
            if not was_out and outcome.era not in (None, doc["era"]):
                continue  # It was admitted before the state changed.
            _noted(doc, settings, now, mark, outcome.times)
            events += _judged(doc, settings, key, now)
        elif doc["state"] == BreakerState.HALF_OPEN and was_out:
            doc["probes"] += str(mark)
            if len(doc["probes"]) >= settings.half_open_calls:
                events += _probed(doc, settings, key, now)
    return doc, events


def renew(before: Doc | None, settings: Breaker, now: float, token: str) -> dict[str, Any] | None:
    """Make the lease of a counted call last longer; ``None`` if there is none any more."""
    if before is None or token not in before["out"]:
        return None
    return {**before, "out": {**before["out"], token: now + settings.probe_lease_seconds}}


def force(
    before: Doc | None,
    key: str,
    now: float,
    to: BreakerState,
    *,
    actor: str,
    reason: str,
    until: float | None = None,
) -> Step:
    """Set the state by hand. ``CLOSED`` forgets all results, as if nothing had happened.

    Args:
        before: The document.
        key: Its name.
        now: The time.
        to: ``CLOSED``, ``FORCED_OPEN`` or ``FORCED_CLOSED``.
        actor: Who.
        reason: Why.
        until: When a forced state ends by itself.
    """
    doc = dict(before or fresh())
    return doc, _moved(doc, key, now, to, reason, actor, until)


def is_slow(settings: Breaker, seconds: float) -> bool:
    """Whether a call that took so long was slow."""
    return settings.slow_call_seconds is not None and seconds > settings.slow_call_seconds


def tally(doc: Doc, settings: Breaker, now: float) -> Tally:
    """Count what is in the window."""
    if settings.window == "count":
        return _tally_of(doc["ring"][-settings.window_size :])
    oldest = int(now) - settings.window_size
    rows = [row for row in doc["seconds"] if row[0] > oldest]
    return Tally(sum(row[1] for row in rows), sum(row[2] for row in rows), sum(row[3] for row in rows))


def state_at(doc: Doc | None, now: float) -> BreakerState:
    """Return the state as a call would find it now."""
    if doc is None:
        return BreakerState.CLOSED
    state = BreakerState(doc["state"])
    if doc["until"] is not None and now >= doc["until"]:
        return BreakerState.HALF_OPEN if state is BreakerState.OPEN else BreakerState.CLOSED
    return state


# -- inside --------------------------------------------------------------------------------------------


def _awake(before: Doc | None, settings: Breaker, key: str, now: float) -> Step:
    """Return the document as it is now: leases end, and so do open and forced states."""
    doc, events = dict(before or fresh()), tuple[GuardEvent, ...]()
    if any(until <= now for until in doc["out"].values()):
        doc["out"] = {token: until for token, until in doc["out"].items() if until > now}
    if doc["until"] is not None and now >= doc["until"]:
        if doc["state"] == BreakerState.OPEN:
            events = _moved(doc, key, now, BreakerState.HALF_OPEN, "time for a probe", "")
        else:
            events = _moved(doc, key, now, BreakerState.CLOSED, "the time set by hand is over", "")
    # Fewer calls decide now than did when the settings were others.
    if len(doc["ring"]) > settings.window_size:
        doc["ring"] = doc["ring"][-settings.window_size :]
    if doc["state"] == BreakerState.HALF_OPEN and len(doc["probes"]) >= settings.half_open_calls:
        events += _probed(doc, settings, key, now)
    return doc, events


def _noted(doc: dict[str, Any], settings: Breaker, now: float, mark: int, times: int) -> None:
    if settings.window == "count":
        doc["ring"] = (doc["ring"] + str(mark) * min(times, settings.window_size))[-settings.window_size :]
        return
    second, oldest = int(now), int(now) - settings.window_size
    rows = [row for row in doc["seconds"] if oldest < row[0]]
    if not rows or rows[-1][0] < second:
        rows = [*rows, [second, 0, 0, 0]]
    last = rows[-1]
    rows[-1] = [last[0], last[1] + times, last[2] + times * (mark & 1), last[3] + times * (mark >> 1)]
    doc["seconds"] = rows


def _judged(doc: dict[str, Any], settings: Breaker, key: str, now: float) -> tuple[GuardEvent, ...]:
    known = tally(doc, settings, now)
    if known.calls < settings.minimum_calls:
        return ()
    if reason := _too_bad(known, settings):
        return _opened(doc, settings, key, now, reason)
    return ()


def _probed(doc: dict[str, Any], settings: Breaker, key: str, now: float) -> tuple[GuardEvent, ...]:
    known = _tally_of(doc["probes"])
    if reason := _too_bad(known, settings):
        return _opened(doc, settings, key, now, f"of the probes {reason}")
    return _moved(doc, key, now, BreakerState.CLOSED, f"{known.calls} probes went well enough", "")


def _tally_of(marks: str) -> Tally:
    both = marks.count("3")
    return Tally(len(marks), marks.count("1") + both, marks.count("2") + both)


def _too_bad(known: Tally, settings: Breaker) -> str:
    if known.failure_rate >= settings.failure_rate:
        return f"{known.failed} of {known.calls} calls failed"
    if settings.slow_call_seconds is not None and known.slow_call_rate >= settings.slow_call_rate:
        return f"{known.slow} of {known.calls} calls took longer than {settings.slow_call_seconds:g} s"
    return ""


def _opened(
    doc: dict[str, Any], settings: Breaker, key: str, now: float, reason: str
) -> tuple[GuardEvent, ...]:
    doc["trips"] += 1
    longer = settings.open_growth ** min(doc["trips"] - 1, 64)
    until = now + min(settings.open_seconds * longer, settings.max_open_seconds)
    return _moved(doc, key, now, BreakerState.OPEN, reason, "", until)


def _moved(
    doc: dict[str, Any],
    key: str,
    now: float,
    to: BreakerState,
    reason: str,
    actor: str,
    until: float | None = None,
) -> tuple[GuardEvent, ...]:
    before = doc["state"]
    entry = {"at": now, "from": before, "to": to.value, "reason": reason, "actor": actor}
    doc.update(state=to.value, since=now, until=until, ring="", seconds=[], out={}, probes="")
    doc["era"] += 1
    if to is BreakerState.CLOSED:
        doc["trips"] = 0
    doc["history"] = [*doc["history"], entry][-_LONGEST_HISTORY:]
    at = datetime.fromtimestamp(now, UTC)
    next_probe = None if until is None else datetime.fromtimestamp(until, UTC).isoformat()
    data = {"from": before, "to": to.value, "reason": reason, "actor": actor, "until": next_probe}
    return (GuardEvent(_EVENTS[to], key, at, data),)


def _why(doc: Mapping[str, Any]) -> str:
    last = doc["history"][-1] if doc["history"] else {"reason": "", "actor": ""}
    return f"{last['actor']}: {last['reason']}" if last["actor"] else str(last["reason"])


def _shown(settings: Breaker) -> dict[str, Any]:
    return settings.model_dump(mode="json", exclude={"key"})
