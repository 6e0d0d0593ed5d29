from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from airflow_agentic.persistence.fingerprints import arguments_of, code_of, is_other_code


@dataclass
class Point:
    x: int
    y: Any = None


class Model(BaseModel):
    name: str


class AnyModel(BaseModel, arbitrary_types_allowed=True):
    thing: Any


def _compiled(source: str) -> Any:
    place: dict[str, Any] = {}
    exec(source, place)  # the same function, written in several ways
    return place["f"]


def test_comments_and_documentation_do_not_count() -> None:
    first = _compiled('def f(a):\n    """Says one thing."""\n    return a + 1')
    second = _compiled('# new\n\ndef f(a):\n    """Says another."""\n\n    # because\n    return a + 1')
    assert not is_other_code(code_of(first), code_of(second))


@pytest.mark.parametrize(
    "source", ["def f(a): return a + 2", "def f(a): return a - 1", "def f(a): return g(a)"]
)
def test_other_code_is_told(source: str) -> None:
    assert is_other_code(code_of(_compiled("def f(a): return a + 1")), code_of(_compiled(source)))


def test_of_another_version_of_python_nobody_can_say() -> None:
    now = code_of(_compiled("def f(): return 1"))
    assert not is_other_code("3.9:" + now.partition(":")[2] + "x", now)


def test_partial_and_wrapped_functions_are_what_they_call() -> None:
    def f(a: int, b: int = 0) -> int:
        return a + b

    @functools.wraps(f)
    def wrapped(*args: int) -> int:
        return f(*args)

    assert code_of(functools.partial(f, 1)) == code_of(f) == code_of(wrapped)
    assert arguments_of(functools.partial(f, 1), [], {}) != arguments_of(functools.partial(f, 2), [], {})


@pytest.mark.parametrize("function", [len, print, Point, Model, functools.partial(int, base=2), [].append])
def test_whatever_can_be_called_has_a_fingerprint(function: Any) -> None:
    assert code_of(function)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (1, 2),
        ("1", 1),
        ([1, 2], [2, 1]),
        (Point(1), Point(2)),
        (Model(name="a"), Model(name="b")),
        ({1}, {2}),
    ],
)
def test_other_arguments_are_told(before: Any, now: Any) -> None:
    assert arguments_of(len, [before], {}) != arguments_of(len, [now], {})
    assert arguments_of(len, [], {"a": before}) != arguments_of(len, [], {"a": now})


@pytest.mark.parametrize(
    "make",
    [
        object,
        lambda: Point(1, object()),
        lambda: {object(), object()},
        lambda: {1: "a", "b": object()},
        lambda: {(1, 2): object()},
        lambda: AnyModel(thing=object()),
        lambda: {"a": float("nan")},
    ],
)
def test_what_is_the_same_in_another_process_has_the_same_fingerprint(make: Any) -> None:
    assert arguments_of(len, [make()], {}) == arguments_of(len, [make()], {})


def test_arguments_that_contain_themselves_have_a_fingerprint() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert arguments_of(len, endless, {}) == arguments_of(len, endless, {})


def test_sets_in_code_and_arguments_count_the_same_in_every_process() -> None:
    program = (
        "from airflow_agentic.persistence.fingerprints import *\n"
        "def f(a): return a in {'x', 'y', 'z'} or a in ('p', frozenset({'q'}))\n"
        "print(code_of(f), arguments_of(f, [{'x', 'y', 'z'}], {}))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
