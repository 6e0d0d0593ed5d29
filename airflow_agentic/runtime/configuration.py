"""Airflow's configuration and the project file, as one project."""

from __future__ import annotations

import configparser
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_agentic.config.options import OPTIONS, SECTION
from airflow_agentic.config.settings import Settings

if TYPE_CHECKING:
    from airflow_agentic.config.project import Project

_VARIABLE = f"AIRFLOW__{SECTION.upper()}__"


_COMMAND_LINE: ContextVar[tuple[tuple[str, ...], tuple[str, ...]]] = ContextVar(
    "command_line", default=((), ())
)


@contextlib.contextmanager
def command_line(overrides: Iterable[str], paths: Iterable[str]) -> Iterator[None]:
    """Let a command line have its say for as long as its command runs.

    Args:
        overrides: ``key=value`` texts, over everything that is written down.
        paths: Files and directories, if any, in place of those of ``[agentic] project_file``.
    """
    token = _COMMAND_LINE.set((tuple(overrides), tuple(paths)))
    try:
        yield
    finally:
        _COMMAND_LINE.reset(token)


def project(*, deep: bool = False) -> Project:
    """Return the project of this Airflow. It is read again when a file or the environment has changed.

    Args:
        deep: Also check what needs the code of agents and services.

    Raises:
        ProjectInvalid: Something is wrong; ``errors`` holds every fault with its place.
    """
    # The models, and pydantic-settings, are not needed until somebody asks (promise P13).
    from airflow_agentic.config.project import assemble, checked
    from airflow_agentic.config.sources import read_files, relevant

    texts, faults = read_files(project_files())
    overrides, _ = _COMMAND_LINE.get()
    env = {**relevant(os.environ), **_variables()}
    found = assemble(texts, options=_file_options(), env=env, overrides=overrides, faults=faults)
    if not deep:
        return found
    make_dags_importable()
    return checked(found)


def project_files() -> list[str]:
    """Return the files and directories of the project, in the order in which they are merged.

    They are those of the command line, if it names any, else those of ``[agentic] project_file``.
    """
    _, paths = _COMMAND_LINE.get()
    if paths:
        return list(paths)
    from airflow.configuration import conf  # noqa: TID251  # see the package's docstring

    named = conf.get(SECTION, "project_file", fallback="") or ""
    return [str(_home() / part.strip()) for part in named.split(",") if part.strip()]


def settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Return the options of ``[agentic]`` from all layers, with ``overrides`` on top.

    Raises:
        ProjectInvalid: The project configuration cannot be used.
        InvalidOption: One of ``overrides`` cannot be used.
    """
    return settings_of(project(), overrides)


def settings_of(
    declared: Project, overrides: Mapping[str, object] | None = None, where: str = f"[{SECTION}]"
) -> Settings:
    """Return the options that a project declares, with ``overrides`` on top.

    Args:
        declared: The project.
        overrides: Option to raw value.
        where: What the overrides belong to, for error texts.

    Raises:
        InvalidOption: One of ``overrides`` cannot be used.
    """
    return Settings.parse({**declared.settings.model_dump(), **(overrides or {})}, where)


def web_url(path: str) -> str:
    """Return the address of a page of Airflow's UI; relative if ``[api] base_url`` is not set."""
    from airflow.configuration import conf  # noqa: TID251  # see the package's docstring

    base = conf.get("api", "base_url", fallback="") or ""
    return base.rstrip("/") + path


def embedded_url() -> str:
    """Return the store that is used when nothing names one: a file under AIRFLOW_HOME."""
    return f"sqlite:///{_home()}/agentic.db"


def _home() -> Path:
    return Path(os.path.expanduser(os.environ.get("AIRFLOW_HOME", "~/airflow")))  # noqa: PTH111  # as Airflow does it


def make_dags_importable() -> None:
    """Put the DAGs folder on the path, where Airflow has it when it parses and runs DAGs: agents may live there."""
    from airflow.configuration import conf  # noqa: TID251  # see the package's docstring

    folder = conf.get("core", "dags_folder", fallback="") or ""
    if folder and folder not in sys.path:
        sys.path.append(folder)


def _file_options() -> dict[str, str]:
    """Return what ``airflow.cfg`` itself says in ``[agentic]``, typing errors included."""
    from airflow.configuration import conf  # noqa: TID251  # see the package's docstring

    written = configparser.RawConfigParser.has_section(conf, SECTION)
    keys = configparser.RawConfigParser.options(conf, SECTION) if written else []
    indirect = {key: option.key for option in OPTIONS for key in option.indirect_keys}
    found = {}
    for key in keys:
        name = indirect.get(key, key)
        if _VARIABLE + name.upper() not in os.environ:  # or Airflow would answer with the variable
            found[name] = (conf.get(SECTION, name, fallback="") or "").strip()
        elif name == key:
            found[name] = configparser.ConfigParser.get(conf, SECTION, key, fallback="")
    return found


def _variables() -> dict[str, str]:
    """Return options of the environment as Airflow reads them: expanded, from a command, from a secrets backend."""
    from airflow.configuration import conf  # noqa: TID251  # see the package's docstring

    found = {}
    for option in OPTIONS:
        name = _VARIABLE + option.key.upper()
        if any(_VARIABLE + key.upper() in os.environ for key in (option.key, *option.indirect_keys)):
            # What a command prints ends with a line end.
            found[name] = (conf.get(SECTION, option.key, fallback="") or "").strip()
    return found
