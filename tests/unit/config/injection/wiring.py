"""Types to be wired, providers that log, and short ways to ask for them."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from airflow_agentic.config.injection.container import Need, Provider, needs_of
from airflow_agentic.errors import UnknownService


class Bus: ...


class SqlBus(Bus): ...


class Cache: ...


class SearchIndex: ...


class FastIndex(SearchIndex): ...


class Search:
    def __init__(self, cache: Cache) -> None:
        self.cache = cache


def wants_index(index: SearchIndex): ...


def wants_search(search: Search): ...


def wants_bus(bus: Bus): ...


def supply(services, target, values=None, uses=None):
    with services.open(values or {}) as scope:
        return scope.supply(needs_of(target), uses, "agent 'team'")


def check(services, target, uses=None):
    return services.check("agent 'team'", needs_of(target), uses)


def one(services, target, **kwargs):
    (made,) = supply(services, target, **kwargs).values()
    return made


def only_fault(services, target, uses=None):
    """The one fault; supplying says the same and builds nothing."""
    (fault,) = check(services, target, uses)
    with services.open({}) as scope, pytest.raises(UnknownService) as caught:
        scope.supply(needs_of(target), uses, "agent 'team'")
    assert str(caught.value) == fault
    return fault


def logged(name, log, scope="run", needs=(), **kwargs):
    """A provider whose generator factory needs other providers by name, and logs opening and closing."""

    def factory(**needed):
        assert set(needed.values()) == set(needs)
        log.append(f"+{name}")
        yield name
        log.append(f"-{name}")

    keyword = inspect.Parameter.KEYWORD_ONLY
    factory.__signature__ = inspect.Signature([inspect.Parameter(need, keyword) for need in needs])
    return Provider(name, factory, scope=scope, uses={need: need for need in needs}, **kwargs)


def want(*names):
    return [Need(f"p{i}", Any, name) for i, name in enumerate(names)]


def assert_runs(script):
    head = """
        import os, sys
        from airflow_agentic.config.injection.container import Need, Provider, Services
        class X: ...
    """
    text = textwrap.dedent(head) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
