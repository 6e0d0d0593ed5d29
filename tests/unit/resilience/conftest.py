"""Guards on a store that can be away, and the other side that they guard."""

from __future__ import annotations

import pytest
from guard_parts import Notebook, Service, Shaky, made


@pytest.fixture
def store():
    return Shaky()


@pytest.fixture
def notes():
    return Notebook()


@pytest.fixture
def guards(store, notes):
    return made(store, notes)


@pytest.fixture
def service():
    return Service()
