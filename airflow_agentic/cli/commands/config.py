"""``airflow agentic config``: what is declared, where each value comes from, and what is wrong with it."""

from __future__ import annotations

import contextlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from airflow_agentic import runtime
from airflow_agentic.cli.checks.project import contents
from airflow_agentic.cli.command import command
from airflow_agentic.cli.output import count, is_machine, listing, note, say, shorten, single
from airflow_agentic.config import ConfigFault, Explanation, Project, ProjectInvalid, load_project
from airflow_agentic.config.model import known_keys
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.options import BOOTSTRAP, SECTION
from airflow_agentic.config.sources import find_path
from airflow_agentic.config.tree import Node, Path, dotted, merged
from airflow_agentic.errors import ConfigurationError, InvalidOption

_VALUE_WIDTH = 60
_OVERRIDDEN_WIDTH = 40
_HINTS = 20
_BEGIN = (
    f"write a project file (`airflow agentic config schema` says what it may hold) and name it in [{SECTION}] "
    f"project_file of airflow.cfg, or in AIRFLOW__{SECTION.upper()}__PROJECT_FILE"
)
_UNSEEN = (
    "no type, and nothing registered here: not held against its code. Write type:, or name the module that registers "
    "it in imports:"
)
_UNENFORCED = "declared and checked, but not enforced by this version"


@command
def show_values(args: Namespace) -> None:
    """List every value at or below a key, with its source."""
    with _own_output():
        project = runtime.project()
        coded, secrets = _of_code(project)
    known = merged(coded, project.root)
    path = _path(known, args.key) if args.key else ()
    found = project.explain(path, coded if args.all else None, secrets)
    # A map without anything in it explains itself; the project as a whole has no key.
    found = [explanation for explanation in found if explanation.key]
    if not found:
        _say_nothing(args, dotted(path), coded=known.find(path) is not None)
        return
    listing(args.output, [_data(explanation) for explanation in found], map(_row, found))
    # Airflow writes every option with its default into the airflow.cfg that it makes: those alone are no beginning.
    options_only = not args.key and all(explanation.key.startswith("settings.") for explanation in found)
    if options_only and not runtime.project_files():
        note(f"there is no project file. To begin, {_BEGIN}.")


@command
def explain_key(args: Namespace) -> None:
    """Say where a value, or each value below a key, comes from, and what it overrode."""
    with _own_output():
        project = runtime.project()
        coded, secrets = _of_code(project)
    known = merged(coded, project.root)
    path = _path(known, args.key)
    found = project.explain(path, coded, secrets)
    node = known.find(path)
    if node is not None and not isinstance(node.value, dict | tuple):
        single(args.output, _data(found[0]), lambda: _lines(found[0], path, project))
    elif is_machine(args.output):
        listing(args.output, [_data(explanation) for explanation in found], ())
    else:
        for number, explanation in enumerate(found):
            say(*([""] if number else []), *_lines(explanation, find_path(known, explanation.key), project))
    if not found:
        note(f"nothing is declared at {dotted(path)}, and it has no coded default")


@command
def validate_files(args: Namespace) -> None:
    """Check project files, or the configured project, whole; exit 1 if there is a fault."""
    if args.files and args.project:
        raise InvalidOption("FILE and --project both name project files: give one of them")
    try:
        with _own_output():
            project = _checked(args)
    except ProjectInvalid as invalid:
        _print_faults(args.output, invalid.errors)
        raise SystemExit(1) from None
    paths = args.files or runtime.project_files()
    if not paths:
        raise InvalidOption(f"no project is configured: {_BEGIN}. Or name the files to check as arguments.")
    if is_machine(args.output):
        _print_faults(args.output, ())
    else:
        say(f"{contents(project, paths)}, {count(len(project.services), 'service')}: ok")
    from airflow_agentic.agents.declared import unchecked

    if unseen := unchecked(project):
        note(f"note: {', '.join(unseen)}: {_UNSEEN}")
    if unenforced := _unenforced(project):
        note(f"note: {unenforced}: {_UNENFORCED}")


@command
def print_schema(_args: Namespace) -> None:
    """Print the JSON Schema of a project file."""
    from airflow_agentic.config.schema import json_schema

    single("json", json_schema(), tuple)


@contextlib.contextmanager
def _own_output() -> Iterator[None]:
    """Keep what users' modules print when they are imported out of the answer."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _checked(args: Namespace) -> Project:
    if args.files:
        runtime.make_dags_importable()
        return load_project(args.files, overrides=args.overrides)
    return runtime.project(deep=True)


def _of_code(project: Project) -> tuple[Node, tuple[Path, ...]]:
    """Return coded defaults, and the paths that agents' own models say are secret."""
    from airflow_agentic.agents.declared import coded_defaults, secret_paths

    runtime.make_dags_importable()
    return coded_defaults(project), secret_paths(project)


def _path(known: Node, key: str) -> Path:
    """Read a key that a person typed.

    Raises:
        ConfigurationError: It is no key of this project.
    """
    try:
        path = find_path(known, key)
    except ValueError as error:
        raise InvalidOption(str(error)) from None
    if len(path) == 1 and path[0] in known_keys(("settings",)):
        path = ("settings", *path)
    for position, part in enumerate(path):
        names = _names(known, path[:position])
        if str(part) not in names:
            raise _unknown(str(part), path[:position], names)
    return path


def _names(known: Node, path: Path) -> list[str]:
    here = known.find(path)
    present = [str(name) for name, _ in here.children()] if here else []
    return list(dict.fromkeys([*known_keys(path), *present]))


def _unknown(part: str, above: Path, names: Sequence[str]) -> ConfigurationError:
    if not above and part in BOOTSTRAP:
        return ConfigurationError(
            f"{part} says where the project is and is no part of it: `airflow config get-value {SECTION} {part}`"
        )
    if not above:
        names = [*names, *known_keys(("settings",))]
    where = f"{dotted(above)} has" if above else "there is"
    hint = did_you_mean(part, names)
    if hint is None:
        hint = f"known here: {', '.join(names[:_HINTS])}" if names else "nothing is known here"
    return ConfigurationError(f"{where} no key {part!r}: {hint}")


def _say_nothing(args: Namespace, key: str, *, coded: bool) -> None:
    if not key:
        text = f"nothing is declared. To begin, {_BEGIN}."
    elif coded and not args.all:
        text = f"nothing is declared at {key}: its coded defaults apply (--all shows them)"
    else:
        text = f"nothing is declared at {key}"
    if is_machine(args.output):
        listing(args.output, [], ())
        note(text)
    else:
        say(text)


def _data(explanation: Explanation) -> dict[str, Any]:
    overridden = [{"value": value, "source": source} for value, source in explanation.overrides]
    return {
        "key": explanation.key,
        "value": explanation.value,
        "source": explanation.source,
        "overrides": overridden,
    }


def _row(explanation: Explanation) -> dict[str, object]:
    value = shorten(_text(explanation.value), _VALUE_WIDTH)
    return {"key": explanation.key, "value": value, "source": explanation.source}


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _lines(explanation: Explanation, path: Path, project: Project) -> Iterator[str]:
    yield f"{explanation.key} = {_text(explanation.value)}"
    yield f"  from   {explanation.source}"
    texts = [shorten(_text(value), _OVERRIDDEN_WIDTH) for value, _ in explanation.overrides]
    width = max(map(len, texts), default=0)
    for number, (text, (_, source)) in enumerate(zip(texts, explanation.overrides, strict=True)):
        yield f"  {'' if number else 'over':<4}   {text:<{width}}   {source}"
    if _is_overridable(path, project):
        yield "  may be set by DAG params and dag_run.conf"


def _is_overridable(path: Path, project: Project) -> bool:
    if len(path) < 4 or path[0] != "agents" or path[2] != "config":
        return False
    agent = project.agents.get(str(path[1]))
    allowed = agent.overridable if agent else ()
    return any(dotted(path[3:end]) in allowed for end in range(4, len(path) + 1))


def _unenforced(project: Project) -> str:
    """Name the sections that are declared and have no effect yet."""
    agents = project.agents.values()
    declared = {
        "permissions of roles": any(role.permissions for role in project.roles.values()),
        "versions": any(agent.version for agent in agents),
    }
    return ", ".join(name for name, value in declared.items() if value)


def _print_faults(output: str, faults: Sequence[ConfigFault]) -> None:
    if is_machine(output):
        listing(output, list(map(asdict, faults)), ())
    else:
        say(*faults)
    if faults:
        note(count(len(faults), "fault"))
