from __future__ import annotations

from datetime import timedelta

import pytest
from commandline import Run

from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.agents.status import AgentProfile, PerformanceMetrics
from airflow_agentic.stores import Store

HOUR = timedelta(hours=1)


@pytest.fixture
def auditor(store: Store) -> AgentProfile:
    profile = AgentProfile(
        name="licence-auditor",
        agent_type="FunctionAgent",
        description="Judges licences.",
        configuration={"strict": True, "key": "**********"},
        input_schema={"type": "object", "properties": {"name": {"type": "string"}}},
        output_schema={"type": "boolean"},
    )
    store.agents.register("licence-auditor-1", profile, "worker-1:42", HOUR)
    store.agents.report(
        "licence-auditor-1",
        AgentState.DEGRADED,
        "guessed \x1b[31mone",
        add=PerformanceMetrics(8, 6, 2, 1, 0.4, 0.25, "ValueError: [/no] licence"),
        alive_for=HOUR,
    )
    return profile


@pytest.mark.usefixtures("auditor")
def test_list_shows_state_and_numbers(on_store: Run) -> None:
    header, row = on_store("agents", "list", "-o", "plain").out.splitlines()

    assert header.split("  ")[0] == "name"
    assert row.split()[:8] == ["licence-auditor", "FunctionAgent", "degraded", "1", "8", "2", "25.0%", "50.0"]
    assert row.endswith("ago")


@pytest.mark.usefixtures("auditor")
def test_list_gives_programs_numbers(on_store: Run) -> None:
    (entry,) = on_store("agents", "list", "-o", "json").json

    assert entry["name"] == "licence-auditor"
    assert entry["state"] == "degraded"
    assert entry["live_instances"] == 1
    assert (
        entry["metrics"].items()
        >= {
            "processed": 8,
            "succeeded": 6,
            "failed": 2,
            "degraded": 1,
            "total_seconds": 0.4,
            "max_seconds": 0.25,
            "last_error": "ValueError: [/no] licence",
            "error_rate": 0.25,
            "mean_seconds": 0.05,
        }.items()
    )


def test_a_store_without_agents_lists_none(on_store: Run) -> None:
    assert on_store("agents", "list", "-o", "json").json == []
    assert on_store("agents", "list", "-o", "yaml").out.strip() == "[]"


def test_describe_shows_all_of_it(on_store: Run, auditor: AgentProfile) -> None:
    shown = on_store("agents", "describe", "licence-auditor").out
    full = on_store("agents", "describe", "licence-auditor", "-o", "json").json

    for part in (
        "Judges licences.",
        "degraded: guessed one",
        '"strict": true',
        "[/no] licence",
        "25.0%",
        "250 ms",
    ):
        assert part in shown
    assert "\x1b" not in shown
    assert full["input_schema"] == auditor.input_schema
    assert full["output_schema"] == auditor.output_schema
    assert full["configuration"] == auditor.configuration
    assert full["description"] == "Judges licences."


@pytest.mark.usefixtures("auditor")
def test_describe_of_an_unknown_agent_names_the_nearest(on_store: Run) -> None:
    ended = on_store("agents", "describe", "licence-audtor")

    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "error: no agent 'licence-audtor' ever reported to this store. Did you mean 'licence-auditor'?"
    )


def test_describe_in_an_empty_store_says_that_none_is_known(on_store: Run) -> None:
    assert "None is known yet." in on_store("agents", "describe", "x").err


def test_an_agent_that_never_worked_has_no_rates(on_store: Run, store: Store) -> None:
    store.agents.register("new-1", AgentProfile("new", "FunctionAgent"), "worker-1:42", HOUR)

    shown = on_store("agents", "describe", "new").out

    assert "(none)" in shown
    assert "%" not in on_store("agents", "list").out


def test_a_command_line_sets_what_nothing_written_down_says(agentic, tmp_path):
    url = f"sqlite:///{tmp_path}/set.db"
    ended = agentic("messages", "stats", "--set", f"settings.store_url={url}")
    assert ended.code == 1
    assert url in ended.err
    assert "--set settings.stor_url" in agentic("doctor", "--set", "settings.stor_url=x").out
