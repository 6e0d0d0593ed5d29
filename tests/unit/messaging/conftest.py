from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import clocked
import pytest

from airflow_agentic.messaging import BusOptions
from airflow_agentic.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_agentic.messaging import MessageBus
    from airflow_agentic.stores import Store

OPTIONS = BusOptions(max_attempts=3, lease=timedelta(seconds=60), poll=timedelta(seconds=0.01))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=clocked.STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    with clocked.opened(request.param, tmp_path, clock, OPTIONS) as opened:
        yield opened


@pytest.fixture
def bus(store: Store) -> MessageBus:
    return store.bus
