"""What a callable declares to need, read from its signature."""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import InitVar, dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin, get_type_hints

from airflow_agentic.errors import ConfigurationError

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Named:
    """Marks a parameter that wants one thing of several: ``Annotated[SearchIndex, Named("fast-index")]``.

    Attributes:
        name: Name of the service or the agent.
    """

    name: str


@dataclass(frozen=True)
class Need:
    """One thing that a callable declares to need, by parameter.

    Attributes:
        parameter: Name of the parameter; empty if it is asked for without one.
        type: The annotation without ``Annotated`` and ``Optional``; ``Any`` if there is none.
        name: Name of what is wanted, from ``Named``.
        optional: Whether the parameter has a default, or is ``Optional``.
        or_none: Whether ``None`` is passed if nothing provides it: ``Optional``, without a default of its own.
    """

    parameter: str
    type: Any
    name: str | None = None
    optional: bool = False
    or_none: bool = False

    def __str__(self) -> str:
        shown = "" if self.type is Any else type_name(self.type)
        return ": ".join(part for part in (self.parameter, shown) if part) or self.name or "something"


def needs_of(target: Callable[..., Any], given: Collection[str] = (), skip: int = 0) -> tuple[Need, ...]:
    """Read what a callable needs from its signature.

    A class needs what its ``__init__`` takes, and what those of its bases take if it hands ``**kwargs`` up.

    Args:
        target: Class, function, generator function, ``functools.partial`` or callable object.
        given: Names of the parameters that the caller passes itself.
        skip: So many leading positional parameters are the caller's.

    Returns:
        The needs in the order of the parameters.

    Raises:
        ConfigurationError: A type cannot be found, or a required parameter can only be passed by position.
    """
    if isinstance(target, functools.partial):
        return needs_of(target.func, {*given, *target.keywords}, skip + len(target.args))
    known = set(given)
    found: list[Need] = []
    for depth, (function, parameters) in enumerate(_layers(target)):
        own = parameters if depth else _without_leading(parameters, skip, known)
        wanted = [p for p in own if p.name not in known and _can_be_passed(p, target, required=depth == 0)]
        hints = type_hints(function) if wanted else {}
        found += (_need(p, hints.get(p.name, Any)) for p in wanted)
        known.update(p.name for p in own)
    return tuple(found)


def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a callable with names resolved, those that exist only where it was defined too.

    Args:
        function: Function, ``functools.partial``, class (its ``__init__``) or callable object.

    Returns:
        Types by parameter, and ``return``; with ``Annotated`` as it is, and ``None`` as ``None``.

    Raises:
        ConfigurationError: A type cannot be found.
    """
    if isinstance(function, functools.partial):
        return type_hints(function.func)
    if isinstance(function, type):
        function = function.__init__  # type: ignore[misc]  # a class that somebody made
    elif not inspect.isroutine(function):
        function = type(function).__call__
    try:
        hints = get_type_hints(function, localns=_closure(function), include_extras=True)
    except (NameError, AttributeError) as error:
        raise ConfigurationError(
            f"a type in the signature of {_label(function)!r} cannot be found: {error}; "
            "define or import it at module level"
        ) from None
    except (TypeError, SyntaxError) as error:
        raise ConfigurationError(
            f"a type in the signature of {_label(function)!r} cannot be read: {error}"
        ) from None
    if hints.get("return") is NoneType:
        hints["return"] = None
    return hints


def returned_type(factory: Callable[..., Any]) -> Any:
    """Return the type of what a factory makes.

    Args:
        factory: A class, a function, a generator function, or one that returns a context manager.

    Returns:
        The class, or the return annotation: of what is yielded or entered if it is about that; ``Any`` if there is
        none.

    Raises:
        ConfigurationError: A type cannot be found.
    """
    if isinstance(factory, functools.partial):
        return returned_type(factory.func)
    if isinstance(factory, type):
        return factory
    made, _, _ = _plain(type_hints(factory).get("return", Any))
    if made is Self:
        owner = getattr(factory, "__self__", None)
        return owner if isinstance(owner, type) else type(owner)
    origin, arguments = get_origin(made), get_args(made)
    yields = origin in (Iterator, Generator, Iterable) and _is_generator(factory)
    enters = getattr(origin, "__module__", None) == contextlib.__name__
    return _plain(arguments[0])[0] if arguments and (yields or enters) else made


def type_name(type_: Any) -> str:
    """Return the name of a type for people."""
    if get_origin(type_) is None and hasattr(type_, "__name__"):
        return str(type_.__name__)
    return str(type_).replace("typing.", "")


def _layers(target: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], list[inspect.Parameter]]]:
    if not isinstance(target, type):
        yield target, _parameters(target)
        return
    for base in target.__mro__:
        init = vars(base).get("__init__")
        if init is None or base is object:
            continue
        parameters = _parameters(init)[1:]
        yield init, parameters
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            return


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # written in C, and does not tell
        return []


def _without_leading(
    parameters: list[inspect.Parameter], skip: int, known: set[str]
) -> list[inspect.Parameter]:
    leading = [p.name for p in parameters[:skip] if p.kind in _BY_POSITION]
    known.update(leading)
    return [p for p in parameters if p.name not in leading]


def _can_be_passed(parameter: inspect.Parameter, target: Callable[..., Any], *, required: bool) -> bool:
    if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
        return parameter.kind not in _COLLECTING
    if required and parameter.default is inspect.Parameter.empty:
        raise ConfigurationError(
            f"{_label(target)!r} takes {parameter.name!r} by position only, and what it needs is passed by name"
        )
    return False


def _need(parameter: inspect.Parameter, annotation: Any) -> Need:
    type_, name, nullable = _plain(annotation)
    has_default = parameter.default is not inspect.Parameter.empty
    return Need(parameter.name, type_, name, has_default or nullable, nullable and not has_default)


def _plain(annotation: Any) -> tuple[Any, str | None, bool]:
    """Return the type without what is around it, its name from ``Named``, and whether it may be None."""
    name, nullable = None, False
    while True:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if isinstance(annotation, InitVar):
            annotation = annotation.type
        elif origin is Annotated:
            names = [mark.name for mark in arguments[1:] if isinstance(mark, Named)]
            name = name or (names[-1] if names else None)
            annotation = arguments[0]
        elif origin in (Union, UnionType) and NoneType in arguments:
            nullable = True
            annotation = functools.reduce(operator.or_, [a for a in arguments if a is not NoneType])
        else:
            return annotation, name, nullable


def _is_generator(factory: Callable[..., Any]) -> bool:
    function = factory if inspect.isroutine(factory) else type(factory).__call__
    return inspect.isgeneratorfunction(inspect.unwrap(function))


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    """Names that only exist where the function was defined, as in a DAG function."""
    found: dict[str, Any] = {}
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    if inspect.isfunction(function):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # not set yet: a function that calls itself
                found[name] = cell.cell_contents
    return found


def _label(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))
