"""TOML as a tree with lines: ``tomllib`` reads, and the lines of its keys are found again in the text."""

from __future__ import annotations

import datetime as dt
import math
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from airflow_agentic.config.files.report import MAX_DEPTH, Report, Unreadable, last_line
from airflow_agentic.config.tree import Node, Path, dotted

_TOKEN = re.compile(
    r'"""(?:\\[\s\S]|[^\\])*?"""(?!")'
    r"|'''[\s\S]*?'''(?!')"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]"
)
_KEY = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|[^="'])+""")
_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_TWICE = re.compile("Cannot (?:declare|overwrite|mutate|redefine)")
_TWICE_INLINE = re.compile("Duplicate inline table key '(.*)'")
_ESCAPE = r"write \\ for a backslash, or use single quotes"
_SYNTAX = (
    ("Unclosed array", "the list is not closed", "write a ]"),
    ("Unclosed inline table", "the map is not closed, or lacks a comma", "write a }, in the same line"),
    (
        r"Unterminated string|(?:Illegal|invalid) character '\\n'|Expected \"",
        "the quotes are not closed",
        None,
    ),
    ("Illegal character|invalid character", "a character that cannot be in TOML", None),
    ("Expected '=' after", "there is no = after the key", "write key = value"),
    ("Expected '\\]", "the header of this section is not closed", "write a ] or ]]"),
    ("Expected newline", "something follows after the value", "one setting a line, and text in quotes"),
    ("initial character for a key", "a key is missing, or needs quotes", None),
    ("Invalid statement", "this line is no setting, section or comment", "write key = value"),
    ("Invalid value", "a value is missing or is none of TOML", "put text in quotes"),
    ("Invalid date", "there is no such date or time", "put it in quotes if it is text"),
    ("Unescaped|hex value|Escaped character", "an escape that TOML does not know", _ESCAPE),
    ("", "this is not valid TOML", None),
)


def read_toml(text: str, report: Report) -> Node:
    """Read TOML into a tree. Dates and times become their ISO text.

    Args:
        text: The TOML.
        report: Takes the faults.

    Returns:
        The tree; its root is a map.

    Raises:
        Unreadable: There is no tree.
    """
    text = text.replace("\r\n", "\n")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(str(error), text, report) from None
    except RecursionError:
        message = f"the values are nested more than {MAX_DEPTH} levels deep"
        raise report.unreadable(_failing(text, 1), message) from None
    except ValueError:
        raise report.unreadable(_failing(text, 1), "this number is not a JSON value") from None
    lines = _Lines()
    for line, statement in _statements(text):
        lines.add(line, statement)
    return _node(data, (), 1, lines, report)


class _Lines:
    """The line of each key of the statements so far.

    Attributes:
        known: Line by path; what is in a value is not there, it has the line of its statement.
    """

    def __init__(self) -> None:
        self.known: dict[Path, int] = {}
        self._table: Path = ()
        self._items: dict[Path, int] = {}

    def add(self, line: int, statement: str) -> None:
        """Take the next statement."""
        base = () if statement.startswith("[") else self._table
        path = self.path(statement)
        for end in range(len(base) + 1, len(path)):
            self.known.setdefault(path[:end], line)
        if statement.startswith("[["):
            self.known.setdefault(path, line)
            self._items[path] = self._items.get(path, 0) + 1
            path = (*path, self._items[path] - 1)
        if statement.startswith("["):
            self._table = path
        # A header has its own line also where the header of a part of it came before.
        self.known[path] = line

    def path(self, statement: str) -> Path:
        """Return what a statement is about; in an array of tables that is its last item."""
        if statement.startswith("["):
            path: Path = ()
            left: Any = tomllib.loads(statement)
        else:
            path = self._table
            found = _KEY.match(statement)
            left = tomllib.loads(f"{found.group() if found else ''}= 0")
        while isinstance(left, dict) and left:
            if path in self._items:
                path = (*path, self._items[path] - 1)
            ((key, left),) = left.items()
            path = (*path, key)
        return path


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield every header and every key with its value, with the line it begins in."""
    start, line, depth = 0, 1, 0
    for token in _TOKEN.finditer(text + "\n"):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
        if token.group() == "\n" and (depth <= 0 or token.end() > len(text)):
            statement = text[start : token.start()]
            if statement.strip() and not statement.lstrip().startswith("#"):
                yield line, statement.strip()
            start, line, depth = token.end(), line + statement.count("\n") + 1, 0


def _node(value: Any, path: Path, line: int, lines: _Lines, report: Report) -> Node:
    line = lines.known.get(path, line)
    if len(path) > MAX_DEPTH:
        raise report.unreadable(line, f"the values are nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        value = {key: _node(item, (*path, key), line, lines, report) for key, item in value.items()}
    elif isinstance(value, list):
        value = tuple(_node(item, (*path, index), line, lines, report) for index, item in enumerate(value))
    elif isinstance(value, dt.date | dt.time):
        value = value.isoformat()
    elif isinstance(value, float) and not math.isfinite(value):
        report.fault(line, "this number is not a JSON value", path=path)
        value = None
    return Node(value, report.origin(line))


def _syntax(said: str, text: str, report: Report) -> Unreadable:
    position = _POSITION.search(said)
    number = position.group(1) if position else None
    line = int(number) if number else last_line(text)
    said = _POSITION.sub("", said)
    inline = _TWICE_INLINE.search(said)
    if inline or _TWICE.search(said):
        return _twice(text, line, inline.group(1) if inline else None, report)
    message, suggestion = next((told, help_) for pattern, told, help_ in _SYNTAX if re.search(pattern, said))
    begun = _failing(text, line) if number is None else line
    if begun < line:
        message = f"{message}, in the statement that begins in line {begun}"
    return report.unreadable(line, message, suggestion)


def _failing(text: str, otherwise: int) -> int:
    """Return the line of the first statement that cannot be read by itself."""
    for line, statement in _statements(text):
        try:
            tomllib.loads(statement)
        except (ValueError, RecursionError):
            return line
    return otherwise


def _twice(text: str, end: int, inline: str | None, report: Report) -> Unreadable:
    """Return the fault of the statement that ends in line ``end``: its key, or a part of it, is there already."""
    *earlier, (line, statement) = _statements("\n".join(text.split("\n")[:end]))
    lines = _Lines()
    for each in earlier:
        lines.add(*each)
    try:
        path = lines.path(statement)
    except tomllib.TOMLDecodeError:
        return report.unreadable(line, "the header of this section is not closed", "write a ] or ]]")
    if inline is not None:
        path = (*path, inline)
        return report.unreadable(line, f"'{inline}' is written twice, first in line {line}", path=path)
    first = lines.known.get(path)
    if first is not None:
        return report.unreadable(line, f"'{path[-1]}' is written twice, first in line {first}", path=path)
    known = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in lines.known), path)
    message = (
        f"'{dotted(known)}' is complete in line {lines.known.get(known, line)}: nothing can be added to it"
    )
    return report.unreadable(line, message, path=path)
