"""Every Python block of the README and the docs runs, and the DAGs in them succeed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from airflow.sdk import DAG

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_the_python_of_the_page_runs(page, run_dag, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "snippet"}
    dags = []
    for block in blocks(page):
        exec(compile(_ending_in_a_name(block), str(page), "exec"), names)
        dags += [dag for dag in (names.pop("made", None),) if isinstance(dag, DAG)]
    for dag in dags:
        assert run_dag(dag).state == "success"
    if page.name == "README.md":
        assert len(dags) == 1
        assert store.bus.stats("writer").done == 1


def _ending_in_a_name(block):
    """A DAG file ends with a call of its DAG function; keep what it returns."""
    return re.sub(r"^(\w+\(\))\s*\Z", r"made = \1\n", block, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_links_of_the_page_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
