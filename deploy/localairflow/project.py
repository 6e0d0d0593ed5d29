"""The project file of a DAGs folder, and the environments that other files lay over it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_agentic.config import ProjectInvalid, load_project
from localairflow.errors import ProjectFileError, UnknownEnvironmentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_agentic.config import Project

__all__ = ["described", "environments", "load", "named", "project_files"]

_BASE, _BEFORE, _AFTER = "agentic.yaml", "agentic.", ".yaml"


def environments(dags: Path) -> list[str]:
    """Names of the environments of a DAGs folder: ``strict``, if it has an ``agentic.strict.yaml``."""
    if not (dags / _BASE).is_file():
        return []
    files = (file.name for file in dags.glob(f"{_BEFORE}?*{_AFTER}"))
    return sorted(name.removeprefix(_BEFORE).removesuffix(_AFTER) for name in files)


def project_files(dags: Path, environment: str | None = None) -> tuple[Path, ...]:
    """The project files of a DAGs folder, later over earlier; none if it has no ``agentic.yaml``.

    Args:
        dags: the DAGs folder.
        environment: the environment whose file is laid over the first.

    Raises:
        UnknownEnvironmentError: there is no such file.
    """
    base = dags / _BASE
    if environment is None:
        return (base,) if base.is_file() else ()
    known = environments(dags)
    if environment not in known:
        there = f"It has: {', '.join(known)}." if known else "It has none."
        raise UnknownEnvironmentError(
            f"{named([dags])} has no environment {environment!r}: there is no "
            f"{_BEFORE}{environment}{_AFTER} to lay over {_BASE}. {there}"
        )
    return base, dags / f"{_BEFORE}{environment}{_AFTER}"


def load(files: Sequence[Path]) -> Project:
    """Load a project as its Airflow will, with the code of its agents, and nothing of the caller's environment.

    Raises:
        ProjectFileError: it cannot be used.
    """
    try:
        with _importable(files[0].parent):
            return load_project(files, env={})
    except ProjectInvalid as error:
        raise ProjectFileError(str(error)) from None


def described(project: Project, files: Sequence[Path], agent: str) -> str:
    """What an agent is made of and how its work is guarded, and where that is written."""
    lines = [f"Project     {named(files)}"]
    for field in ("type", "policy"):
        for found in project.explain(("agents", agent, field)):
            lines.append(f"  {found.key:<29} {found.value:<34} {_where(found.source)}")
            lines += [f"  {'instead of':>29} {value:<34} {_where(place)}" for value, place in found.overrides]
    return "\n".join(lines) + "\n"


def named(files: Sequence[Path]) -> str:
    """Paths as people read them: relative to where they are."""
    return ", ".join(_where(str(file)) for file in files)


def _where(source: str) -> str:
    """A place in a file; with PurePath's rules, not the file system's: it ends in ``:12``."""
    path = Path(source)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else source


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules of the DAGs folder be imported, as Airflow does."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
