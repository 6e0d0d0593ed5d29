"""``airflow agentic budgets``: what may be spent, and what is."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow_agentic import runtime
from airflow_agentic.cli.access import opened
from airflow_agentic.cli.command import command
from airflow_agentic.cli.deliveries import nearest
from airflow_agentic.cli.output import (
    count,
    exact,
    fields,
    is_machine,
    iso,
    listing,
    note,
    pretty,
    say,
    shorten,
    span,
)
from airflow_agentic.config.policies import Budget
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.resilience.budget import UNITS
from airflow_agentic.resilience.views import BudgetView, budget_views

_NAME_WIDTH = 60
_COLUMNS = {"calls": "calls", "tokens": "tokens", "cost_usd": "money"}


@command
def list_budgets(args: Namespace) -> None:
    """List what is spent in each period by whoever has a budget."""
    with opened(args) as store:
        found = budget_views(store.guarding.shared, past=args.past)
    listing(args.output, [_data(view) for view in found], map(_row, found))
    if used_up := sum(bool(view.exceeded) for view in found if view.is_current):
        note(f"{count(used_up, 'budget')} used up")
    if unused := sorted(set(runtime.project().budgets) - {view.budget for view in found}):
        note(f"declared, and nothing is spent of it yet: {', '.join(unused)}")


@command
def show_budget(args: Namespace) -> None:
    """Show what is declared of one budget, and each who spends from it."""
    with opened(args) as store:
        everything = budget_views(store.guarding.shared, past=True)
    declared = runtime.project().budgets
    mine = [view for view in everything if args.budget in (view.budget, view.key)]
    if not mine and args.budget not in declared:
        known = dict.fromkeys([*declared, *(view.budget for view in everything)])
        raise ConfigurationError(
            f"no budget {args.budget!r} is declared, and nobody spent from it. {nearest(args.budget, known)}"
        )
    shown = [view for view in mine if args.past or view.is_current]
    settings = declared.get(args.budget)
    if is_machine(args.output):
        listing(args.output, [_data(view) for view in shown], ())
    else:
        say(*_lines(args.budget, settings, shown))
    if hidden := len(mine) - len(shown):
        note(f"{count(hidden, 'past period')}: --past shows them")


def _data(view: BudgetView) -> dict[str, Any]:
    return {
        "budget": view.budget,
        "subject": view.subject,
        "period": view.period,
        "current": view.is_current,
        "ends": exact(view.ends) if view.ends else None,
        "spent": {unit: getattr(view.spent, unit) for unit in UNITS},
        "set_aside": {unit: getattr(view.held, unit) for unit in UNITS},
        "limits": dict(view.limits),
        "share": view.largest_share,
        "exceeded": list(view.exceeded),
        "refused": list(view.refused),
        "alerts": dict(view.alerts),
        "updated_at": exact(view.updated_at),
    }


def _row(view: BudgetView) -> dict[str, object]:
    share = view.largest_share
    return {
        "budget": shorten(view.budget, _NAME_WIDTH),
        "subject": shorten(view.subject, _NAME_WIDTH),
        "period": shorten(view.period, _NAME_WIDTH),
        **{column: _of(view, unit) for unit, column in _COLUMNS.items()},
        "share": "" if share is None else f"{share:.0%}",
        "set aside": _held(view),
        "alerts": ", ".join(_told(view)),
    }


def _of(view: BudgetView, unit: str) -> str:
    limit = view.limits.get(unit)
    spent = _amount(unit, getattr(view.spent, unit))
    return spent if limit is None else f"{spent} of {_amount(unit, limit)}"


def _held(view: BudgetView) -> str:
    amounts = {unit: getattr(view.held, unit) for unit in UNITS}
    return ", ".join(_with_unit(unit, amount) for unit, amount in amounts.items() if amount)


def _told(view: BudgetView) -> Iterator[str]:
    for unit, share in view.alerts.items():
        yield f"{share:.0%} of {_COLUMNS[unit]} told"
    for unit in view.refused:
        yield f"refused for {_COLUMNS[unit]}"


def _lines(name: str, settings: Budget | None, views: Sequence[BudgetView]) -> Iterator[str]:
    yield f"Budget {name}"
    if settings is None:
        yield "  not declared in this project: the settings are those of the code or the policy that used it"
    else:
        yield from pretty(settings.model_dump(mode="json", exclude_none=True))
    now = datetime.now(UTC)
    for view in views:
        yield f"{view.subject}, {view.period}"
        yield from fields(dict(_facts(view, now)), "  ")
    if not views:
        yield "Nothing is spent in this period."


def _facts(view: BudgetView, now: datetime) -> Iterator[tuple[str, object]]:
    for unit, column in _COLUMNS.items():
        share = view.share(unit)
        used = "" if share is None else f" ({share:.0%} with what is set aside)"
        yield column, f"{_of(view, unit)}{used}"
    yield "set aside", _held(view) or "(nothing)"
    yield "alerts", ", ".join(_told(view)) or "(none)"
    if view.ends is not None:
        left = (view.ends - now).total_seconds()
        yield "next period", f"{iso(view.ends)} ({f'in {span(left)}' if left > 0 else 'begun'})"
    yield "last change", f"{iso(view.updated_at)} ({span((now - view.updated_at).total_seconds())} ago)"


def _amount(unit: str, amount: float) -> str:
    if unit != "cost_usd":
        return f"{amount:,.0f}"
    # Calls of small models cost fractions of a cent.
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4g}"


def _with_unit(unit: str, amount: float) -> str:
    return _amount(unit, amount) if unit == "cost_usd" else f"{_amount(unit, amount)} {unit}"
