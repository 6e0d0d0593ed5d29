"""Says whether a step's code and arguments are what they were."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_LENGTH = 24


def code_of(function: Callable[..., Any]) -> str:
    """Return a fingerprint of what a function does: ``3.11:module.name:digest``.

    It is of the compiled code, so comments, documentation and blank lines do not count; what the function calls does not
    either.
    """
    if not _is_plain(function):
        function = inspect.unwrap(_without_arguments(function))
        function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        code = getattr(type(function).__call__, "__code__", None)
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{_PYTHON}:{name}:{'' if code is None else _digest_of(code, getattr(function, '__doc__', None))}"


def is_async(function: Callable[..., Any]) -> bool:
    """Whether what a function returns is to be awaited."""
    if _is_plain(function):
        return bool(function.__code__.co_flags & inspect.CO_COROUTINE)
    # Or an object whose calls are coroutines.
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def is_other_code(before: str, now: str) -> bool:
    """Whether two fingerprints are of different code; of different versions of Python nobody can say."""
    python, _, rest = before.partition(":")
    return python == _PYTHON and rest != now.partition(":")[2]


def arguments_of(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return a fingerprint of arguments, with those that a partial function has already.

    What is neither JSON, a dataclass, a set nor a pydantic model counts by its type alone: nobody can say whether it is the
    same in another process.
    """
    given: list[Any] = [list(args), dict(kwargs)]
    while isinstance(function, functools.partial):
        given += [list(function.args), dict(function.keywords)]
        function = function.func
    try:
        text = _text_of(given)
    except (TypeError, ValueError, RecursionError):
        # Keys of several kinds, or something that contains itself.
        text = _encode(_flat(given, 0)).encode()
    return hashlib.sha256(text).hexdigest()[:_LENGTH]


def _text_of(given: Sequence[Any]) -> bytes:
    """Return what ``_encode`` does; texts, which may be long, in half the time."""
    parts = []
    for each in given:
        if isinstance(each, list):
            parts.append(b"[%b]" % b",".join(map(_quoted, each)))
        else:
            pairs = [b"%b:%b" % (_quoted(name), _quoted(each[name])) for name in sorted(each)]
            parts.append(b"{%b}" % b",".join(pairs))
    return b"[%b]" % b",".join(parts)


def _quoted(value: Any) -> bytes:
    if type(value) is str and value.isascii() and "\x7f" not in value:
        return to_json(value)
    return _encode(value).encode()


def _is_plain(function: Callable[..., Any]) -> bool:
    """Whether it is a function that nobody wrapped or marked: nothing needs to be looked for in it."""
    return type(function) is types.FunctionType and not function.__dict__


def _without_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


@functools.lru_cache(maxsize=1024)
def _digest_of(code: types.CodeType, documentation: str | None) -> str:
    return hashlib.sha256(repr(_parts(code, documentation)).encode(errors="surrogatepass")).hexdigest()[
        :_LENGTH
    ]


def _parts(code: types.CodeType, documentation: str | None = None) -> tuple[Any, ...]:
    constants = code.co_consts
    if documentation is not None and constants and constants[0] == documentation:
        constants = constants[1:]
    return code.co_code, code.co_names, code.co_varnames, tuple(map(_constant, constants))


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _parts(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    # Their order is another one in each process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value


_DEEPEST = 50


def _flat(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        pairs = [[_encode(_flat(key, depth + 1)), _flat(each, depth + 1)] for key, each in value.items()]
        return sorted(pairs, key=lambda pair: str(pair[0]))
    if isinstance(value, list | tuple):
        return [_flat(each, depth + 1) for each in value]
    return value if value is None or isinstance(value, str | int | float) else _kind(value)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        with contextlib.suppress(Exception):  # one that has fields of any kind counts by its type
            return value.model_dump(mode="json", warnings=False)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, set | frozenset):
        return sorted(map(_encode, value))
    return _kind(value)


def _kind(value: Any) -> str:
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain).encode
