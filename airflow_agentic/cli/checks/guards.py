"""Whether guards stand in the way of the work, and whether they know what they should."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence

from airflow_agentic import runtime
from airflow_agentic.cli.checks.finding import Finding, Result
from airflow_agentic.cli.output import count, span
from airflow_agentic.config import Project
from airflow_agentic.config.loading import UnknownPath, load
from airflow_agentic.config.policies import FailureRule
from airflow_agentic.resilience import BreakerState, BreakerView
from airflow_agentic.resilience.views import budget_views
from airflow_agentic.stores import Store

_NAMED = 5
_SAID = {
    BreakerState.OPEN: "open",
    BreakerState.HALF_OPEN: "half open",
    BreakerState.FORCED_OPEN: "opened by hand",
    BreakerState.FORCED_CLOSED: "held closed by hand",
}


def breakers(store: Store) -> Finding:
    """Look for breakers that stop calls, or that a person keeps from stopping them; says whether the store answers."""
    known = store.guarding.breakers()
    told = [view for view in known if view.state in _SAID]
    if not told:
        return Finding(
            "breakers", Result.OK, f"{count(len(known), 'breaker')} known, none open or set by hand"
        )
    first = shlex.quote(told[0].key)
    return Finding(
        "breakers",
        Result.WARNING,
        _some([f"{view.key} is {_SAID[view.state]}{_since(store, view)}" for view in told]),
        f"`airflow agentic breakers show {first}` says why and since when; what it protects is down, or was; "
        f"`airflow agentic breakers reset {first} --reason TEXT` closes it by hand",
    )


def budgets(store: Store) -> Finding:
    """Look for budgets of this period of which nothing is left, or for lack of which calls were refused."""
    known = budget_views(store.guarding.shared)
    told = [view for view in known if view.exceeded or view.refused]
    if not told:
        return Finding("budgets", Result.OK, f"{count(len(known), 'budget')} in use, none used up")
    texts = []
    for view in told:
        units = dict.fromkeys((*view.exceeded, *view.refused))
        texts.append(f"{view.budget} of {view.subject} in {view.period}: {', '.join(units)}")
    return Finding(
        "budgets",
        Result.WARNING,
        f"used up: {_some(texts)}",
        f"`airflow agentic budgets show {shlex.quote(told[0].budget)}` shows what is spent and when the next period begins; "
        "raise it under budgets: in the project file if that is right",
    )


def failures() -> Finding:
    """Look at whether rules about failures name errors that there are."""
    project = runtime.project()
    rules = [(index, rule) for index, rule in enumerate(project.failures) if _module_of(rule)]
    with contextlib.redirect_stdout(sys.stderr):
        runtime.make_dags_importable()
        wrong = [text for index, rule in rules for text in _wrong(project, index, rule)]
    if not wrong:
        return Finding("failures", Result.OK, f"{count(len(project.failures), 'rule')}")
    return Finding(
        "failures",
        Result.WARNING,
        _some(wrong, "; "),
        "correct the error: of the rule, or install what it names; a rule that names no error never fits",
    )


def _module_of(rule: FailureRule) -> bool:
    return rule.error is not None and (":" in rule.error or "." in rule.error)


def _wrong(project: Project, index: int, rule: FailureRule) -> Iterator[str]:
    """Yield why the error that a rule names is none."""
    assert rule.error is not None
    where = project.fault(("failures", index, "error"), "").source
    try:
        found = load(rule.error)
    except UnknownPath as error:
        yield f"{where}: {error}"
        return
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        yield f"{where}: {rule.error!r} is no exception"
        return
    # An error is known by the module that defines it, not by those that hand it on.
    known_as = f"{found.__module__}:{found.__name__}"
    if rule.error not in (known_as, known_as.replace(":", ".")):
        yield f"{where}: {rule.error!r} is defined as {known_as!r}, and fits only by that name"


def _since(store: Store, view: BreakerView) -> str:
    if view.since is None:
        return ""
    now = store.guarding.shared.now()
    return f" for {span(now - view.since.timestamp())}"


def _some(texts: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return between.join(texts[:_NAMED]) + more
