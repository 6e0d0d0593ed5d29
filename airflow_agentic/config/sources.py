"""Where configuration comes from: each layer is a source of pydantic-settings.

A source can also be put into a ``BaseSettings`` of a user's own, for example in a service beside Airflow that reads
the same project file. pydantic-settings' own source for the environment is not used: it drops names that it does
not know in silence, and does not say which variable a value came from.
"""

from __future__ import annotations

import json
import math
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from airflow_agentic.config.files.reading import SUFFIXES, read_bytes
from airflow_agentic.config.model import ProjectSection, known_keys
from airflow_agentic.config.names import did_you_mean, normalised
from airflow_agentic.config.options import BOOTSTRAP, OPTIONS, SECTION
from airflow_agentic.config.tree import (
    DELETE,
    Layer,
    Node,
    Origin,
    Path,
    dotted,
    merged,
    nested,
    parse_path,
    planted,
)
from airflow_agentic.errors import ConfigFault

VARIABLE_PREFIX = "AGENTIC__"
OPTION_PREFIX = f"AIRFLOW__{SECTION.upper()}__"

# By content: a file is parsed again when it has changed, and only then.
_read = lru_cache(maxsize=64)(read_bytes)
_NOTHING = Origin("nowhere")
_KEY = re.compile(r'(?:[\w.-]|"[^"]*")*')


class ProjectSettings(ProjectSection, BaseSettings):  # type: ignore[misc]  # both have a model_config
    """The project as pydantic-settings sees it; see :class:`Source`."""


class Source(PydanticBaseSettingsSource):
    """One layer of configuration.

    Attributes:
        layer: What it says, with where it is written.
        faults: What is wrong with it by itself.
    """

    def __init__(self, settings_cls: type[BaseSettings] = ProjectSettings) -> None:
        super().__init__(settings_cls)
        self.faults: list[ConfigFault] = []
        self._parts: list[Node] = []
        self.layer = self._layer()

    @property
    def layers(self) -> list[Layer]:
        """What it says, one by one where it has several: variables, arguments. Later over earlier."""
        return [Layer(self.layer.name, part) for part in self._parts] or [self.layer]

    @abstractmethod
    def _layer(self) -> Layer:
        """Read the source; faults go into ``faults``."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Return what the layer says about a section."""
        node = self.layer.root.child(field_name)
        return (None if node is None else node.plain()), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return all that the layer says, as plain values."""
        plain: dict[str, Any] = self.layer.root.plain()
        return plain

    def _united(self, name: str, parts: Iterable[Node | None]) -> Layer:
        self._parts = [part for part in parts if part is not None]
        root = Node({}, _NOTHING)
        for part in self._parts:
            root = merged(root, part)
        return Layer(name, root)

    def _refuse(self, origin: Origin, key: str, message: str, suggestion: str | None = None) -> None:
        self.faults.append(ConfigFault(origin.file, origin.line, key, message, suggestion, origin.source))


class OptionsSource(Source):
    """``[agentic]`` of ``airflow.cfg``.

    Args:
        options: Option to raw value, without those that are not set.
        where: The file, for people.
    """

    def __init__(self, options: Mapping[str, str], where: str = "airflow.cfg") -> None:
        self._options = options
        self._where = where
        super().__init__()

    def _layer(self) -> Layer:
        parts = (self._option(key, value) for key, value in self._options.items())
        return self._united("airflow.cfg", parts)

    def _option(self, key: str, value: str) -> Node | None:
        return self.option(key, value, Origin(f"{self._where} [{SECTION}] {key}"))

    def option(self, key: str, value: str, origin: Origin) -> Node | None:
        """Return an option as a tree; ``None`` if it is no part of the project."""
        known = [option.key for option in OPTIONS]
        if key not in known:
            self._refuse(origin, key, f"[{SECTION}] has no option {key!r}", did_you_mean(key, known))
            return None
        if key in BOOTSTRAP or value == "":
            return None
        return nested(("settings", key), Node(value, origin))


class FileSource(Source):
    """A project file.

    Args:
        file: Its path, as it is shown.
        data: Its content; default: it is read.
    """

    def __init__(self, file: str, data: bytes | None = None) -> None:
        self._file = file
        self._data = data
        super().__init__()

    def _layer(self) -> Layer:
        empty = Node({}, Origin(self._file, self._file))
        if self._data is None:
            try:
                self._data = FilePath(self._file).read_bytes()
            except OSError as error:
                self._refuse(empty.origin, "", f"the project file cannot be read: {error.strerror}")
                return Layer("project file", empty)
        root, faults = _read(self._data, self._file)
        self.faults.extend(faults)
        return Layer("project file", root or empty)


class EnvironmentSource(Source):
    """Variables ``AIRFLOW__AGENTIC__<OPTION>`` and ``AGENTIC__<SECTION>__…__<KEY>``.

    A part of a variable's name stands for the key with the same letters and digits: ``LICENSE_AUDITOR`` for
    ``license-auditor``. A value that begins with ``[``, ``{`` or ``"``, and ``null``, is JSON; any other is text, of
    which the models make numbers.

    Args:
        env: The variables.
        below: What lower layers say: the keys that a variable can name.
    """

    def __init__(self, env: Mapping[str, str], below: Node) -> None:
        self._env = env
        self._below = below
        super().__init__()

    def _layer(self) -> Layer:
        options = OptionsSource({})
        parts: list[Node | None] = []
        for name in sorted(self._env):
            origin = Origin(f"environment variable {name}")
            if name.startswith(OPTION_PREFIX):
                key = name.removeprefix(OPTION_PREFIX).lower()
                # What a command or a secrets backend tells, the runtime asks Airflow for.
                if not any(key in option.indirect_keys for option in OPTIONS):
                    parts.append(options.option(key, self._env[name], origin))
        mine = (name for name in sorted(self._env) if name.startswith(VARIABLE_PREFIX))
        parts += [self._variable(name, Origin(f"environment variable {name}")) for name in mine]
        self.faults.extend(options.faults)
        return self._united("environment", parts)

    def _variable(self, name: str, origin: Origin) -> Node | None:
        path: Path = ()
        for part in name.removeprefix(VARIABLE_PREFIX).split("__"):
            if not part:
                self._refuse(origin, dotted(path), "the name of the variable has an empty part")
                return None
            key = self._key(path, part, origin)
            if key is None:
                return None
            path = (*path, key)
        try:
            _refuse_part_of_list(self._below, path)
            return nested(path, value_of(self._env[name], path, origin))
        except ValueError as error:
            self._refuse(origin, dotted(path), str(error))
            return None

    def _key(self, path: Path, part: str, origin: Origin) -> str | None:
        here = self._below.find(path)
        present = [str(key) for key, _ in here.children()] if here else []
        known = dict.fromkeys([*known_keys(path), *present])
        found = [key for key in known if normalised(key) == normalised(part)]
        if len(found) > 1:
            self._refuse(
                origin, dotted(path), f"{part} can be {' and '.join(map(repr, found))}: use --set or a file"
            )
            return None
        return found[0] if found else part.lower()


class OverridesSource(Source):
    """What the command line, or a caller, lays over everything that is written down.

    Args:
        overrides: ``key=value`` texts, or a map of dotted keys (or nested maps) to values.
        below: What lower layers say: names with dots in them are found there.
        source: What they are, for people.
    """

    def __init__(
        self, overrides: Mapping[str, Any] | Iterable[str], below: Node, source: str = "--set"
    ) -> None:
        self._overrides = overrides
        self._below = below
        self._source = source
        super().__init__()

    def _layer(self) -> Layer:
        return self._united(self._source, self._read())

    def _read(self) -> Iterator[Node | None]:
        if isinstance(self._overrides, Mapping):
            for key, value in self._overrides.items():
                yield self._part(str(key), lambda _, origin, value=value: planted(value, origin))
            return
        for text in self._overrides:
            key, equals, value = text.partition("=")
            if not equals:
                # What follows the key may be a secret, behind a : instead of a =.
                key = _KEY.match(text).group()  # type: ignore[union-attr]  # it matches the empty text too
                hint = f"write {key or 'key'}=value, or {key or 'key'}={DELETE}"
                self._refuse(
                    Origin(f"{self._source} {key}".strip()), key, "an override must be key=value", hint
                )
                continue
            yield self._part(key.strip(), lambda path, origin, value=value: value_of(value, path, origin))

    def _part(self, key: str, make: Any) -> Node | None:
        origin = Origin(f"{self._source} {key}")
        try:
            path = self.path(key)
            _refuse_part_of_list(self._below, path)
            return nested(path, make(path, origin))
        except ValueError as error:
            self._refuse(origin, key, str(error))
            return None

    def path(self, key: str) -> Path:
        """Read a dotted key."""
        return find_path(self._below, key)


def find_path(root: Node, key: str) -> Path:
    """Read a dotted key; where a name with a dot in it is present, it need not stand in quotes.

    Raises:
        ValueError: It is no key.
    """
    parts = list(map(str, parse_path(key)))
    path: Path = ()
    node: Node | None = root
    while parts:
        size = 1
        if node is not None and node.is_map:
            sizes = (
                size for size in range(len(parts), 0, -1) if node.child(".".join(parts[:size])) is not None
            )
            size = next(sizes, 1)
        name = ".".join(parts[:size])
        step: str | int = (
            int(name) if node is not None and isinstance(node.value, tuple) and name.isdecimal() else name
        )
        path, parts = (*path, step), parts[size:]
        node = node.child(step) if node is not None else None
    return path


def value_of(text: str, path: Path, origin: Origin) -> Node:
    """Read a value that was given as text.

    Raises:
        ValueError: It begins as JSON and is none.
    """
    stripped = text.strip()
    # Flags have no model that could make a number or a truth value of a text.
    scalar = path[:1] == ("flags",)
    if stripped[:1] in ("[", "{", '"') or stripped == "null" or scalar:
        try:
            return planted(json.loads(stripped, parse_constant=_no_constant, parse_float=_finite), origin)
        except (ValueError, RecursionError):
            if not scalar:
                raise ValueError("the value begins as JSON and is not JSON") from None
    return Node(text, origin)


def _refuse_part_of_list(root: Node, path: Path) -> None:
    above, rest = root.nearest(path)
    if any(isinstance(key, int) for key in path) or (rest and isinstance(above.value, tuple)):
        raise ValueError("a list is replaced as a whole: give all of it, as JSON")


def files_of(paths: str | FilePath | Iterable[str | FilePath]) -> tuple[list[str], list[ConfigFault]]:
    """Return the project files that paths stand for, in the order in which they are merged.

    A directory stands for its files ``*.yaml``, ``*.yml`` and ``*.toml`` in the order of their names.
    """
    files: list[str] = []
    faults: list[ConfigFault] = []
    for path in [paths] if isinstance(paths, str | FilePath) else paths:
        folder = FilePath(path)
        if not folder.is_dir():
            files.append(str(path))
            continue
        try:
            found = sorted(e for e in folder.iterdir() if e.suffix.lower() in SUFFIXES and e.is_file())
        except OSError as error:
            message = f"the directory cannot be read: {error.strerror or error}"
            faults.append(ConfigFault(str(path), None, "", message, source=str(path)))
            continue
        if not found:
            message = f"the directory has no project file: none of {', '.join('*' + s for s in SUFFIXES)}"
            faults.append(ConfigFault(str(path), None, "", message, source=str(path)))
        files.extend(map(str, found))
    return files, faults


def read_files(
    paths: str | FilePath | Iterable[str | FilePath],
) -> tuple[list[tuple[str, bytes]], list[ConfigFault]]:
    """Return names and contents of the project files that paths stand for; see :func:`files_of`."""
    files, faults = files_of(paths)
    texts = []
    for file in files:
        try:
            texts.append((file, FilePath(file).read_bytes()))
        except OSError as error:
            message = f"the project file cannot be read: {error.strerror or error}"
            faults.append(ConfigFault(file, None, "", message, source=file))
    return texts, faults


def relevant(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that say something about the configuration."""
    return {name: value for name, value in env.items() if name.startswith((VARIABLE_PREFIX, OPTION_PREFIX))}


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("too large a number")
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
