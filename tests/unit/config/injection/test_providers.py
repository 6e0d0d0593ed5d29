from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Annotated, Any, NewType, Protocol

from wiring import (
    Bus,
    Cache,
    FastIndex,
    Search,
    SearchIndex,
    SqlBus,
    one,
    only_fault,
    supply,
    wants_bus,
    wants_index,
    wants_search,
)

from airflow_agentic.config.injection.container import Named, Provider, Services


class Speaks(Protocol):
    def speak(self) -> str: ...


class Dog(Speaks):
    def speak(self) -> str:
        return "woof"


class Cat:
    def speak(self) -> str:
        return "meow"


Url = NewType("Url", str)


class TestResolution:
    def test_a_class_provides_itself(self):
        search = one(Services([Provider("search", Search), Provider("cache", Cache)]), wants_search)
        assert type(search) is Search
        assert type(search.cache) is Cache

    def test_a_function_provides_what_it_is_annotated_to_return(self):
        def make() -> SearchIndex:
            return FastIndex()

        assert type(one(Services([Provider("index", make)]), wants_index)) is FastIndex

    def test_what_is_said_to_be_provided_beats_the_annotation(self):
        services = Services([Provider("a", SearchIndex, provides=FastIndex), Provider("b", SearchIndex)])
        with services.open({}) as scope:
            assert scope.get(FastIndex) is scope.get(Any, "a")
            assert scope.get(SearchIndex) is scope.get(Any, "b")

    def test_a_subclass_is_provided_for_its_base_but_an_exact_match_beats_it(self):
        fast, exact = Provider("fast", FastIndex), Provider("exact", SearchIndex)
        assert type(one(Services([fast]), wants_index)) is FastIndex
        assert type(one(Services([fast, exact]), wants_index)) is SearchIndex

    def test_a_given_value_beats_providers(self):
        bus = Bus()
        services = Services([Provider("bus", Bus)], given=[Bus])
        assert one(services, wants_bus, values={Bus: bus}) is bus

    def test_a_value_given_as_a_subclass_is_found_by_its_base(self):
        bus = SqlBus()
        assert one(Services([], given=[SqlBus]), wants_bus, values={SqlBus: bus}) is bus

    def test_a_name_in_the_annotation_beats_given_values_and_types(self):
        def target(index: Annotated[SearchIndex, Named("fast")]): ...

        services = Services(
            [Provider("fast", FastIndex), Provider("other", SearchIndex)], given=[SearchIndex]
        )
        assert type(one(services, target, values={SearchIndex: SearchIndex()})) is FastIndex

    def test_uses_beats_the_name_in_the_annotation(self):
        def target(index: Annotated[SearchIndex, Named("fast")]): ...

        services = Services([Provider("fast", FastIndex), Provider("other", SearchIndex)])
        assert type(one(services, target, uses={"index": "other"})) is SearchIndex

    def test_an_override_beats_everything(self):
        fake, kwargs = SearchIndex(), {"values": {SearchIndex: SearchIndex()}, "uses": {"index": "fast"}}
        services = Services([Provider("fast", FastIndex)], given=[SearchIndex])
        assert one(services.with_overrides({SearchIndex: fake}), wants_index, **kwargs) is fake
        assert one(services.with_overrides({FastIndex: fake}), wants_index, **kwargs) is fake
        assert one(services.with_overrides({"fast": fake}), wants_index, **kwargs) is fake
        assert type(one(services, wants_index, **kwargs)) is FastIndex

    def test_an_override_reaches_what_providers_need_and_what_is_found_by_type(self):
        fake = Cache()
        services = Services([Provider("search", Search), Provider("cache", Cache)])
        for key in (Cache, "cache"):
            assert one(services.with_overrides({key: fake}), wants_search).cache is fake

    def test_an_override_by_name_is_of_that_name_and_later_ones_win(self):
        def target(index: Annotated[SearchIndex, Named("fast")], other: SearchIndex): ...

        fast, other = SearchIndex(), SearchIndex()
        services = Services([Provider("fast", FastIndex)]).with_overrides({"fast": 1, SearchIndex: other})
        assert supply(services.with_overrides({"fast": fast}), target) == {"index": fast, "other": other}

    def test_an_override_stands_in_for_what_nothing_provides_or_the_scope_does_not_bring(self):
        def target(index: Annotated[SearchIndex, Named("fast")]): ...

        assert one(Services([]).with_overrides({"fast": 1}), target) == 1
        assert one(Services([]).with_overrides({FastIndex: 1}), wants_index) == 1
        assert one(Services([], given=[Bus]).with_overrides({Bus: 1}), wants_bus) == 1
        assert one(Services([], given=[SqlBus]).with_overrides({SqlBus: 1}), wants_bus) == 1

    def test_an_overridden_provider_is_neither_checked_nor_built(self):
        services = Services([Provider("search", Search)])
        assert services.check_all()
        assert services.with_overrides({"search": 1}).check_all() == []
        assert services.with_overrides({Search: 1}).check_all() == []

    def test_what_is_optional_and_not_there_is_left_to_its_default_or_none(self):
        def target(a: Cache | None, b: Cache | None = None, c: int = 3, *, d: Url = "x", e=None): ...

        assert supply(Services([]), target) == {"a": None}

    def test_what_is_optional_and_there_is_supplied(self):
        def target(a: Cache | None, b: Cache | None = None): ...

        supplied = supply(Services([Provider("cache", Cache)]), target)
        assert set(supplied) == {"a", "b"}
        assert type(supplied["a"]) is Cache

    def test_an_optional_name_that_is_not_there_falls_back_to_the_type(self):
        def target(cache: Annotated[Cache | None, Named("quick")] = None): ...

        assert supply(Services([]), target) == {}
        assert type(one(Services([Provider("slow", Cache)]), target)) is Cache

    def test_builtins_and_any_are_never_resolved_by_type(self):
        def target(a: str = "", b: dict = {}, c: Any = 1, d=2, e: object = None): ...  # noqa: B006

        services = Services([Provider("text", str), Provider("map", dict)], given=[str])
        assert supply(services, target, values={str: "x"}) == {}
        assert supply(services.with_overrides({str: "x"}), target) == {}

    def test_builtins_can_be_named(self):
        def target(key: Annotated[str, Named("key")]): ...

        def key() -> str:
            return "secret"

        assert one(Services([Provider("key", key)]), target) == "secret"

    def test_types_that_are_no_classes_are_matched_by_equality(self):
        def target(url: Url, indexes: list[SearchIndex]): ...

        def url() -> Url:
            return Url("x")

        def indexes() -> list[SearchIndex]:
            return []

        services = Services([Provider("url", url), Provider("indexes", indexes)])
        assert supply(services, target) == {"url": "x", "indexes": []}

    def test_a_protocol_is_provided_by_who_says_so_or_is_named(self):
        def target(pet: Speaks): ...

        cat, dog = Provider("cat", Cat), Provider("dog", Dog)
        assert type(one(Services([cat, dog]), target)) is Dog
        assert type(one(Services([cat]), target, uses={"pet": "cat"})) is Cat
        assert type(one(Services([Provider("cat", Cat, provides=Speaks), dog]), target)) is Cat
        assert "nothing provides it" in only_fault(Services([cat]), target)

    def test_what_only_has_the_shape_of_an_abstract_class_is_no_subclass(self):
        def target(callback: Callable | None = None, key: Hashable | None = None): ...

        assert supply(Services([Provider("cache", Cache)]), target) == {}

    def test_an_annotation_without_a_hash_is_no_problem(self):
        def target(sizes: list[Annotated[int, {"gt": 0}]] = []): ...  # noqa: B006

        assert supply(Services([Provider("cache", Cache)]).with_overrides({Bus: 1}), target) == {}

    def test_providers_use_others_by_name(self):
        slow, quick = Provider("slow", Cache), Provider("quick", Cache)
        services = Services([Provider("search", Search, uses={"cache": "quick"}), slow, quick])
        with services.open({}) as scope:
            assert scope.get(Search).cache is scope.get(Cache, "quick")

    def test_configured_arguments_are_made_when_it_is_built_and_beat_what_is_provided(self):
        asked, mine = [], Cache()

        def arguments():
            asked.append(1)
            return {"cache": mine}

        provider = Provider("search", Search, arguments=arguments, argument_names=frozenset({"cache"}))
        services = Services([provider, Provider("cache", Cache)])
        assert services.check_all() == []
        assert asked == []
        assert one(services, wants_search).cache is mine
        assert asked == [1]
