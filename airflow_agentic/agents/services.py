"""The services of a project as things that agents need; an agent may be such a thing as well."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.contracts import faults
from airflow_agentic.agents.registry import AgentDefinition
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.config.container import Provider, Services
from airflow_agentic.config.flags import Flags
from airflow_agentic.config.loading import UnknownPath, load
from airflow_agentic.config.model import ServiceSection
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.project import Project
from airflow_agentic.config.references import NoReferences, Resolved, SecretResolver, has_reference
from airflow_agentic.config.signatures import type_hints
from airflow_agentic.config.tree import Path
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging.bus import MessageBus
from airflow_agentic.observability import Metrics

GROUP = "airflow_agentic.services"
"""Entry points: factories of services, by the name that a project file gives as ``type:``, or without any file."""

OF_A_RUN: tuple[Any, ...] = (MessageBus, AgentStore)
OF_THE_PROCESS: tuple[Any, ...] = (Project, Flags, Metrics, SecretResolver)
"""Types that agents and services may need and that the provider itself brings."""


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
    declared = {provider.name for provider in providers}
    providers += [
        Provider(
            point.name,
            point.load(),
            origin=f"entry point of {point.dist.name if point.dist else 'a package'}",
        )
        for point in _installed()
        if point.name not in declared
    ]
    # Only these: the code of all other agents need not be imported.
    wanted = {name for section in project.agents.values() for name in section.uses.values()} & set(
        project.agents
    )
    providers += [_agent(project, name, implementation(name), resolver) for name in sorted(wanted)]
    return Services(providers, OF_A_RUN, OF_THE_PROCESS)


def service_faults(project: Project, agents: Mapping[str, AgentDefinition]) -> Iterator[tuple[Any, ...]]:
    """Yield what is wrong with services and with what agents need: path, message, suggestion."""
    broken = False
    for name, section in project.services.items():
        try:
            provider = _service(project, name, section, NoReferences())
        except ConfigurationError as error:
            broken = True
            yield ("services", name, "type"), str(error), None
            continue
        yield from _arguments(name, section, provider.factory)
    if broken:
        return  # what is missing would be told again for each agent that needs it
    if any(
        name not in agents
        for section in project.agents.values()
        for name in section.uses.values()
        if name in project.agents
    ):
        return
    services = services_of(project, agents.__getitem__)
    for name, fault in services.check_all():
        if name in project.services:
            yield ("services", name), *_advice(fault)
    for name, definition in agents.items():
        for fault in services.check(f"agent {name!r}", definition.needs, project.agents[name].uses):
            if f"service '{name}'" not in fault.partition(" needs ")[0]:
                yield ("agents", name), *_advice(fault)


def _service(project: Project, name: str, section: ServiceSection, resolver: SecretResolver) -> Provider:
    factory = _factory(name, section)
    try:
        provides = load(section.provides) if section.provides else None
    except UnknownPath as error:
        raise ConfigurationError(f"provides: {error}") from None
    node, _ = project.root.nearest(("services", name))
    return Provider(
        name,
        factory,
        provides,
        section.scope,
        section.uses,
        arguments=lambda: _converted(name, factory, Resolved(section.config, resolver)),
        argument_names=frozenset(section.config),
        origin=node.origin.source,
    )


def _factory(name: str, section: ServiceSection) -> Callable[..., Any]:
    wanted = section.type or name
    for point in _installed():
        if point.name == wanted:
            found: Callable[..., Any] = point.load()
            return found
    if "." not in wanted and ":" not in wanted:
        near = did_you_mean(wanted, [point.name for point in _installed()])
        hint = near or 'give type: "package.module:factory"'
        raise ConfigurationError(f"no installed package declares a service {wanted!r}; {hint}")
    try:
        factory: Any = load(wanted)
    except UnknownPath as error:
        raise ConfigurationError(str(error)) from None
    if not callable(factory):
        raise ConfigurationError(f"{wanted!r} is no class or function, and makes no service")
    return factory  # type: ignore[no-any-return]  # callable, and more is not known


def _agent(project: Project, name: str, definition: AgentDefinition, resolver: SecretResolver) -> Provider:
    """Return how an agent is made that another one needs; it is shut down with the scope."""

    def make(**things: Any) -> Iterator[BaseAgent[Any, Any]]:
        store = things.pop("store")
        agent = definition.create(Resolved(project.agents[name].config, resolver), store, things)
        try:
            yield agent
        finally:
            agent.shutdown("the agent that needed it ended")

    needs = {need.parameter: need for need in definition.needs}
    keyword, required = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    parameters = [inspect.Parameter("store", keyword)]
    parameters += [
        inspect.Parameter(key, keyword, default=None if need.optional else required)
        for key, need in needs.items()
    ]
    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    make.__annotations__ = {"store": AgentStore, **{key: need.type for key, need in needs.items()}}
    node, _ = project.root.nearest(("agents", name))
    return Provider(
        name,
        make,
        definition.agent_class or BaseAgent,
        uses=project.agents[name].uses,
        origin=node.origin.source,
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
                yield path, faults(error).removeprefix("value: "), None


def _converted(name: str, factory: Callable[..., Any], config: Resolved) -> Mapping[str, Any]:
    """Return the arguments as the types that the factory declares: numbers of texts."""
    hints = type_hints(factory)
    converted = {}
    for key, value in config.values.items():
        try:
            converted[key] = _adapter(hints[key]).validate_python(value) if key in hints else value
        except ValidationError as error:
            text = config.hide_text(faults(error).removeprefix("value: "))
            raise ConfigurationError(f"config of service {name!r}: {key}: {text}") from None
    return converted


def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation)
    except PydanticSchemaGenerationError:  # a class of somebody's own
        return TypeAdapter(Any)


def _advice(fault: str) -> tuple[str, str | None]:
    """Split off what to do about a fault."""
    text, dot, advice = fault.partition(". ")
    return (text, advice) if dot else (fault, None)


@cache
def _installed() -> tuple[Any, ...]:
    return tuple(entry_points(group=GROUP))
