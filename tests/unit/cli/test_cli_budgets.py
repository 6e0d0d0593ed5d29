from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from commandline import Run, change

from airflow_agentic.errors import BudgetExceeded
from airflow_agentic.resilience import Budget, Guard, GuardOptions, Policy, Subject, spend
from airflow_agentic.resilience.ports import GuardKey
from airflow_agentic.stores import Store, open_store

DAILY = Budget(calls=3, tokens=1_000, cost_usd=0.5, reserve_tokens=100, alert_at=(0.5, 0.9))
PROJECT = """\
budgets:
  daily: {calls: 3, tokens: 1000, cost_usd: 0.5, reserve_tokens: 100}
  unused: {tokens: 5}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agentic.yaml"
    path.write_text(PROJECT)
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(path))


@pytest.fixture
def guarded(store_url: str, store: Store) -> Guard:
    """Calls of the agent triage, on a budget of the project."""
    opened = open_store(store_url, guard_options=GuardOptions(budgets={"daily": DAILY}))
    return opened.guard(Policy(budget="daily"), "conn:primary", Subject(agent="triage"))


@pytest.mark.usefixtures("project")
def test_list_shows_what_is_spent_and_what_is_set_aside(on_store: Run, guarded: Guard) -> None:
    guarded.call(lambda: spend(tokens=550, cost_usd=0.02))
    with guarded.attempt():
        ended = on_store("budgets", "list", "-o", "json")
        shown = on_store("budgets", "list", "-o", "plain").out
    [daily] = ended.json

    assert (daily["budget"], daily["subject"]) == ("daily", "agent=triage")
    assert daily["spent"] == {"calls": 1, "tokens": 550, "cost_usd": 0.02}
    assert daily["set_aside"] == {"calls": 1, "tokens": 100, "cost_usd": 0}
    assert daily["limits"] == {"calls": 3, "tokens": 1000, "cost_usd": 0.5}
    assert daily["share"] == pytest.approx(2 / 3)
    assert daily["alerts"] == {"tokens": 0.5}
    assert "550 of 1,000" in shown
    assert "$0.02 of $0.5" in shown
    assert "1 calls, 100 tokens" in shown
    assert "50% of tokens told" in shown
    assert "declared, and nothing is spent of it yet: unused" in ended.err


@pytest.mark.usefixtures("project")
def test_what_is_used_up_is_told(on_store: Run, guarded: Guard) -> None:
    for _ in range(3):
        guarded.call(lambda: None)
    with pytest.raises(BudgetExceeded):
        guarded.call(lambda: None)

    ended = on_store("budgets", "list", "-o", "json")

    assert ended.json[0]["exceeded"] == ["calls"]
    assert ended.json[0]["refused"] == ["calls"]
    assert "1 budget used up" in ended.err


@pytest.mark.usefixtures("project")
def test_show_has_the_settings_and_each_who_spends(on_store: Run, guarded: Guard) -> None:
    guarded.call(lambda: spend(tokens=10))

    ended = on_store("budgets", "show", "daily")

    assert ended.code == 0
    assert '"reserve_tokens": 100' in ended.out
    assert "agent=triage, 2" in ended.out
    assert "10 of 1,000 (1% with what is set aside)" in ended.out
    assert "next period" in ended.out


@pytest.mark.usefixtures("project")
def test_past_periods_are_shown_when_they_are_asked_for(
    on_store: Run, guarded: Guard, tmp_path: Path
) -> None:
    guarded.call(lambda: spend(tokens=10))
    with contextlib.closing(sqlite3.connect(tmp_path / "agentic.db")) as database, database:
        database.execute(
            "UPDATE agentic_guard SET name = 'daily/agent=triage/2026-01-31' WHERE kind = 'budget'"
        )

    assert on_store("budgets", "list", "-o", "json").json == []
    assert on_store("budgets", "list", "--past", "-o", "json").json[0]["period"] == "2026-01-31"
    hidden = on_store("budgets", "show", "daily")
    assert "Nothing is spent in this period." in hidden.out
    assert "1 past period: --past shows them" in hidden.err
    assert on_store("budgets", "show", "daily", "--past", "-o", "json").json[0]["current"] is False


@pytest.mark.usefixtures("project")
def test_what_a_worker_that_died_had_set_aside_is_spent(on_store: Run, guarded: Guard, store: Store) -> None:
    def its_lease_ends(doc: dict[str, Any]) -> None:
        doc["held"] = {token: [*row[:3], 1.0] for token, row in doc["held"].items()}

    with guarded.attempt():
        [(name, _)] = store.guards.entries("budget")
        change(store, GuardKey("budget", name), its_lease_ends)

        [daily] = on_store("budgets", "list", "-o", "json").json

    assert (daily["spent"]["tokens"], daily["set_aside"]["tokens"]) == (100, 0)


@pytest.mark.usefixtures("project")
def test_an_unknown_budget_is_told_with_the_nearest(on_store: Run, store: Store) -> None:
    ended = on_store("budgets", "show", "dayly")

    assert ended.code == 1
    assert "no budget 'dayly' is declared, and nobody spent from it. Did you mean 'daily'?" in ended.err
