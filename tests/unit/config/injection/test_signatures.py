from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import InitVar
from typing import TYPE_CHECKING, Annotated, Any, NewType, Self, Union

import pytest
from pydantic import BaseModel

from airflow_agentic.config.injection.signatures import (
    Named,
    Need,
    needs_of,
    returned_type,
    type_hints,
    type_name,
)
from airflow_agentic.errors import ConfigurationError

if TYPE_CHECKING:
    from nowhere import Absent  # type: ignore[import-not-found]


class Index: ...


class Cache: ...


Url = NewType("Url", str)


class Base:
    def __init__(self, index: Index, size: int = 3) -> None: ...


class Inherits(Base): ...


class HandsUp(Base):
    def __init__(self, cache: Cache, size: str, **kwargs: Any) -> None: ...


class HandsUpTwice(HandsUp):
    def __init__(self, *args: Any, url: Url, **kwargs: Any) -> None: ...


class Stops(Base):
    def __init__(self, cache: Cache) -> None: ...


class Factory:
    def __call__(self, index: Index) -> Cache: ...

    @classmethod
    def make(cls, index: Index) -> Self: ...


@dataclasses.dataclass
class Data:
    index: Index
    cache: InitVar[Cache]
    size: int = 3


class Model(BaseModel):
    size: int = 3


def plain(index: Index, untyped, size: int = 3, *rest: str, cache: Cache | None, **more: int) -> Index: ...


def names(target, **kwargs):
    return [need.parameter for need in needs_of(target, **kwargs)]


class TestNeeds:
    def test_a_function_needs_its_parameters(self):
        assert needs_of(plain) == (
            Need("index", Index),
            Need("untyped", Any),
            Need("size", int, optional=True),
            Need("cache", Cache, optional=True, or_none=True),
        )

    def test_what_the_caller_gives_is_not_needed(self):
        assert names(plain, given={"untyped", "cache"}) == ["index", "size"]

    def test_leading_positional_parameters_can_be_the_callers(self):
        assert names(plain, skip=2) == ["size", "cache"]
        assert names(plain, skip=20) == ["cache"]

    @pytest.mark.parametrize(
        ("annotation", "expected"),
        [
            (Annotated[Index, Named("fast")], Need("x", Index, "fast")),
            (Annotated[Index, "a note"], Need("x", Index)),
            (Annotated[Index | None, Named("fast")], Need("x", Index, "fast", optional=True, or_none=True)),
            (
                Union[Annotated[Index, Named("fast")], None],  # noqa: UP007  # as older code spells it
                Need("x", Index, "fast", optional=True, or_none=True),
            ),
            (Annotated[Annotated[Index, Named("inner")], Named("outer")], Need("x", Index, "outer")),
            (Index | Cache | None, Need("x", Index | Cache, optional=True, or_none=True)),
            (list[Index], Need("x", list[Index])),
            (Url, Need("x", Url)),
        ],
        ids=str,
    )
    def test_names_and_none_are_read_from_the_annotation(self, annotation, expected):
        def function(x): ...

        function.__annotations__["x"] = annotation
        assert needs_of(function) == (expected,)

    def test_with_a_default_none_is_left_to_the_default(self):
        def function(x: Index | None = None): ...

        assert needs_of(function) == (Need("x", Index, optional=True),)

    def test_a_class_needs_what_its_init_takes_own_or_inherited(self):
        assert names(Base) == names(Inherits) == ["index", "size"]
        assert names(Base, skip=1) == ["size"]

    def test_a_class_without_init_needs_nothing(self):
        assert needs_of(Index) == needs_of(dict) == needs_of(Model) == ()

    def test_parameters_of_bases_are_needed_if_keywords_are_handed_up(self):
        assert names(HandsUp) == ["cache", "size", "index"]
        assert names(HandsUpTwice) == ["url", "cache", "size", "index"]
        assert names(Stops) == ["cache"]

    def test_of_parameters_of_one_name_the_most_derived_counts(self):
        assert Need("size", str) in needs_of(HandsUp)

    def test_what_is_skipped_or_given_is_not_needed_from_a_base_either(self):
        assert names(HandsUp, skip=2) == ["index"]
        assert names(HandsUp, given=["index"]) == ["cache", "size"]

    def test_a_data_class_needs_its_fields(self):
        assert needs_of(Data) == (
            Need("index", Index),
            Need("cache", Cache),
            Need("size", int, optional=True),
        )

    def test_a_partial_needs_what_is_left(self):
        assert names(functools.partial(plain, 1, size=4)) == ["untyped", "cache"]
        assert names(functools.partial(functools.partial(plain, 1), 2), skip=1) == ["cache"]
        assert names(functools.partial(HandsUp, index=1)) == ["cache", "size"]

    def test_methods_and_callable_objects_need_no_self(self):
        assert names(Factory()) == names(Factory.make) == ["index"]

    def test_generator_functions_and_decorated_ones_are_functions(self):
        def generator(index: Index) -> Iterator[Cache]:
            yield Cache()

        assert names(generator) == names(contextlib.contextmanager(generator)) == ["index"]
        assert names(functools.lru_cache(generator)) == ["index"]

    def test_a_builtin_that_does_not_tell_its_signature_needs_nothing(self):
        assert needs_of(min) == ()

    def test_a_required_parameter_that_goes_by_position_only_is_refused(self):
        def function(x: Index, /): ...

        assert needs_of(function, skip=1) == ()
        with pytest.raises(ConfigurationError, match="takes 'x' by position only"):
            needs_of(function)

    def test_a_type_that_cannot_be_found_is_told(self):
        def function(index: Absent): ...

        with pytest.raises(ConfigurationError) as caught:
            needs_of(function)
        assert str(caught.value) == (
            "a type in the signature of 'TestNeeds.test_a_type_that_cannot_be_found_is_told.<locals>.function' "
            "cannot be found: name 'Absent' is not defined; define or import it at module level"
        )
        assert needs_of(function, skip=1) == ()

    def test_an_attribute_that_is_not_there_is_a_type_that_cannot_be_found(self):
        def function(index: contextlib.Absent): ...

        with pytest.raises(ConfigurationError, match="cannot be found: module 'contextlib' has no attribute"):
            needs_of(function)

    def test_a_type_that_is_no_expression_is_told(self):
        def function(index): ...

        for wrong in ("not a type", "3 | 4 | Index"):
            function.__annotations__["index"] = wrong
            with pytest.raises(ConfigurationError, match="cannot be read"):
                needs_of(function)


class TestHints:
    def test_local_types_that_the_function_uses_are_found(self):
        class Local: ...

        def function(x: Local) -> Local:
            return Local()

        assert type_hints(function) == {"x": Local, "return": Local}
        assert type_hints(functools.partial(function)) == type_hints(function)
        assert type_hints(contextlib.contextmanager(function))["x"] is Local

    def test_annotated_stays_and_none_is_none(self):
        def function(x: Annotated[int, Named("a")]) -> None: ...

        assert type_hints(function) == {"x": Annotated[int, Named("a")], "return": None}

    def test_of_a_class_they_are_those_of_its_init(self):
        assert type_hints(Base) == {"index": Index, "size": int, "return": None}

    def test_of_an_object_they_are_those_of_its_call(self):
        assert type_hints(Factory()) == {"index": Index, "return": Cache}


def iterates() -> Iterator[Index]:
    return iter([Index()])


def yields() -> Iterator[Index]:
    yield Index()


def generates() -> Generator[Annotated[Index, "a note"], None, None]:
    yield Index()


def manages() -> AbstractContextManager[Index]:
    return contextlib.nullcontext(Index())


def says_nothing(): ...


def may_return_none() -> Index | None: ...


class GeneratorFactory:
    def __call__(self) -> Iterator[Index]:
        yield Index()


class TestReturnedType:
    @pytest.mark.parametrize(
        "factory",
        [
            Index,
            functools.partial(Index),
            yields,
            functools.partial(yields),
            generates,
            manages,
            contextlib.contextmanager(yields),
            may_return_none,
            GeneratorFactory(),
        ],
    )
    def test_it_is_that_of_what_is_made_yielded_or_entered(self, factory):
        assert returned_type(factory) is Index

    def test_an_iterator_that_is_not_a_generators_is_what_is_made(self):
        assert returned_type(iterates) == Iterator[Index]

    def test_without_annotation_it_is_any(self):
        assert returned_type(says_nothing) is Any

    def test_a_class_method_that_returns_self_makes_the_class(self):
        assert returned_type(Factory.make) is Factory


def test_types_are_named_for_people():
    assert [type_name(t) for t in (Index, Url, list[int], int | None, Any)] == [
        "Index",
        "Url",
        "list[int]",
        "int | None",
        "Any",
    ]


def test_needs_are_named_for_people():
    assert str(Need("index", Index)) == "index: Index"
    assert str(Need("index", Any)) == "index"
    assert str(Need("", Index)) == "Index"
    assert str(Need("", Any, "fast")) == "fast"
