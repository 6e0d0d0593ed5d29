"""``airflow agentic limits``: rates and slots, and how much of them is in use."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from airflow_agentic.cli.access import opened
from airflow_agentic.cli.command import command
from airflow_agentic.cli.output import count, exact, listing, note, shorten, span
from airflow_agentic.resilience.views import BulkheadView, LimitView, bulkhead_views, limit_views

_NAME_WIDTH = 60


@command
def list_limits(args: Namespace) -> None:
    """List rate limits, then bulkheads, ordered by key."""
    with opened(args) as store:
        rates = limit_views(store.guarding.shared, args.prefix)
        slots = bulkhead_views(store.guarding.shared, args.prefix)
    data = [*map(_rate_data, rates), *map(_slot_data, slots)]
    listing(args.output, data, [*map(_rate_row, rates), *map(_slot_row, slots)])
    free = [*(view.is_free for view in rates), *(view.is_free for view in slots)]
    if full := free.count(False):
        note(f"{count(full, 'limit')} of {len(data):,} used up now")
    elif not data:
        note("no call went through a limit or a bulkhead yet")


def _rate_data(view: LimitView) -> dict[str, Any]:
    return {
        "kind": "rate",
        "key": view.key,
        "rate": view.rate,
        "per_seconds": view.per_seconds,
        "algorithm": view.algorithm,
        "in_use": view.in_use,
        "allowed": view.allowed,
        "free_at": exact(view.free_at),
        "free": view.is_free,
    }


def _slot_data(view: BulkheadView) -> dict[str, Any]:
    return {
        "kind": "slots",
        "key": view.key,
        "in_use": view.in_use,
        "allowed": view.allowed,
        "free_at": exact(view.now) if view.is_free else None,
        "free": view.is_free,
        "leases": [exact(lease) for lease in view.leases],
    }


def _rate_row(view: LimitView) -> dict[str, object]:
    wait = (view.free_at - view.now).total_seconds()
    return {
        "kind": "rate",
        "key": shorten(view.key, _NAME_WIDTH),
        "limit": f"{view.rate:,} in {view.per_seconds:g} s ({view.algorithm.replace('_', ' ')})",
        "in use": f"{view.in_use:,}",
        "allowed": f"{view.allowed:,}",
        "next turn": "now" if view.is_free else f"in {_brief(wait)}",
    }


def _slot_row(view: BulkheadView) -> dict[str, object]:
    return {
        "kind": "slots",
        "key": shorten(view.key, _NAME_WIDTH),
        "limit": f"{view.allowed:,} at once",
        "in use": f"{view.in_use:,}",
        "allowed": f"{view.allowed:,}",
        "next turn": "now" if view.is_free else "when a call returns",
    }


def _brief(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else span(seconds)
