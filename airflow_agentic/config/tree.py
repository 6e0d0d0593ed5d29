"""Configuration as a tree in which every value knows where it was written, and how trees are merged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DELETE = "${delete}"
"""As a value: remove what lower layers said here, so that the coded default applies."""

Path = tuple[str | int, ...]

_INDEX = re.compile("0|[1-9][0-9]*")
_SEGMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^."]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written.

    Attributes:
        source: For people: ``agentic.yaml:12``, a variable, an argument, a coded default.
        file: The file, if it is one.
        line: Line in the file, from 1.
    """

    source: str
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it was written.

    Attributes:
        value: A map (``dict[str, Node]``), a list (``tuple[Node, ...]``) or a scalar of JSON.
        origin: Where.
        fresh: A map that took the place of something that is no map: nothing of lower layers shows through it.
    """

    value: Any
    origin: Origin
    fresh: bool = False

    @property
    def is_map(self) -> bool:
        """Whether it is a map."""
        return isinstance(self.value, dict)

    @property
    def deletes(self) -> bool:
        """Whether it says that lower layers are to be forgotten here."""
        return isinstance(self.value, str) and self.value == DELETE

    def plain(self) -> Any:
        """Return the values without their origins."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, tuple):
            return [child.plain() for child in self.value]
        return self.value

    def find(self, path: Path) -> Node | None:
        """Return what is at ``path``; ``None`` if nothing is."""
        found, rest = self.nearest(path)
        return None if rest else found

    def nearest(self, path: Path) -> tuple[Node, Path]:
        """Return the deepest node on the way to ``path``, and the part of the path that is left."""
        node = self
        for position, key in enumerate(path):
            child = node.child(key)
            if child is None:
                return node, path[position:]
            node = child
        return node, ()

    def child(self, key: str | int) -> Node | None:
        """Return the child of that key or index, if there is one."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, tuple) and isinstance(key, int) and 0 <= key < len(self.value):
            found: Node = self.value[key]
            return found
        return None

    def values(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """Yield every value that can be set by itself, with its path: scalars, lists, and maps that are empty."""
        if not self.value or not isinstance(self.value, dict):
            yield path, self
            return
        for key, child in self.value.items():
            yield from child.values((*path, key))

    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """Yield every scalar, and every map or list that is empty, with its path."""
        children = self.children()
        if not children:
            yield path, self
        for key, child in children:
            yield from child.leaves((*path, key))

    def children(self) -> list[tuple[str | int, Node]]:
        """Return keys or indexes with what is under them; empty for a scalar."""
        if isinstance(self.value, dict):
            return list(self.value.items())
        return list(enumerate(self.value)) if isinstance(self.value, tuple) else []


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source says.

    Attributes:
        name: Kind of source, for people: ``project file``, ``environment``.
        root: Its tree; the root is a map.
    """

    name: str
    root: Node


def planted(value: Any, origin: Origin) -> Node:
    """Return plain values as a tree of one origin."""
    if isinstance(value, Mapping):
        return Node({str(key): planted(item, origin) for key, item in value.items()}, origin)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return Node(tuple(planted(item, origin) for item in value), origin)
    return Node(value, origin)


def nested(path: Path, node: Node) -> Node:
    """Return the tree of maps that has ``node`` at ``path``."""
    for key in reversed(path):
        node = Node({str(key): node}, node.origin)
    return node


def merged(low: Node, high: Node) -> Node:
    """Return ``high`` over ``low``: maps are merged key by key, everything else is replaced.

    The operation is associative: layers may be merged in any grouping. So a deletion stays in the tree, as a mark,
    until :func:`pruned` takes it out.
    """
    if not high.is_map or high.fresh:
        return high
    if not low.is_map:
        return Node(high.value, high.origin, fresh=True)
    both = dict(low.value)
    for key, child in high.value.items():
        both[key] = merged(both[key], child) if key in both else child
    return Node(both, high.origin if not low.value else low.origin, low.fresh)


def pruned(node: Node) -> Node:
    """Return the tree without the keys that are deleted."""
    if not node.is_map:
        return node
    kept = {key: pruned(child) for key, child in node.value.items() if not child.deletes}
    return Node(kept, node.origin, node.fresh)


def dotted(path: Path) -> str:
    """Return a path as people write it: ``agents.license-auditor.config.pause_seconds``."""
    return ".".join(_quoted(str(key)) for key in path)


def parse_path(text: str) -> Path:
    """Read a dotted path; a key with a dot in it stands in double quotes, a number is an index.

    Raises:
        ValueError: It is empty or has an empty part.
    """
    path: list[str | int] = []
    position = 0
    while position <= len(text):
        found = _SEGMENT.match(text, position)
        if found is None:
            raise ValueError(f"{text!r} is no key: give names with dots between them")
        quoted, bare = found.groups()
        if bare is not None:
            path.append(int(bare) if _INDEX.fullmatch(bare) else bare)
        else:
            path.append(_ESCAPED.sub(r"\1", quoted))
        position = found.end() + 1
        if position <= len(text) and text[position - 1] != ".":
            raise ValueError(f"{text!r} is no key: a dot is missing before {text[position - 1 :]!r}")
        if position == len(text) + 1:
            break
    return tuple(path)


def _quoted(key: str) -> str:
    if key and not set('."\\') & set(key):
        return key
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
