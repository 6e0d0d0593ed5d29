"""The services of a project as things that agents need; an agent may be such a thing as well."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.registry import AgentDefinition
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.config.flags import Flags
from airflow_agentic.config.injection.container import Fault, Provider, Services
from airflow_agentic.config.injection.signatures import Named, type_hints
from airflow_agentic.config.loading import UnknownPath, installed, load
from airflow_agentic.config.model import ServiceSection
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.project import Project
from airflow_agentic.config.references import NoReferences, Resolved, SecretResolver, has_reference
from airflow_agentic.config.tree import Path
from airflow_agentic.config.words import words
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.observability import Metrics

GROUP = "airflow_agentic.services"
"""Entry points: factories of services, by the name that a project file gives as ``type:``, or without any file."""

OF_A_RUN: tuple[Any, ...] = (MessageBus, AgentStore)
OF_THE_PROCESS: tuple[Any, ...] = (Project, Flags, Metrics, SecretResolver)
"""Types that agents and services may need and that the provider itself brings."""

_STORE = "_agent_store"  # no parameter of an agent's: one may need a ``store`` of its own


def services_of(
    project: Project,
    implementation: Callable[[str], AgentDefinition],
    resolver: SecretResolver | None = None,
) -> Services:
    """Return all that can be provided in a project: services, and the agents that some ``uses`` names.

    Args:
        project: What is declared.
        implementation: Finds the implementation of an agent.
        resolver: Where references in their configuration lead; without one they cannot be built.

    Raises:
        ConfigurationError: The type of a service cannot be found.
    """
    resolver = resolver or NoReferences()
    providers = [_service(project, name, section, resolver) for name, section in project.services.items()]
    # Only these: the code of all other agents need not be imported.
    providers += [_agent(project, name, implementation(name), resolver) for name in sorted(_used(project))]
    return Services(providers, OF_A_RUN, OF_THE_PROCESS, more=_installed_services)


def service_faults(project: Project, agents: Mapping[str, AgentDefinition]) -> Iterator[tuple[Any, ...]]:
    """Yield what is wrong with services and with what agents need: path, message, suggestion."""
    broken = False
    for name, section in project.services.items():
        for key, find in (("type", _factory), ("provides", _provided)):
            try:
                found = find(name, section)
            except UnknownPath as error:
                broken = True
                yield ("services", name, key), error.message, error.suggestion
            else:
                yield from _arguments(name, section, found) if key == "type" else ()
    # Else what is missing would be told again for each agent that needs it.
    if not broken and _used(project) <= agents.keys():
        yield from _unmet(project, agents)


def _unmet(project: Project, agents: Mapping[str, AgentDefinition]) -> Iterator[tuple[Any, ...]]:
    used = _used(project)
    services = services_of(project, agents.__getitem__)
    # Each where it is declared, and not again for all that need it.
    for fault in services.check_all():
        if fault.name in project.services:
            yield _told("services", project.services[fault.name].uses, fault)
        elif fault.name in used:
            yield _told("agents", project.agents[fault.name].uses, fault)
    for name in agents.keys() - used:
        label = f"agent {name!r}"
        for fault in services.faults_of(label, agents[name].needs, project.agents[name].uses):
            if fault.name == label:
                yield _told("agents", project.agents[name].uses, replace(fault, name=name))


def _told(section: str, uses: Mapping[str, str], fault: Fault) -> tuple[Path, str, str | None]:
    path: Path = (section, fault.name)
    if fault.parameter in uses:
        path = (*path, "uses", fault.parameter)
    return path, fault.text, fault.advice.lstrip(".; ") or None


def _service(project: Project, name: str, section: ServiceSection, resolver: SecretResolver) -> Provider:
    factory = _factory(name, section)
    node, _ = project.root.nearest(("services", name))
    return Provider(
        name,
        factory,
        _provided(name, section),
        section.scope,
        section.uses,
        arguments=lambda: _converted(name, factory, Resolved(section.config, resolver)),
        argument_names=frozenset(section.config),
        origin=node.origin.source,
    )


def _factory(name: str, section: ServiceSection) -> Callable[..., Any]:
    wanted = section.type or name
    if ":" not in wanted and (point := next((p for p in installed(GROUP) if p.name == wanted), None)):
        found: Callable[..., Any] = point.load()
        return found
    if "." not in wanted and ":" not in wanted:
        near = did_you_mean(wanted, [point.name for point in installed(GROUP)])
        message = f"no installed package declares a service {wanted!r}"
        raise UnknownPath(message, near or 'give type: "package.module:factory"')
    factory: Any = load(wanted)
    if not callable(factory):
        raise UnknownPath(f"{wanted!r} is no class or function, and makes no service")
    return factory  # type: ignore[no-any-return]  # callable, and more is not known


def _provided(_name: str, section: ServiceSection) -> Any:
    return load(section.provides) if section.provides else None


def _agent(project: Project, name: str, definition: AgentDefinition, resolver: SecretResolver) -> Provider:
    """Return how an agent is made that another one needs; it is shut down with the scope."""
    definition = replace(definition, name=name)

    def make(**things: Any) -> Iterator[BaseAgent[Any, Any]]:
        store = things.pop(_STORE)
        agent = definition.create(Resolved(project.agents[name].config, resolver), store, things)
        try:
            yield agent
        finally:
            agent.shutdown("the agent that needed it ended")

    needs = {need.parameter: need for need in definition.needs}
    keyword, required = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    parameters = [inspect.Parameter(_STORE, keyword)]
    parameters += [
        inspect.Parameter(key, keyword, default=None if need.optional else required)
        for key, need in needs.items()
    ]
    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    make.__annotations__ = {_STORE: AgentStore}
    for key, need in needs.items():
        make.__annotations__[key] = Annotated[need.type, Named(need.name)] if need.name else need.type
    node, _ = project.root.nearest(("agents", name))
    return Provider(
        name,
        make,
        definition.agent_class or BaseAgent,
        uses=project.agents[name].uses,
        origin=node.origin.source,
        kind="agent",
    )


def _arguments(name: str, section: ServiceSection, factory: Callable[..., Any]) -> Iterator[tuple[Any, ...]]:
    """Yield what is wrong with the keyword arguments that the configuration of a service gives."""
    try:
        signature, hints = inspect.signature(factory), type_hints(factory)
    except (ConfigurationError, ValueError):
        return
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    for key, value in section.config.items():
        path: Path = ("services", name, "config", key)
        if key not in signature.parameters and not takes_any:
            known = (
                did_you_mean(key, signature.parameters)
                or f"it takes {', '.join(signature.parameters) or 'nothing'}"
            )
            yield path, f"{section.type or name} takes no argument {key!r}", known
        elif key in hints and not has_reference(value):
            try:
                _adapter(hints[key]).validate_python(value)
            except ValidationError as error:
                yield path, words(error.errors(include_url=False)[0]), None


def _converted(name: str, factory: Callable[..., Any], config: Resolved) -> Mapping[str, Any]:
    """Return the arguments as the types that the factory declares: numbers of texts."""
    hints = type_hints(factory)
    converted = {}
    for key, value in config.values.items():
        try:
            converted[key] = _adapter(hints[key]).validate_python(value) if key in hints else value
        except ValidationError as error:
            text = config.hide_text(words(error.errors(include_url=False)[0]))
            raise ConfigurationError(f"config of service {name!r}: {key}: {text}") from None
    return converted


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation)
    except PydanticUserError:  # a class of somebody's own
        return TypeAdapter(Any)


def _used(project: Project) -> set[str]:
    """Return the agents that other agents need."""
    named = {name for section in project.agents.values() for name in section.uses.values()}
    return named & project.agents.keys()


def _installed_services() -> list[Provider]:
    """Return the services of installed packages that no project file names."""
    return [
        Provider(
            point.name,
            point.load(),
            origin=f"entry point of {point.dist.name if point.dist else 'a package'}",
        )
        for point in installed(GROUP)
    ]
