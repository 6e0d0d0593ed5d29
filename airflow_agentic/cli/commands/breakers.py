"""``airflow agentic breakers``: how breakers stand, and setting them by hand."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.utils.platform import getuser

from airflow_agentic.cli.access import opened, store_options
from airflow_agentic.cli.command import command, recorded
from airflow_agentic.cli.deliveries import nearest
from airflow_agentic.cli.output import (
    count,
    exact,
    fields,
    iso,
    listing,
    note,
    pretty,
    shorten,
    shorten_middle,
    single,
    span,
)
from airflow_agentic.errors import ConfigurationError, InvalidOption
from airflow_agentic.resilience import BreakerHandle, BreakerState, BreakerView
from airflow_agentic.stores import Store

_NAME_WIDTH = 60
_WHY_WIDTH = 80
# So many are read at once.
_MOST = 1_000
_LONGEST = timedelta(days=3_650)
_SHUT = (BreakerState.OPEN, BreakerState.FORCED_OPEN)


@command
def list_breakers(args: Namespace) -> None:
    """List breakers, ordered by key."""
    with opened(args) as store:
        found = store.guarding.breakers(args.prefix)
    now = datetime.now(UTC)
    listing(args.output, [_data(view) for view in found], [_row(view, now) for view in found])
    if shut := sum(view.state in _SHUT for view in found):
        note(f"{count(shut, 'breaker')} of {len(found):,} open")
    if len(found) == _MOST:
        note(f"there may be more than these {_MOST:,}: --prefix picks some")
    elif not found:
        whose = f" whose key begins with {args.prefix!r}" if args.prefix else ""
        note(f"no call went through a breaker{whose} yet")


@command
def show_breaker(args: Namespace) -> None:
    """Show one breaker in full, and what can be done about it."""
    with opened(args) as store:
        _require_known(store, args.breaker)
        view = store.breaker(args.breaker).view()
    now = datetime.now(UTC)
    single(args.output, _data(view), lambda: _lines(view, now, args))


@command
@recorded
def trip_breaker(args: Namespace) -> None:
    """Stop all calls."""
    _set_by_hand(args, lambda breaker, **who: breaker.trip(lasts=_lasts(args), **who))


@command
@recorded
def reset_breaker(args: Namespace) -> None:
    """Close a breaker, and forget all results."""
    # Of one that nobody knows there is nothing to reset: the key is mistyped.
    _set_by_hand(args, lambda breaker, **who: breaker.reset(**who), known_only=True)


@command
@recorded
def force_breaker_closed(args: Namespace) -> None:
    """Let all calls go."""
    _set_by_hand(args, lambda breaker, **who: breaker.force_closed(lasts=_lasts(args), **who))


def _set_by_hand(args: Namespace, change: Callable[..., BreakerView], *, known_only: bool = False) -> None:
    with opened(args) as store:
        if known_only:
            _require_known(store, args.breaker)
        meant = None if _is_known(store, args.breaker) else _meant(store, args.breaker)
        breaker: BreakerHandle = store.breaker(args.breaker)
        view = change(breaker, reason=args.reason, actor=args.actor or getuser())
    now = datetime.now(UTC)
    listing(args.output, [_data(view)], [_row(view, now)])
    if meant is not None:
        note(f"no call went through {args.breaker!r} yet: this holds for those that come. {meant}")
    if view.state is not BreakerState.CLOSED:
        until = f"at {iso(view.until)} or " if view.until else ""
        note(f"it ends {until}with: {_reset_command(args)}")


def _lasts(args: Namespace) -> timedelta | None:
    lasts: timedelta | None = args.lasts
    if lasts is not None and lasts > _LONGEST:
        raise InvalidOption(f"--for {span(lasts.total_seconds())} is for ever: leave it out")
    return lasts


def _is_known(store: Store, key: str) -> bool:
    # The first of those that begin so is the key itself, if there is such a one.
    return any(view.key == key for view in store.guarding.breakers(key)[:1])


def _meant(store: Store, key: str) -> str:
    return nearest(key, (view.key for view in store.guarding.breakers()))


def _require_known(store: Store, key: str) -> None:
    if not _is_known(store, key):
        raise ConfigurationError(
            f"no call went through the breaker {key!r} yet, and nobody set it: it is closed. {_meant(store, key)}"
        )


def _reset_command(args: Namespace) -> str:
    return f"airflow agentic breakers reset {shlex.quote(args.breaker)} --reason 'why'{store_options(args)}"


def _data(view: BreakerView) -> dict[str, Any]:
    return {
        "key": view.key,
        "state": str(view.state),
        "since": exact(view.since) if view.since else None,
        "until": exact(view.until) if view.until else None,
        "calls": view.tally.calls,
        "failed": view.tally.failed,
        "slow": view.tally.slow,
        "failure_rate": view.tally.failure_rate,
        "slow_call_rate": view.tally.slow_call_rate,
        "out": view.out,
        "trips": view.trips,
        "reason": view.reason,
        "actor": view.actor,
        "settings": dict(view.settings),
        "history": [{**entry, "at": exact(_moment(entry))} for entry in view.history],
    }


def _row(view: BreakerView, now: datetime) -> dict[str, object]:
    return {
        "key": shorten(view.key, _NAME_WIDTH),
        "state": view.state,
        "since": f"{span((now - view.since).total_seconds())} ago" if view.since else "",
        "next probe": _until(view, now),
        "failed": f"{view.tally.failed:,} of {view.tally.calls:,}",
        "out": view.out,
        "trips": view.trips,
        "why": shorten_middle(_why(view), _WHY_WIDTH),
    }


def _until(view: BreakerView, now: datetime) -> str:
    if view.state is BreakerState.HALF_OPEN:
        return f"{count(view.out, 'probe')} out" if view.out else "now"
    if view.until is None or view.until <= now:
        return "when it is reset" if view.state is BreakerState.FORCED_OPEN else ""
    left = f"in {span((view.until - now).total_seconds())}"
    return f"ends {left}" if view.state is BreakerState.FORCED_CLOSED else left


def _why(view: BreakerView) -> str:
    if view.state is BreakerState.CLOSED and view.until is not None:
        # What was set by hand for a time has ended, and no call came since.
        return f"the time set by {view.actor} is over"
    return f"{view.actor}: {view.reason}" if view.actor else view.reason


def _lines(view: BreakerView, now: datetime, args: Namespace) -> Iterator[str]:
    tally = view.tally
    since = f"{iso(view.since)} ({span((now - view.since).total_seconds())})" if view.since else "(always)"
    yield from fields(
        {
            "Breaker": view.key,
            "State": view.state,
            "Since": since,
            "Next probe": _until(view, now) or "(none)",
            "Window": f"{count(tally.calls, 'call')}, {tally.failed:,} failed ({tally.failure_rate:.0%}), "
            f"{tally.slow:,} slow",
            "Out": f"{count(view.out, 'call')} whose result decides",
            "Trips": f"{view.trips:,} in a row",
            "Why": _why(view) or "(nothing happened yet)",
        }
    )
    yield "Settings (of the policy that was used last)"
    yield from pretty(dict(view.settings)) if view.settings else ["  (no result came yet)"]
    yield "History (oldest first)"
    for entry in view.history:
        who = f"  {entry['actor']}" if entry["actor"] else ""
        yield f"  {iso(_moment(entry))}  {entry['from']} -> {entry['to']}{who}  {entry['reason']}"
    if not view.history:
        yield "  (none)"
    if view.state is not BreakerState.CLOSED:
        yield "Close it by hand"
        yield f"  {_reset_command(args)}"


def _moment(entry: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(entry["at"], UTC)
