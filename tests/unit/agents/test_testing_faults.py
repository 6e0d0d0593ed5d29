"""The fixture for users' own tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from airflow_agentic.config import load_project
from airflow_agentic.errors import ConfigurationError, InjectedFault, StoreUnavailable
from airflow_agentic.messaging import Message
from airflow_agentic.testing import run_agent
from airflow_agentic.testing.faults import agentic_faults

__all__ = ["agentic_faults"]


def tell_legal(task: str, ctx) -> str:
    ctx.send("legal", task)
    return task.upper()


def test_an_agent_fails_as_the_rule_says_and_works_when_it_is_spent(agentic_faults):
    name = agentic_faults.add("error", "agent:tell-legal", category="permanent", count=1)
    with agentic_faults.open() as store:
        with pytest.raises(InjectedFault) as caught:
            run_agent(tell_legal, "a", store=store)
        assert (caught.value.category, caught.value.rule) == ("permanent", name)
        assert run_agent(tell_legal, "a", store=store).result == "A"
        assert agentic_faults.seen(store)[name].injected == 1


def test_messages_suffer_too(agentic_faults):
    agentic_faults.add("drop", "send:legal", count=1)
    with agentic_faults.open() as store:
        message = Message(source="me", recipient="legal")
        with pytest.raises(StoreUnavailable, match="injected"):
            store.bus.send(message)
        assert store.bus.send(message) is False


def test_projects_that_are_loaded_meanwhile_have_the_rules_and_injection_is_on(agentic_faults):
    agentic_faults.add("latency", "agent:*", name="slow", seconds=0.5)
    agentic_faults.add("error", "send:*", count=2)
    project = load_project()
    assert project.settings.fault_injection
    assert {name: rule.what for name, rule in project.faults.items()} == {
        "slow": "latency",
        "error-2": "error",
    }
    code = "import json; from airflow_agentic.config import load_project; print(json.dumps(sorted(load_project().faults)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["error-2", "slow"]


def test_afterwards_nothing_of_it_is_left(agentic_faults):
    assert not load_project().faults
    assert not load_project().settings.fault_injection


def test_a_rule_that_would_kill_the_test_must_be_meant(agentic_faults):
    with pytest.raises(ConfigurationError, match="say kills_me=True"):
        agentic_faults.add("sigkill", "agent:*")
    agentic_faults.add("sigkill", "agent:*", kills_me=True)


def test_a_rule_that_cannot_be_is_refused_at_once(agentic_faults):
    with pytest.raises(ValidationError, match="drop cannot happen at agent"):
        agentic_faults.add("drop", "agent:*")
    assert not agentic_faults.rules


def test_the_example_of_the_docs_passes(tmp_path):
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "fault-injection.md").read_text()
    [example] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["airflow_agentic.testing.faults"]\n')
    (tmp_path / "test_triage.py").write_text(example)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        ".",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout
