"""Every example of the README and the docs is true: Python runs, DAGs succeed, commands print what is shown.

A block whose first line is a comment with the name of a file is that file, in the directory where the others run.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.sdk import DAG

from airflow_agentic import runtime
from airflow_agentic.agents.context import RunIdentity
from airflow_agentic.cluster_policy import task_policy
from airflow_agentic.config import ProjectInvalid
from airflow_agentic.config.run_time import overlay
from airflow_agentic.errors import UnknownService

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOME = "/opt/airflow"
"""Where the pages pretend to be."""

_BLOCK = re.compile(r"^```(python|yaml|toml|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|yaml|yml|toml))\n")
_PROJECT = "agentic.yaml"


@dataclass(frozen=True)
class Block:
    language: str
    text: str

    @property
    def file(self):
        named = _FILE.match(self.text)
        return named[1] if named else None

    @property
    def is_command(self):
        return self.language == "console" and "$ airflow agentic config" in self.text


def blocks(page):
    return [Block(*found) for found in _BLOCK.findall(page.read_text())]


def runs(page):
    return any(block.language == "python" or block.is_command for block in blocks(page))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The directory where a page's examples run; what they import is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", [p for p in PAGES if runs(p)], ids=lambda p: p.name)
def test_the_examples_of_the_page_are_true(page, run_dag, store, here, monkeypatch):
    names = {"__name__": "snippet"}
    dags = []
    for block in blocks(page):
        if block.file:
            write(block, here, monkeypatch)
        if block.is_command:
            assert output_of(block, here) == shown_in(block)
        elif block.language == "python":
            made = execute(block, names, page)
            dags += [made] if isinstance(made, DAG) else []
    runs = [run_dag(dag) for dag in dags]
    assert [run.state for run in runs] == ["success"] * len(runs)
    for name in [name for name in names if name.startswith("test_")]:
        if not hasattr(names[name], "pytestmark"):  # what is parametrized is called by pytest
            names[name]()
    if page.name == "README.md":
        assert len(dags) == 1
        assert store.bus.stats("writer").done == 1
    if page.name == "configuration.md":
        assert_run_time_configuration_counts(run_dag, *dags)
        assert_errors_are_as_shown(page.read_text(), here, monkeypatch, dags[0])
    if page.name == "dependency-injection.md":
        assert_the_chain_is_as_shown(page.read_text(), here, monkeypatch)


def write(block, here, monkeypatch):
    file = here / block.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(block.text)
    if block.file == _PROJECT:
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(file))


def execute(block, names, page):
    """Run a block, or import it if it is a file; return what the DAG function at its end made."""
    if block.file:
        importlib.invalidate_caches()
        module = vars(importlib.import_module(Path(block.file).stem))
        names |= {name: value for name, value in module.items() if not name.startswith("__")}
        return None
    exec(compile(_ending_in_a_name(block.text), str(page), "exec"), names)
    return names.pop("made", None)


def assert_run_time_configuration_counts(run_dag, declared, by_params):
    assert run_dag(declared).xcom("triage") == "small"
    assert run_dag(by_params).xcom("triage") == "large"
    asked = {"agents.triage.config.limit_euros": 950}
    assert run_dag(by_params, run_conf={"agentic": asked}).xcom("triage") == "small"


def assert_errors_are_as_shown(text, here, monkeypatch, dag):
    with pytest.raises(ProjectInvalid) as forbidden:
        overlay(runtime.project(), "triage", {}, {"dag_run.conf": {"agents.accountant.config.ledger": "x"}})
    assert f"ProjectInvalid: {forbidden.value}\n" in text
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", f"{here}/{_PROJECT},{here}/rules.yaml")
    with pytest.raises(AirflowClusterPolicyViolation) as refused:
        task_policy(dag.task_dict["triage"])
    assert f"AirflowClusterPolicyViolation: {refused.value}\n" in text


def assert_the_chain_is_as_shown(text, here, monkeypatch):
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", f"{here}/broken.yaml")
    with (
        runtime.workplace(None, RunIdentity("dag", "run", "task")) as place,
        pytest.raises(UnknownService) as missing,
    ):
        place.agent(runtime.plan("searcher"))
    assert f"UnknownService: {missing.value}\n".replace(str(here), HOME) in text
    # An agent that another one needs, built as a task builds it.
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", f"{here}/{_PROJECT},{here}/with-desk.yaml")
    with runtime.workplace(None, RunIdentity("dag", "run", "task")) as place:
        plan = runtime.plan("desk")
        assert place.runner(place.agent(plan), plan).run_task("cakes") == "read Honey cakes"


def commands_of(block):
    return re.findall(r"^\$ (.*)$", block.text, re.MULTILINE)


def shown_in(block):
    return [line for line in block.text.splitlines() if not line.startswith("$ ")]


def output_of(block, here):
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AGENTIC__", "AIRFLOW__AGENTIC__"))
    }
    env |= {
        "AIRFLOW_HOME": str(here),
        "AIRFLOW__AGENTIC__PROJECT_FILE": _PROJECT,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(here),
        "PYTHONUNBUFFERED": "1",
    }
    ended = subprocess.run(
        ["/bin/sh", "-c", "\n".join(commands_of(block))],
        cwd=here,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return [line.rstrip() for line in ended.stdout.replace(str(here), HOME).splitlines()]


def _ending_in_a_name(text):
    """A DAG file ends with a call of its DAG function; keep what it returns."""
    return re.sub(r"^(\w+\(\))\s*\Z", r"made = \1\n", text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_links_of_the_page_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
