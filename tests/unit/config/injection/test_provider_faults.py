from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from wiring import (
    Bus,
    Cache,
    FastIndex,
    Search,
    SearchIndex,
    SqlBus,
    check,
    only_fault,
    wants_bus,
    wants_index,
    wants_search,
)

from airflow_agentic.config.injection.container import Named, Provider, Services, needs_of
from airflow_agentic.errors import ConfigurationError, UnknownService

if TYPE_CHECKING:
    from nowhere import Absent  # type: ignore[import-not-found]


def wants_cache(cache: Cache): ...


def around_cache(cache: Cache) -> Cache: ...


def told(services):
    return [(fault.name, str(fault)) for fault in services.check_all()]


def only_fault_of(services):
    (fault,) = map(str, services.check_all())
    return fault


class TestFaults:
    def test_what_is_missing_says_how_to_provide_it(self):
        assert only_fault(Services([]), wants_index) == (
            "agent 'team' needs index: SearchIndex, and nothing provides it (team -> index: SearchIndex). "
            'Provide it: services: {search-index: {type: "package.module:factory"}}'
        )

    def test_what_is_missing_further_down_shows_every_step(self):
        services = Services([Provider("search", Search, origin="agentic.yaml:12")])
        assert only_fault(services, wants_search) == (
            "service 'search' needs cache: Cache, and nothing provides it "
            "(team -> search: Search (service 'search', agentic.yaml:12) -> cache: Cache). "
            'Provide it: services: {cache: {type: "package.module:factory"}}'
        )

    @pytest.mark.parametrize("annotation", [int, str, dict, object, Any])
    def test_a_type_that_says_nothing_asks_for_a_value(self, annotation):
        def target(limit): ...

        if annotation is not Any:
            target.__annotations__["limit"] = annotation
        fault = only_fault(Services([Provider("limit", int)]), target)
        assert (
            "which has no type that could be provided; give it in config: or a default (team -> limit"
            in fault
        )

    def test_every_fault_is_told_once(self):
        def target(search: Search, again: Search, bus: Bus, size: int): ...

        services = Services([Provider("search", Search)])
        faults = check(services, target)
        assert [fault.split(",")[0] for fault in faults] == [
            "service 'search' needs cache: Cache",
            "agent 'team' needs bus: Bus",
            "agent 'team' needs size: int",
        ]
        with services.open({}) as scope, pytest.raises(UnknownService) as caught:
            scope.supply(needs_of(target), consumer="agent 'team'")
        assert str(caught.value) == "\n".join(faults)

    def test_several_providers_are_named_with_where_they_are_declared(self):
        services = Services([Provider("a", FastIndex, origin="agentic.yaml:3"), Provider("b", FastIndex)])
        assert only_fault(services, wants_index) == (
            "agent 'team' needs index: SearchIndex, and several provide it: service 'a' (agentic.yaml:3), "
            "service 'b' (team -> index: SearchIndex). "
            'Name one: `uses: {index: name}` or Annotated[SearchIndex, Named("...")]'
        )
        assert check(services, wants_index, {"index": "a"}) == []

    def test_several_given_values_are_named(self):
        class OtherBus(Bus): ...

        faults = check(Services([], given=[SqlBus, OtherBus]), wants_bus)
        assert "several provide it: the given SqlBus, the given OtherBus" in faults[0]

    def test_an_unknown_name_in_uses_asks_whether_another_was_meant(self):
        services = Services([Provider("fast-index", FastIndex)])
        assert only_fault(services, wants_index, {"index": "fast-indx"}) == (
            "agent 'team' needs index: SearchIndex, and there is no service 'fast-indx' "
            "(team -> index: SearchIndex); did you mean 'fast-index'?"
        )

    def test_an_unknown_name_in_uses_is_a_fault_of_an_optional_parameter_too(self):
        def target(index: SearchIndex | None = None): ...

        assert "there is no service 'x'" in only_fault(Services([]), target, {"index": "x"})

    def test_an_unknown_name_in_the_annotation_asks_whether_another_was_meant(self):
        def target(index: Annotated[SearchIndex, Named("fast_idx")]): ...

        services = Services([Provider("fast-index", FastIndex)])
        assert "there is no service 'fast_idx'" in only_fault(services, target)
        assert "did you mean 'fast-index'?" in only_fault(services, target)

    def test_an_unknown_parameter_in_uses_asks_whether_another_was_meant(self):
        services = Services([Provider("index", SearchIndex)])
        assert only_fault(services, wants_index, {"indx": "index"}) == (
            "agent 'team': 'indx' is said in `uses`, and is no parameter (team); did you mean 'index'?"
        )

    def test_a_parameter_in_uses_and_in_the_configuration_is_a_fault(self):
        uses, names = {"cache": "cache"}, frozenset({"cache"})
        search = Provider("search", Search, uses=uses, argument_names=names)
        assert told(Services([search, Provider("cache", Cache)])) == [
            ("search", "service 'search': 'cache' is said in `uses` and in config: (search); say it in one")
        ]

    def test_the_wrong_type_by_name_is_a_fault(self):
        services = Services([Provider("cache", Cache, origin="agentic.yaml:12")])
        assert only_fault(services, wants_index, {"index": "cache"}) == (
            "agent 'team' needs index: SearchIndex, and service 'cache' (agentic.yaml:12) is a Cache, "
            "not a SearchIndex (team -> index: SearchIndex)"
        )

    def test_a_base_by_name_is_the_wrong_type_for_a_subclass(self):
        def target(index: FastIndex): ...

        assert "is a SearchIndex, not a FastIndex" in only_fault(
            Services([Provider("index", SearchIndex)]), target, {"index": "index"}
        )

    def test_a_process_thing_cannot_need_what_is_of_one_run(self):
        run, process = Provider("cache", Cache, origin="a:3"), Provider("cache", Cache, scope="process")
        search = Provider("search", Search, scope="process")
        assert told(Services([search, run])) == [
            (
                "search",
                (
                    "service 'search' needs cache: Cache, and lives longer than service 'cache' (a:3), "
                    "which is of one run (search -> cache: Cache). Set scope: run for service 'search'"
                ),
            )
        ]
        assert Services([search, process]).check_all() == []
        assert Services([search, run]).with_overrides({"cache": 1}).check_all() == []

    def test_a_process_thing_cannot_need_a_given_value_of_the_run(self):
        search = Provider("search", Search, scope="process")
        assert "lives longer than the given Cache" in only_fault_of(Services([search], given=[Cache]))
        assert Services([search], process_given=[Cache]).check_all() == []

    def test_two_services_of_one_name_are_refused(self):
        with pytest.raises(ConfigurationError, match=r"one name: service 'a' \(x:1\) and service 'a'"):
            Services([Provider("a", Cache, origin="x:1"), Provider("a", Search)])

    def test_a_type_that_cannot_be_found_is_a_fault_of_its_provider(self):
        def needs(index: Absent) -> Cache: ...

        def returns() -> Absent: ...

        for factory in (needs, returns):
            ((name, fault),) = told(Services([Provider("cache", factory)]))
            assert name == "cache"
            assert fault.startswith("service 'cache' cannot be built: a type in the signature of ")

    def test_async_factories_are_refused(self):
        async def coroutine() -> Cache: ...

        async def generator() -> Iterator[Cache]:
            yield

        for factory in (coroutine, generator):
            services = Services([Provider("cache", factory, provides=Cache)])
            assert "its factory is async" in only_fault_of(services)

    def test_all_providers_are_checked_with_chains_that_begin_at_themselves(self):
        services = Services([Provider("search", Search), Provider("cache", wants_bus, provides=Cache)])
        assert told(services) == [
            (
                "cache",
                (
                    "service 'cache' needs bus: Bus, and nothing provides it (cache -> bus: Bus). "
                    'Provide it: services: {bus: {type: "package.module:factory"}}'
                ),
            )
        ]


class TestCycles:
    def cycle(self):
        return [
            Provider("search", wants_cache, provides=Search),
            Provider("cache", wants_search, provides=Cache),
        ]

    def test_a_cycle_is_told_with_every_step(self):
        assert only_fault(Services(self.cycle()), wants_search) == (
            "service 'cache' needs search: Search, which is circular: search -> cache -> search"
        )

    def test_a_cycle_is_told_once(self):
        ((name, fault),) = told(Services(self.cycle()))
        assert name == "cache"
        assert fault.endswith("circular: search -> cache -> search")

    def test_what_needs_its_own_type_is_circular_unless_it_uses_another(self):
        around = Provider("around", around_cache)
        assert only_fault_of(Services([around])).endswith("circular: around -> around")
        plain = Provider("plain", Cache)
        assert "several provide it" in only_fault_of(Services([around, plain]))
        used = Provider("around", around_cache, uses={"cache": "plain"})
        assert Services([used, plain]).check_all() == []

    def test_a_cycle_behind_a_consumer_does_not_name_the_way_to_it(self):
        cycle = self.cycle()
        services = Services([Provider("first", wants_search, provides=Bus), *cycle])
        assert only_fault(services, wants_bus).endswith("circular: search -> cache -> search")
