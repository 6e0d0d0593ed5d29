"""A schema of its own on the PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator

import postgres
import pytest


@pytest.fixture
def name() -> Iterator[str]:
    with postgres.schema() as made:
        yield made


@pytest.fixture
def url(name: str) -> str:
    return postgres.url_of(name)
