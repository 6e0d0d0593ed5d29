from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import clocked
import pytest
from run_parts import Breakable, runs_on

from airflow_agentic.stores import open_store
from airflow_agentic.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_agentic.persistence import Runs
    from airflow_agentic.stores import Store


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema in it: to copy it is quicker than to make it."""
    path = tmp_path_factory.mktemp("runs") / "agentic.db"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock, empty_database: Path
) -> Iterator[Store]:
    if request.param == "sqlite":
        shutil.copy(empty_database, tmp_path / "agentic.db")
    with clocked.opened(request.param, tmp_path, clock) as opened:
        if request.param == "sqlite":
            journals: Any = opened.run_stores.journals
            journals._db.execute("PRAGMA synchronous=OFF")  # nobody cuts the power here
        yield opened


@pytest.fixture
def breakable(store: Store) -> Breakable:
    return Breakable(store.run_stores)


@pytest.fixture
def runs(breakable: Breakable) -> Runs:
    return runs_on(breakable.stores)
