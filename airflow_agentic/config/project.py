"""The project: everything that is declared, merged from all layers, checked whole, and able to explain itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

from pydantic import PrivateAttr

from airflow_agentic.config.loading import installed
from airflow_agentic.config.masking import shown
from airflow_agentic.config.model import ProjectSection
from airflow_agentic.config.sources import (
    EnvironmentSource,
    FileSource,
    OptionsSource,
    OverridesSource,
    Source,
    find_path,
    read_files,
    relevant,
)
from airflow_agentic.config.tree import Layer, Node, Origin, Path, dotted, merged, pruned
from airflow_agentic.config.validation import fault, in_order, masked, typed, validated
from airflow_agentic.errors import ConfigFault, ProjectInvalid

CHECKS_GROUP = "airflow_agentic.project_checks"
"""Entry points: functions of a project that yield ``(path, message)`` or ``(path, message, suggestion)``."""

CODED = "coded default"

Check = Callable[["Project"], Iterable[Sequence[Any]]]
Overrides = Mapping[str, Any] | Iterable[str]


@dataclass(frozen=True)
class Explanation:
    """Where a value comes from.

    Attributes:
        key: Dotted key.
        value: The value, as it may be shown.
        source: Where it is written.
        overrides: What it overrode, the nearest layer first: values as they may be shown, and their sources.
    """

    key: str
    value: Any
    source: str
    overrides: tuple[tuple[Any, str], ...]


class Project(ProjectSection):
    """Everything that is declared, frozen. :func:`load_project` makes it."""

    _layers: tuple[Layer, ...] = PrivateAttr(default=())
    _root: Node = PrivateAttr(default=Node({}, Origin(CODED)))

    @classmethod
    def of(cls, section: ProjectSection, layers: Iterable[Layer], root: Node) -> Project:
        """Put together what was read and checked."""
        made = cls.model_construct(**{name: getattr(section, name) for name in type(section).model_fields})
        made._layers, made._root = tuple(layers), root  # noqa: SLF001  # pydantic keeps private values out of __init__
        return made

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What is declared, as it may be shown: projects end in logs and tracebacks."""
        return [(str(key), shown(child, (key,))) for key, child in self._root.children()]

    @property
    def root(self) -> Node:
        """What is declared, as a tree; without coded defaults."""
        return self._root

    def path(self, key: str) -> Path:
        """Read a dotted key; names with dots in them are found.

        Raises:
            ValueError: It is no key.
        """
        return find_path(self._root, key)

    def fault(self, path: Path, message: str, suggestion: str | None = None) -> ConfigFault:
        """Return a fault about what is declared at ``path``, with its place."""
        return fault(self._root, path, message, suggestion)

    def explain(
        self, path: Path, coded: Node | None = None, secret_paths: Iterable[Path] = ()
    ) -> list[Explanation]:
        """Say where the value at ``path``, or each value below it, comes from.

        Args:
            path: What to explain.
            coded: The coded defaults, as a tree.
            secret_paths: Paths that are secret whatever their keys are.

        Returns:
            One for each value, in the order of the keys; empty if nothing is there.
        """
        layers = [Layer(CODED, coded)] if coded else []
        layers += self._layers
        root = merged(coded, self._root) if coded else self._root
        found = root.find(path)
        secrets = tuple(secret_paths)
        return [] if found is None else [_explained(layers, *leaf, secrets) for leaf in found.values(path)]


def load_project(
    paths: str | FilePath | Iterable[str | FilePath] = (),
    env: Mapping[str, str] | None = None,
    overrides: Overrides | None = None,
) -> Project:
    """Load a project: its files, the environment over them, and overrides over that.

    Args:
        paths: Files (``.yaml``, ``.yml``, ``.toml``) and directories, later over earlier.
        env: Environment variables; default: those of this process. ``AIRFLOW__AGENTIC__<OPTION>`` sets an option,
            ``AGENTIC__AGENTS__NAME__CONFIG__KEY`` any key.
        overrides: ``key=value`` texts, or a map of dotted keys (or nested maps) to values.

    Returns:
        The project. Its agents and services are known to be importable, configurable and wired.

    Raises:
        ProjectInvalid: Something is wrong; ``errors`` holds every fault with its file and line.
        TypeError: ``env`` is no map.
    """
    if isinstance(env, str):
        raise TypeError(
            "env= takes a map of environment variables; another environment is another file in paths"
        )
    texts, faults = read_files(paths)
    return checked(
        assemble(texts, env=os.environ if env is None else env, overrides=overrides, faults=faults)
    )


def assemble(
    texts: Sequence[tuple[str, bytes]],
    *,
    options: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Overrides | None = None,
    faults: Iterable[ConfigFault] = (),
) -> Project:
    """Merge layers and check what can be checked without importing anybody's code.

    The result is kept: as long as nothing has changed, the same project comes back.

    Args:
        texts: Name and content of the project files, later over earlier.
        options: ``[agentic]`` of ``airflow.cfg``, without what is not set there.
        env: Environment variables.
        overrides: See :func:`load_project`.
        faults: Those that were found before.

    Raises:
        ProjectInvalid: Something is wrong.
    """
    laid = () if overrides is None else [overrides] if isinstance(overrides, str) else overrides
    key = (tuple(texts), _items(options), _items(relevant(env or {})), tuple(faults))
    if isinstance(laid, Mapping):
        return _assembled(*key, laid)
    return _assembled_once(*key, tuple(laid))


def checked(project: Project) -> Project:
    """Check what needs the code of agents and services: they are imported, and nothing is made of them.

    Every entry point of the group ``airflow_agentic.project_checks`` is asked.

    Raises:
        ProjectInvalid: Something is wrong.
    """
    faults = []
    for point in installed(CHECKS_GROUP):
        check: Check = point.load()
        faults += [project.fault(*found) for found in check(project)]
    if faults:
        raise ProjectInvalid(in_order(masked(faults)))
    return project


Items = tuple[tuple[str, str], ...]


def _assembled(
    texts: tuple[tuple[str, bytes], ...],
    options: Items,
    env: Items,
    faults: tuple[ConfigFault, ...],
    overrides: Overrides,
) -> Project:
    sources: list[Source] = [OptionsSource(dict(options)), *(FileSource(file, data) for file, data in texts)]
    files = _over(Node({}, Origin("nowhere")), sources)
    # These two name keys that are there already.
    environment = EnvironmentSource(dict(env), files)
    written = _over(files, [environment])
    laid_over = OverridesSource(overrides, written)
    root = _over(written, [laid_over])
    sources += [environment, laid_over]
    found = [*faults, *(fault for source in sources for fault in source.faults)]
    declared = pruned(_without_extensions(root))
    section, more = validated(declared, root)
    # What could not be read is no value, and is not judged as one.
    told = {(fault.source, fault.key) for fault in found}
    more = [fault for fault in more if (fault.source, fault.key) not in told]
    if section is None or found or more:
        raise ProjectInvalid(in_order(masked([*found, *more])))
    values = section.model_dump(mode="json", exclude_unset=True)
    layers = (layer for source in sources for layer in source.layers)
    return Project.of(section, layers, typed(declared, values))


_assembled_once = lru_cache(maxsize=16)(_assembled)


def _without_extensions(root: Node) -> Node:
    """Leave out what a file keeps under ``x-…`` for itself: a place for YAML anchors."""
    kept = {key: node for key, node in root.value.items() if not key.startswith("x-")}
    return Node(kept, root.origin, root.fresh)


def _over(root: Node, sources: Iterable[Source]) -> Node:
    for source in sources:
        root = merged(root, source.layer.root)
    return root


def _items(values: Mapping[str, str] | None) -> Items:
    return tuple(sorted((values or {}).items()))


def _explained(layers: Sequence[Layer], path: Path, leaf: Node, secrets: tuple[Path, ...]) -> Explanation:
    said: list[tuple[Node, Path]] = []
    for layer in layers:
        node, rest = layer.root.nearest(path)
        if not (rest and node.is_map):  # else the layer says nothing about it
            said.append((node, path[: len(path) - len(rest)]))
    # Not always the highest: one that deletes leaves the word to a coded default.
    winner = next((one for one in reversed(said) if one[0].origin == leaf.origin), None)
    others = (one for one in reversed(said) if one is not winner)
    overrides = tuple((shown(node, where, secrets), node.origin.source) for node, where in others)
    return Explanation(dotted(path), shown(leaf, path, secrets), leaf.origin.source, overrides)
