"""Agents as the project declares them: what each is made of, what it is given, and what is wrong with that."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import BaseModel

from airflow_agentic.agents.configuration import declared_faults, defaults, keys, secret_fields
from airflow_agentic.agents.registry import AgentDefinition, registry
from airflow_agentic.agents.services import service_faults
from airflow_agentic.config.loading import UnknownPath
from airflow_agentic.config.model import AgentSection, ProjectSection
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.policies import Policy
from airflow_agentic.config.project import CODED, Project
from airflow_agentic.config.tree import Node, Origin, Path, merged, nested, planted, pruned
from airflow_agentic.errors import AgenticError, ConfigurationError, UnknownAgent


@dataclass(frozen=True)
class AgentPlan:
    """What is made of a name.

    Attributes:
        name: The agent.
        definition: Its implementation.
        config: Its configuration as it is declared; references in it are not resolved.
        uses: Parameter to service or agent.
        sends_to: Name that its code sends to, to agent.
        policy: How its work is guarded; ``None`` if nothing is said. Its budget is the agent's own, if it has one.
        overlay: What run time said, unmerged: plain values that may say what to delete.
        persistence: How its durable runs are kept; ``None`` if nothing is said.
        run_key: Key of the durable run of a task that it works on; ``None`` for the task's own.
    """

    name: str
    definition: AgentDefinition
    config: Mapping[str, Any] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    sends_to: Mapping[str, str] = field(default_factory=dict)
    policy: Policy | None = None
    overlay: Mapping[str, Any] = field(default_factory=dict)
    persistence: str | None = None
    run_key: str | None = None


def plan(
    project: Project, name: str, overlay: Node | None = None, definition: AgentDefinition | None = None
) -> AgentPlan:
    """Say what is to be made of an agent's name.

    Args:
        project: What is declared.
        name: The agent.
        overlay: What run time says about its configuration.
        definition: The implementation, if it was chosen in code; default: what the project says, or what is
            registered under the name.

    Raises:
        UnknownAgent: Nothing is declared or registered under the name, or its type cannot be found.
    """
    found = definition or implementation(project, name)
    section = project.agents.get(name)
    over = overlay or planted({}, Origin("run time"))
    if section is None:
        return AgentPlan(name, found, pruned(over).plain(), overlay=over.plain())
    declared = project.root.find(("agents", name, "config")) or planted({}, Origin(CODED))
    return AgentPlan(
        name,
        replace(found, name=name),
        pruned(merged(declared, over)).plain(),
        section.uses,
        section.sends_to,
        _policy(project, section),
        over.plain(),
        section.persistence,
    )


def implementation(project: Project, name: str) -> AgentDefinition:
    """Return what an agent is made of.

    Raises:
        UnknownAgent: Nothing is declared or registered under the name, or its type cannot be found.
        ConfigurationError: Its type is no agent.
    """
    section = project.agents.get(name)
    wanted = name if section is None else section.type or name
    import_declared(project)
    try:
        # What is declared is no type: its name helps only who asked for an agent.
        return registry.resolve(wanted, project.agents if section is None else ())
    except ConfigurationError as error:
        if section is None:
            raise
        told = project.fault(("agents", name, "type"), _not_found(section.type, error))
        raise type(error)(str(told)) from None


def _policy(project: Project, section: AgentSection) -> Policy | None:
    policy = project.policies[section.policy] if section.policy else None
    if section.budget is None:
        return policy
    return (policy or Policy()).model_copy(update={"budget": section.budget})


def import_declared(project: Project) -> None:
    """Import the modules of ``imports``, so that what they register is known.

    Raises:
        ConfigurationError: One cannot be imported.
    """
    for path, text, error in _failed_imports(project):
        raise ConfigurationError(str(project.fault(path, text))) from error


def check_project(project: Project) -> Iterator[tuple[Any, ...]]:
    """Yield what is wrong with agents and services: path, message, suggestion. Imports their code, makes nothing.

    This is the entry point ``agents`` of the group ``airflow_agentic.project_checks``.
    """
    for path, text, _ in _failed_imports(project):
        yield path, text, None
    known: dict[str, AgentDefinition] = {}
    for name, section in project.agents.items():
        path = ("agents", name)
        try:
            found = registry.resolve(section.type or name)
            found.check()
        except AgenticError as error:
            # Without a type it is an agent of code: a DAG file may register it, and DAG files are not read here.
            if section.type is not None or not isinstance(error, UnknownAgent):
                yield (*path, "type"), *_unfound(section.type or name, error)
            continue
        known[name] = found
        yield from _constructor(path, found)
        yield from _configuration(project, path, found.config_model)
    yield from service_faults(project, known)


def unchecked(project: Project) -> list[str]:
    """Return the agents whose code was not looked at: they have no type, and nothing registered them here."""
    return [
        name
        for name, section in project.agents.items()
        if section.type is None and registry.find(name) is None
    ]


def coded_defaults(project: Project) -> Node:
    """Return what code says where nothing is declared: options, sections, and the models of agents' configuration.

    An agent whose code cannot be imported has no defaults of its own.
    """
    root = _coded(ProjectSection)
    for name, model in _models(project):
        section = _coded(AgentSection)
        said = project.root.find(("agents", name, "config"))
        values = defaults(model, said.plain() if said else {})
        own = planted(values, Origin(f"{CODED} ({model.__name__})"))
        root = merged(root, nested(("agents", name), merged(section, nested(("config",), own))))
    for kind in ("policies", "services", "mailboxes", "roles", "budgets"):
        for name, entry in getattr(project, kind).items():
            root = merged(root, nested((kind, name), _coded(type(entry))))
    return root


def secret_paths(project: Project) -> tuple[Path, ...]:
    """Return the paths of agents' configuration whose type says that they are secret."""
    return tuple(
        ("agents", name, "config", *path) for name, model in _models(project) for path in secret_fields(model)
    )


def _coded(section: type[BaseModel]) -> Node:
    # Without None: that nothing is said is no value.
    return planted(section().model_dump(mode="json", exclude_none=True), Origin(CODED))


def _models(project: Project) -> Iterator[tuple[str, type[BaseModel]]]:
    for name in project.agents:
        try:
            yield name, implementation(project, name).config_model
        except AgenticError:
            continue


def _failed_imports(project: Project) -> Iterator[tuple[Path, str, Exception]]:
    """Yield path, message and error of each module of ``imports`` that cannot be imported."""
    for index, module in enumerate(project.imports):
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001  # somebody's module may raise anything when it is imported
            yield (
                ("imports", index),
                f"module {module!r} cannot be imported: {type(error).__name__}: {error}",
                error,
            )


def _unfound(type_: str, error: Exception) -> tuple[str, str | None]:
    """Return why an agent's implementation cannot be used, and what to do."""
    if isinstance(error.__cause__, UnknownPath):
        return f"there is no agent {type_!r}: {error.__cause__.message}", error.__cause__.suggestion
    if not isinstance(error, UnknownAgent):
        return str(error), None
    near = did_you_mean(type_, registry.names())
    advice = 'write "package.module:Attribute", or name the module that registers it in imports:'
    return f"there is no agent {type_!r}", near or advice


def _not_found(type_: str | None, error: Exception) -> str:
    if type_ is not None:
        return str(error)
    return f"it has no type:, and no agent is registered under its name: {error}"


def _constructor(path: Path, definition: AgentDefinition) -> Iterator[tuple[Any, ...]]:
    """Yield whether a constructor takes what every agent is given."""
    parameters = inspect.signature(definition.target).parameters if definition.agent_class else {}
    if not parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    if missing := [name for name in ("name", "config", "store") if name not in parameters]:
        message = f"the constructor of {definition.target.__qualname__} does not take {', '.join(missing)}"
        yield (*path, "type"), message, "let it take **kwargs, and call super().__init__(**kwargs)"


def _configuration(project: Project, path: Path, model: type[BaseModel]) -> Iterator[tuple[Any, ...]]:
    declared = project.root.find((*path, "config")) or planted({}, Origin(CODED))
    needed = path[1] in {name for agent in project.agents.values() for name in agent.uses.values()}
    # What only another agent needs is never given anything by an operator.
    for place, *told in declared_faults(model, declared.plain(), complete=needed):
        yield (*path, "config", *place), *told
    known = keys(model)
    for index, key in enumerate(project.agents[str(path[1])].overridable):
        if key.partition(".")[0] not in known and model.model_config.get("extra") != "allow":
            message = f"the configuration has no key {key!r}"
            hint = did_you_mean(key, known) or f"known here: {', '.join(known) or 'none'}"
            yield (*path, "overridable", index), message, hint
