"""All of this is chaos: it takes its time, and a machine that is slow meanwhile must not make it fail."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import books
import postgres
import pytest
import servers
import storms

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_ONCE = 3 if storms.IS_LONG else 6
"""Storms wait more than they work."""

_TIMEOUT = 7_200 if storms.IS_LONG else 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put chaos at the end of whatever order there is, and last what waits for the storms: nobody else is in them.

    Where several processes share the tests it comes first: what begins last must not be what takes longest.
    """
    is_shared = "PYTEST_XDIST_WORKER" in os.environ
    for item in items:
        if _is_ours(item):
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.timeout(_TIMEOUT))
    items.sort(key=lambda item: (_is_ours(item) != is_shared, _storm_of(item) is not None))


def _is_ours(item: pytest.Item) -> bool:
    return Path(__file__).parent in item.path.parents


def _storm_of(item: pytest.Item) -> str | None:
    return item.callspec.params.get("storm") if _is_ours(item) and hasattr(item, "callspec") else None


@pytest.fixture(scope="session")
def weather(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """All storms that tests ask for, a few of them at a time, from now on."""
    every = storms.STORMS | storms.MUTANTS
    asked = set(map(_storm_of, request.session.items))
    if any(name in asked and storm.store == "postgresql" for name, storm in every.items()):
        postgres.unreachable()  # Looked for once, before there are threads.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        running = {
            name: pool.submit(storms.run, name, storm, tmp_path_factory.mktemp("storm"))
            for name, storm in every.items()
            if name in asked
        }
        yield running
        pool.shutdown(cancel_futures=True)
    if storms.IS_LONG:
        ended = [each.result() for each in running.values() if not each.cancelled() and not each.exception()]
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n\n{books.table(ended)}\n")


@pytest.fixture
def found(storm: str, weather: dict) -> books.Books:
    """The books of the storm that the test is about."""
    return weather[storm].result()


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "redis"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Server]:
    """A store of every kind."""
    with servers.of_kind(request.param, tmp_path_factory.mktemp("store")) as one:
        yield one
