from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wiring import (
    Bus,
    Cache,
    Search,
    SearchIndex,
    assert_runs,
    logged,
    want,
    wants_search,
)

from airflow_agentic.config.injection.container import Named, Need, Provider, Services, needs_of
from airflow_agentic.errors import ConfigurationError, UnknownService


class TestBuilding:
    def test_a_thing_of_a_run_is_built_once_a_scope(self):
        services = Services([Provider("cache", Cache), Provider("search", Search)])
        with services.open({}) as first, services.open({}) as second:
            assert first.get(Search).cache is first.get(Cache) is first.get(Cache)
            assert first.get(Cache) is not second.get(Cache)

    def test_a_thing_of_the_process_is_built_once(self):
        services = Services([Provider("cache", Cache, scope="process"), Provider("search", Search)])
        with services.open({}) as first, services.open({}) as second:
            assert first.get(Cache) is second.get(Cache) is second.get(Search).cache
        services.close()

    def test_none_is_built_once_too(self):
        built = []
        services = Services([Provider("a", lambda: built.append(1))])
        with services.open({}) as scope:
            assert [scope.get(Any, "a"), scope.get(Any, "a")] == [None, None]
        assert built == [1]

    @pytest.mark.parametrize("scope", ["run", "process"])
    def test_one_is_built_however_many_threads_ask(self, scope):
        built, start = [], threading.Barrier(8)

        def slow() -> Cache:
            built.append(1)
            threading.Event().wait(0.05)
            return Cache()

        services = Services([Provider("cache", slow, scope=scope), Provider("search", Search, scope=scope)])

        def ask(scope):
            start.wait()
            return scope.get(Search).cache

        with services.open({}) as common, ThreadPoolExecutor(8) as pool:
            scopes = [common if scope == "run" else services.open({}) for _ in range(8)]
            caches = list(pool.map(ask, scopes))
        services.close()
        assert built == [1]
        assert len(set(map(id, caches))) == 1

    def test_the_first_seen_value_of_the_process_is_used(self):
        first, second = Cache(), Cache()
        services = Services([Provider("search", Search, scope="process")], process_given=[Cache])
        with services.open({Cache: first}), services.open({Cache: second}) as scope:
            assert scope.get(Cache) is scope.get(Search).cache is first
        with services.open({}) as scope:
            assert scope.get(Cache) is first
        services.close()

    def test_a_value_that_was_not_declared_or_is_not_there_is_refused(self):
        with pytest.raises(ConfigurationError, match="does not bring Bus, which is given and brings Cache"):
            Services([], given=[Bus]).open({Cache: 1})

    def test_get_of_something_missing_says_what_check_says(self):
        services = Services([])
        with services.open({}) as scope:
            with pytest.raises(UnknownService) as caught:
                scope.get(SearchIndex, consumer="agent 'team'")
            assert [str(caught.value)] == services.check("agent 'team'", [Need("", SearchIndex)])
            with pytest.raises(UnknownService, match="the caller needs nam, and there is no service 'nam'"):
                scope.get(Any, "nam")

    def test_nothing_is_built_if_something_is_at_fault(self):
        def target(a: Annotated[Any, Named("a")], bus: Bus): ...

        log = []
        with Services([logged("a", log)]).open({}) as scope, pytest.raises(UnknownService):
            scope.supply(needs_of(target))
        assert log == []

    def test_checking_builds_nothing(self):
        log = []
        services = Services([logged("a", log), logged("b", log, "process")])
        assert services.check_all() == services.check("x", [Need("", Any, "a")]) == []
        assert log == []

    def test_a_failing_factory_says_what_was_built_for_whom(self):
        def fails() -> Cache:
            raise ZeroDivisionError("no")

        services = Services([Provider("cache", fails, origin="a:3"), Provider("search", Search)])
        with services.open({}) as scope, pytest.raises(ZeroDivisionError) as caught:
            scope.supply(needs_of(wants_search), consumer="agent 'team'")
        assert str(caught.value) == "no"
        assert caught.value.__notes__ == [
            (
                "while building service 'cache' (a:3) for agent 'team' "
                "(team -> search: Search (service 'search') -> cache: Cache (service 'cache', a:3))"
            )
        ]

    def test_a_factory_that_failed_is_tried_again(self):
        results = [ZeroDivisionError(), Cache()]

        def fails_once() -> Cache:
            if isinstance(result := results.pop(0), Exception):
                raise result
            return result

        with Services([Provider("cache", fails_once)]).open({}) as scope:
            with pytest.raises(ZeroDivisionError):
                scope.get(Cache)
            assert type(scope.get(Cache)) is Cache

    def test_a_failing_argument_is_noted(self):
        def arguments():
            raise ConfigurationError("no such variable")

        services = Services([Provider("cache", Cache, arguments=arguments)])
        with services.open({}) as scope, pytest.raises(ConfigurationError, match="variable") as caught:
            scope.get(Cache)
        assert caught.value.__notes__[0].startswith("while building service 'cache' for the caller (")

    def test_the_importing_of_svcs_warns_nobody(self):
        # the whole suite runs with warnings as errors; here in a process that has not imported it yet
        assert_runs("""
            import warnings
            warnings.simplefilter("error")
            with Services([Provider("x", X)]).open({}) as scope:
                scope.get(X)
            assert "svcs" in sys.modules
        """)

    def test_values_alone_do_not_import_svcs(self):
        assert_runs("""
            x = X()
            services = Services([], given=[X])
            with services.open({X: x}) as scope:
                assert scope.supply([Need("x", X)]) == {"x": x}
                assert services.check_all() == []
            services.close()
            assert not {"svcs", "airflow", "fastapi", "attrs"} & set(sys.modules)
        """)

    def test_checking_does_not_import_svcs(self):
        assert_runs("""
            assert Services([Provider("x", X)]).check_all() == []
            assert "svcs" not in sys.modules
        """)


@st.composite
def acyclic(draw):
    """Names with what they need, in a random order; a thing of the process needs only such things."""
    scopes = draw(st.lists(st.sampled_from(["run", "process"]), min_size=1, max_size=9))
    graph = []
    for i, scope in enumerate(scopes):
        allowed = [j for j in range(i) if scope == "run" or scopes[j] == "process"]
        needs = draw(st.lists(st.sampled_from(allowed), unique=True)) if allowed else []
        graph.append((f"n{i}", scope, [f"n{j}" for j in needs]))
    return draw(st.permutations(graph))


def build(graph, log):
    return Services([logged(name, log, scope, needs) for name, scope, needs in graph])


class TestGraphs:
    @given(acyclic())
    @settings(deadline=None)
    def test_everything_is_built_once_after_what_it_needs_and_closed_in_reverse(self, graph):
        log, scopes = [], {name: scope for name, scope, _ in graph}
        services = build(graph, log)
        assert services.check_all() == []
        with services.open({}) as scope:
            scope.supply(want(*scopes))
            scope.supply(want(*scopes))
            opened = [entry[1:] for entry in log]
        services.close()
        assert sorted(opened) == sorted(scopes)
        assert all(opened.index(need) < opened.index(name) for name, _, needs in graph for need in needs)
        expected = [n for s in ("run", "process") for n in reversed(opened) if scopes[n] == s]
        assert log[len(opened) :] == [f"-{name}" for name in expected]

    @given(acyclic(), st.data())
    @settings(deadline=None)
    def test_what_has_a_cycle_is_refused_and_never_built(self, graph, data):
        graph = [(name, "run", needs) for name, _, needs in graph]
        first, last = data.draw(st.sampled_from(reachable(graph)))
        graph = [(n, s, [*needs, last] if n == first else needs) for n, s, needs in graph]
        log = []
        services = build(graph, log)
        faults = list(map(str, services.check_all()))
        assert faults
        assert all("circular: " in fault for fault in faults)
        assert len(set(faults)) == len(faults)
        for name in (first, last):
            with services.open({}) as scope, pytest.raises(UnknownService, match="circular"):
                scope.supply(want(name))
        assert log == []


def reachable(graph):
    """Pairs of a node and one that reaches it, so that an arrow from the one to the other closes a cycle."""
    needs = {name: direct for name, _, direct in graph}
    pairs = []
    for name in needs:
        todo, seen = [name], set()
        while todo:
            here = todo.pop()
            if here not in seen:
                seen.add(here)
                pairs.append((here, name))
                todo += needs[here]
    return [(first, last) for first, last in pairs if last not in needs[first]]
