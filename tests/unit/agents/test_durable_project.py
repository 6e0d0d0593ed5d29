"""What a project file says of how the durable runs of an agent are kept."""

from __future__ import annotations

import pytest
from project_steps import Place

from airflow_agentic.agents.declared import plan
from airflow_agentic.agents.registry import registry


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    registry._known.clear()
    made = Place(tmp_path)
    made.code("""
        from airflow_agentic.agents import agent

        @agent("payer")
        def payer(task: str) -> str:
            return task
    """)
    yield made
    made.forget()


@pytest.mark.parametrize("said", ["hybrid", "events", "snapshot", "checkpoint", "off", None])
def test_it_is_in_the_plan_of_the_agent(place, said):
    line = f"persistence: {said}" if said else ""
    project = place.project(f"imports: [MODULE]\nagents:\n  payer: {{{line}}}")
    assert plan(project, "payer").persistence == said


def test_what_there_is_not_is_refused_with_line_and_key(place):
    line, key, text = place.fault("imports: [MODULE]\nagents:\n  payer:\n    persistence: hybird")
    assert (line, key) == (4, "agents.payer.persistence")
    assert "hybrid" in text
