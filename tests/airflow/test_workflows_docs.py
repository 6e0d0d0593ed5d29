"""The pictures in the pages are those of the DAGs beside them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup

from airflow_agentic.agents.registry import registry
from airflow_agentic.workflows import picture

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("docs_pictures", DOCS / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def own_agents(monkeypatch):
    monkeypatch.setattr(registry, "_known", {})


def test_each_picture_is_the_graph_of_its_dag(pictures, store_url):
    for page in pictures.PAGES:
        assert page.read_text() == pictures.drawn(page), "run python docs/pictures.py"


def test_every_pattern_has_a_picture_of_more_than_its_name(pictures):
    [page] = pictures.PAGES
    text = page.read_text()
    assert text.count("```mermaid") == text.count("<!-- picture:") >= 13


def test_a_picture_shows_groups_tasks_and_arrows():
    with DAG("drawn") as dag:
        with TaskGroup("group"):
            inner = EmptyOperator(task_id="inner")
        EmptyOperator(task_id="a-b") >> inner
    assert picture(dag).splitlines() == [
        "flowchart LR",
        "    subgraph group[group]",
        "        group_inner[inner]",
        "    end",
        "    a_b[a-b]",
        "    a_b --> group_inner",
    ]
