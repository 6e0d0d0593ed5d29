"""YAML as a tree with lines: PyYAML composes, the scalars are those of the core schema of YAML 1.2."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from airflow_agentic.config.files.report import MAX_DEPTH, MAX_NODES, Report, Unreadable, last_line
from airflow_agentic.config.tree import Node, Path

_TAG = "tag:yaml.org,2002:"
_CORE = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
    "merge": re.compile(r"<<"),
}
_FITTING: dict[type[yaml.Node], set[str]] = {
    yaml.ScalarNode: {"str", *_CORE},
    yaml.SequenceNode: {"seq"},
    yaml.MappingNode: {"map"},
}
_NAME = re.compile(r"[*&]([^\s,\[\]{}]+)")
_QUOTE = "put it in quotes if it is text"

FASTEST: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader of libyaml, where PyYAML has it."""


class _Words(NamedTuple):
    """How a syntax error is told; PyYAML's own words may quote a value."""

    pattern: str
    message: str
    suggestion: str | None = None
    where_it_began: bool = False


_SYNTAX = (
    _Words("too deep", f"the values are nested more than {MAX_DEPTH} levels deep"),
    _Words("tab character|start any token\t", "a tab in the indentation", "use spaces"),
    _Words("start any token", "a value begins with a character that none can begin with", _QUOTE),
    _Words("quoted scalar.*(stream|document)", "the quotes opened in line {began} are not closed"),
    _Words("quoted scalar", "an escape that YAML does not know", r"write \\, or use single quotes"),
    _Words(
        "mapping values", "a colon where no key can be", "check the indentation; quote text with ': ' in it"
    ),
    _Words("expected ':'", "this line is no 'key: value'", "write a colon and a space after the key", True),
    _Words("expected ',' or '\\]'", "the list opened with [ in line {began} lacks a comma or its ]"),
    _Words("expected ',' or '}'", "the map opened with {{ in line {began} lacks a comma or its }}"),
    _Words("sequence entries", "a list item where none can be", "begin the list in a line of its own"),
    _Words("undefined alias", "an alias (*) that stands for nothing: its anchor (&) is not above", _QUOTE),
    _Words("duplicate anchor", "the anchor '&{name}' is written twice, first in line {began}"),
    _Words("an (alias|anchor)", "an alias (*) or anchor (&) without a name", _QUOTE),
    _Words("another document", "a second document begins here", "one file is one document: take out '---'"),
    _Words("tag", "a tag (!) that cannot be read", _QUOTE),
    _Words("block scalar", "something follows the | or > of a text block", "begin the text in the next line"),
    _Words("directive|incompatible YAML", "a line that begins with % and is not understood", "take it out"),
    _Words("node content", "no value can begin here as this one does, or it is missing", _QUOTE),
    _Words("document start", "something follows after the end of the document"),
    _Words(
        "block (mapping|coll)", "this does not fit the lines above", "check the indentation and the quotes"
    ),
    _Words("", "this is not valid YAML"),
)


def read_yaml(text: str, report: Report, base: type[Any] = FASTEST) -> Node:
    """Read YAML into a tree.

    Args:
        text: The YAML.
        report: Takes the faults.
        base: PyYAML's loader.

    Returns:
        The tree; its root is a map.

    Raises:
        Unreadable: There is no tree.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    conversion = _Conversion(text, report)
    bad = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if bad is not None:
        raise report.unreadable(
            conversion.line_at(bad.start()), f"a character that cannot be in YAML: U+{ord(bad.group()):04X}"
        )
    try:
        root = yaml.compose(text, _loader(base))
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text, conversion) from None
    except yaml.YAMLError:
        raise report.unreadable(1, "this is not valid YAML") from None
    if root is None or (root.tag == f"{_TAG}null" and root.value == ""):
        return Node({}, report.origin(1))
    if not isinstance(root, yaml.MappingNode):
        line = conversion.line_of(root)
        raise report.unreadable(line, "the file must be a map of sections such as agents: and policies:")
    return conversion.of(root, 1, ()).node


@dataclass(frozen=True, slots=True)
class _Done:
    """A value that was converted; ``size`` and ``height`` are those of the tree with every alias followed."""

    node: Node
    size: int
    height: int


class _Conversion:
    """PyYAML's nodes as ours.

    Each is converted once, where it is written, and shared by its aliases: so it keeps its line, and no number of
    aliases costs memory.
    """

    def __init__(self, text: str, report: Report) -> None:
        self.report = report
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._last = last_line(text)
        self._done: dict[int, _Done] = {}
        self._met: set[int] = set()
        self._nodes = 0

    def line_at(self, index: int) -> int:
        """Return the line of a character; the line numbers of PyYAML count separators that editors do not."""
        return min(bisect_right(self._starts, index), self._last)

    def line_of(self, node: yaml.Node) -> int:
        return self.line_at(node.start_mark.index)

    def of(self, node: yaml.Node, line: int, path: Path) -> _Done:
        """Return the node as ours."""
        done = self._done.get(id(node))
        if done is not None:
            self._count(done.size, done.height, line, path)
            return done
        if id(node) in self._met:
            message = f"this leads in a circle: what is written in line {self.line_of(node)} contains itself"
            self.report.fault(line, message, "take out the alias", path)
            return _Done(Node(None, self.report.origin(line)), 1, 1)
        self._met.add(id(node))
        before = self._nodes
        self._count(1, 1, line, path)
        self._check_tag(node, line, path)
        value, height = self._value(node, line, path)
        done = _Done(Node(value, self.report.origin(line)), self._nodes - before, height + 1)
        self._done[id(node)] = done
        return done

    def _count(self, size: int, height: int, line: int, path: Path) -> None:
        self._nodes += size
        if self._nodes > MAX_NODES:
            message = f"with every alias followed, the file has more than {MAX_NODES:,} values"
            raise self.report.unreadable(line, message, path=path)
        if len(path) + height > MAX_DEPTH + 1:
            raise self.report.unreadable(line, f"the values are nested more than {MAX_DEPTH} levels deep")

    def _check_tag(self, node: yaml.Node, line: int, path: Path) -> None:
        kind = node.tag.removeprefix(_TAG)
        shown = f"!!{kind}"
        if kind == node.tag:
            # Not named: it may be a password that begins with an exclamation mark.
            self.report.fault(line, "a tag (!) that is not known", f"take it out, or {_QUOTE}", path)
        elif not any(kind in kinds for kinds in _FITTING.values()):
            self.report.fault(line, f"the tag {shown} is not known", "take it out", path)
        elif kind not in _FITTING[type(node)] or (kind in _CORE and not _CORE[kind].fullmatch(node.value)):
            self.report.fault(
                line, f"the tag {shown} does not fit what it stands before", "take it out", path
            )

    def _value(self, node: yaml.Node, line: int, path: Path) -> tuple[Any, int]:
        """Return the value of a node, and the height of what is under it."""
        if isinstance(node, yaml.MappingNode):
            return self._map(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                # Of an alias PyYAML knows only where the anchor is: a fault is nearer to the list.
                at = line if id(item) in self._met else self.line_of(item)
                items.append(self.of(item, at, (*path, index)))
            return tuple(item.node for item in items), max((item.height for item in items), default=0)
        return self._scalar(node.value, node.tag.removeprefix(_TAG), line, path), 0

    def _map(self, node: yaml.MappingNode, path: Path) -> tuple[dict[str, Node], int]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        first: dict[str, int] = {}
        height = 0
        for key_node, value_node in node.value:
            line = self.line_of(key_node)
            key = self._key(key_node, line, path)
            if key is None:
                continue
            if key in first:
                message = f"'{key}' is written twice, first in line {first[key]}"
                self.report.fault(line, message, path=(*path, key))
            first.setdefault(key, line)
            done = self.of(value_node, line, (*path, key))
            height = max(height, done.height)
            if key_node.tag == f"{_TAG}merge":
                merged = {**self._to_merge(value_node, done.node, line, path), **merged}
            else:
                own[key] = done.node
        return {**merged, **own}, height

    def _key(self, node: yaml.Node, line: int, path: Path) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            suggestion = "put text with braces or brackets in it, such as '{{ name }}', in quotes"
            self.report.fault(line, "a map or a list cannot be a key", suggestion, path)
            return None
        key: str = node.value
        self._check_tag(node, line, (*path, key))
        if node.tag == f"{_TAG}null" and not key:
            self.report.fault(line, "a key is missing before the colon", path=path)
            return None
        if node.tag in {f"{_TAG}null", f"{_TAG}bool"}:
            message = f"a key must be text, and {key} without quotes is none"
            self.report.fault(line, message, f'write "{key}"', (*path, key))
        return key

    def _to_merge(self, written: yaml.Node, node: Node, line: int, path: Path) -> dict[str, Node]:
        parts = written.value if isinstance(written, yaml.SequenceNode) else [written]
        if not all(isinstance(part, yaml.MappingNode) for part in parts):
            self.report.fault(line, "'<<' takes a map or a list of maps", path=(*path, "<<"))
        merged: dict[str, Node] = {}
        for part in reversed(node.value if isinstance(node.value, tuple) else (node,)):
            merged.update(part.value if part.is_map else {})
        return merged

    def _scalar(self, text: str, kind: str, line: int, path: Path) -> Any:
        if kind not in _CORE or kind == "merge" or not _CORE[kind].fullmatch(text):
            return text
        if kind in {"null", "bool"}:
            return None if kind == "null" else text.lower() == "true"
        try:
            return _integer(text) if kind == "int" else _finite(text)
        except ValueError:
            self.report.fault(line, "this number is not a JSON value", path=path)
            return None


def _integer(text: str) -> int:
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text)


def _finite(text: str) -> float:
    number = float(re.sub(r"\.(?=[iInN])", "", text))
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _loader(base: type[Any]) -> type[Any]:
    def resolve(_self: Any, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
        if kind is not yaml.ScalarNode:
            return f"{_TAG}seq" if kind is yaml.SequenceNode else f"{_TAG}map"
        plain = (core for core, pattern in _CORE.items() if implicit[0] and pattern.fullmatch(value))
        return _TAG + next(plain, "str")

    # libyaml's composer recurses in C without a limit: enough brackets would end the process.
    def descend(self: Any, parent: yaml.Node | None, _index: Any) -> None:
        self.depth += 1
        if parent is not None and self.depth > MAX_DEPTH + 1:
            raise yaml.MarkedYAMLError(problem="too deep", problem_mark=parent.start_mark)

    def ascend(self: Any) -> None:
        self.depth -= 1

    own = {"depth": 0, "resolve": resolve, "descend_resolver": descend, "ascend_resolver": ascend}
    return type("Loader", (base,), own)


def _syntax(error: yaml.MarkedYAMLError, text: str, conversion: _Conversion) -> Unreadable:
    mark = error.problem_mark or error.context_mark
    index = mark.index if mark else 0
    began = conversion.line_at(error.context_mark.index if error.context_mark else index)
    # The character itself is looked at here: libyaml does not say which one it is.
    said = f"{error.context}: {error.problem}" + ("\t" if text[index : index + 1] == "\t" else "")
    words = next(words for words in _SYNTAX if re.search(words.pattern, said))
    name = _NAME.match(text, index)
    known = {"began": began, "name": name.group(1) if name else ""}
    line = began if words.where_it_began else conversion.line_at(index)
    suggestion = words.suggestion and words.suggestion.format(**known)
    return conversion.report.unreadable(line, words.message.format(**known), suggestion)
