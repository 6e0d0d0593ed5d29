from __future__ import annotations

import pytest
from runner_steps import options

from airflow_agentic.stores import open_store


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/agentic.db"
    with open_store(url, options=options()) as opened:
        yield opened


@pytest.fixture
def bus(store):
    return store.bus
