"""What commands print: tables and lines for people, JSON and YAML for programs.

Data and reasons come from outside. Whatever reaches a terminal goes through :func:`clean` first.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from airflow.cli.simple_table import AirflowConsole
from rich.cells import cell_len

_MACHINE = ("json", "yaml")

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # titles, links, strings
    r"|\x1b[ -/]*[0-~]"
)
_LINE_ENDS = re.compile(r"[\t\n\x0b\x0c\r\x1c-\x1f\x85\u2028\u2029]+")
_JOINERS = "\u200c\u200d"


def clean(value: object) -> str:
    """Return ``value`` as one line of text that cannot steer a terminal.

    Escape sequences, control characters and invisible marks (such as those that turn the direction of
    writing) are taken out; line ends become spaces.
    """
    return "".join(map(_visible, _LINE_ENDS.sub(" ", _ESCAPES.sub("", str(value)))))


def shorten(value: object, width: int) -> str:
    """Return ``value`` cleaned, and cut to ``width`` characters."""
    text = clean(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def shorten_middle(value: object, width: int) -> str:
    """Return ``value`` cleaned, and cut in the middle: errors say what at the start and where at the end."""
    text = clean(value)
    if len(text) <= width:
        return text
    head = (width - 5) // 2
    return f"{text[:head]} ... {text[len(text) - (width - 5 - head) :]}"


def compact(data: Any, width: int) -> str:
    """Return a JSON value on one line of at most ``width`` characters."""
    return shorten(json.dumps(data, ensure_ascii=False), width)


def pretty(data: Any, indent: str = "  ") -> list[str]:
    """Return a JSON value as indented lines."""
    return [indent + line for line in json.dumps(data, indent=2, ensure_ascii=False).split("\n")]


def iso(moment: datetime) -> str:
    """Return a time for people: UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def exact(moment: datetime) -> str:
    """Return a time for programs: ISO 8601 in UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """Return a length of time for people, in its two largest units: ``3 min 20 s``."""
    rest = int(max(0.0, seconds))
    parts = []
    for name, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        parts.append((count, name))
    first = next((i for i, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{c} {n}" for i, (c, n) in enumerate(parts[first : first + 2]) if c or i == 0)


def is_machine(output: str) -> bool:
    """Whether ``-o`` asks for something that a program reads."""
    return output in _MACHINE


def say(*lines: object) -> None:
    """Print lines for people, cleaned."""
    for line in lines:
        print(clean(line))


def note(text: object) -> None:
    """Print a remark that is not part of the answer: to stderr."""
    print(clean(text), file=sys.stderr)


def listing(output: str, data: Sequence[Mapping[str, Any]], rows: Iterable[Mapping[str, object]]) -> None:
    """Print a list as ``-o`` asks.

    Args:
        output: ``table``, ``plain``, ``json`` or ``yaml``.
        data: Entries in full, plain JSON values, for JSON and YAML. Numbers stay numbers.
        rows: The same entries as people see them; one column a key.
    """
    if is_machine(output):
        _print_data(output, list(data))
        return
    cells = [{key: clean(value) for key, value in row.items()} for row in rows]
    if output == "plain" and cells:
        _print_plain([list(cells[0]), *(list(row.values()) for row in cells)])
    else:
        # Markup off: "[/x]" in the data must neither colour nor break the table.
        AirflowConsole(markup=False, emoji=False, highlight=False).print_as_table(cells)


def single(output: str, data: Mapping[str, Any], lines: Callable[[], Iterable[object]]) -> None:
    """Print one thing as ``-o`` asks.

    Args:
        output: ``table``, ``plain``, ``json`` or ``yaml``.
        data: All of it, for JSON and YAML.
        lines: Makes the lines that people see.
    """
    if is_machine(output):
        _print_data(output, dict(data))
    else:
        say(*lines())


def fields(values: Mapping[str, object], indent: str = "") -> list[str]:
    """Return ``name  value`` lines with the values under each other."""
    width = max(map(len, values), default=0) + 2
    return [f"{indent}{name:<{width}}{value}" for name, value in values.items()]


def count(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 dead letter``, ``2 dead letters``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def _print_plain(lines: Sequence[Sequence[str]]) -> None:
    # As Airflow's plain table, but an id such as 1e5 or 007 is not taken for a number.
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def _print_data(output: str, data: Any) -> None:
    # ASCII: no control character or lone surrogate in the data can break or steer what reads it.
    text = json.dumps(data, indent=2)
    if output == "json":
        print(text)
    else:
        # Through JSON: enumerations become strings, and YAML has no references from one entry to another.
        print(yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True), end="")


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":
        return "\ufffd"
    return "" if category in ("Cc", "Cf") and character not in _JOINERS else character
