"""Which agents there are, by name."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar, overload

from pydantic import BaseModel

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.function import FunctionAgent, function_name
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.errors import ConfigurationError, UnknownAgent

ENTRY_POINT_GROUP = "airflow_agentic.agents"

AgentClassT = TypeVar("AgentClassT", bound=type[BaseAgent[Any, Any]])


@dataclass(frozen=True)
class AgentDefinition:
    """How to make an agent of a name. Calling it calls the function or class it was made from.

    Attributes:
        name: What it is resolved by.
        target: The function or agent class.
        config_model: Model of a function agent's configuration.
    """

    name: str
    target: Callable[..., Any]
    config_model: type[BaseModel] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, without any lifecycle: what unit tests of the function want."""
        return self.target(*args, **kwargs)

    def create(
        self, config: Mapping[str, Any] | BaseModel | None = None, store: AgentStore | None = None
    ) -> BaseAgent[Any, Any]:
        """Make an instance.

        Raises:
            ConfigurationError: ``config`` does not fit.
        """
        if isinstance(self.target, type) and issubclass(self.target, BaseAgent):
            made: BaseAgent[Any, Any] = self.target(name=self.name, config=config, store=store)
            return made
        return FunctionAgent(self.target, self.name, config, store, self.config_model)

    @property
    def origin(self) -> tuple[str, str]:
        """File and qualified name: the same for a DAG file that is parsed again."""
        code = getattr(self.target, "__code__", None)
        module = getattr(self.target, "__module__", "")
        # Airflow may import one DAG file under two module names; the file is the same.
        where = code.co_filename if code else getattr(sys.modules.get(module), "__file__", None) or module
        return where, getattr(self.target, "__qualname__", repr(self.target))


class AgentRegistry:
    """Names and definitions of one process: a DAG file registers its agents when it is parsed or run."""

    def __init__(self) -> None:
        self._known: dict[str, AgentDefinition] = {}

    def register(self, definition: AgentDefinition) -> None:
        """Make an agent known.

        Raises:
            ConfigurationError: Another agent has that name.
        """
        present = self._known.get(definition.name)
        if present is not None and present.origin != definition.origin:
            both = " and ".join(f"{name} in {where}" for where, name in (present.origin, definition.origin))
            raise ConfigurationError(
                f"two agents are named {definition.name!r}: {both}; "
                'rename one of them: @agent("another-name")'
            )
        self._known[definition.name] = definition

    def names(self) -> list[str]:
        """Names of all agents known here, installed packages included."""
        return sorted({*self._known, *(point.name for point in _installed())})

    def resolve(self, name: str) -> AgentDefinition:
        """Find an agent: registered here, declared by an installed package, or ``package.module:Attribute``.

        Raises:
            UnknownAgent: There is none; names the nearest one and how to register.
            ConfigurationError: What the name leads to is no agent.
        """
        if name in self._known:
            return self._known[name]
        for point in _installed():
            if point.name == name:
                return as_definition(point.load(), name)
        if ":" in name:
            return _from_path(name)
        near = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        known = ", ".join(self.names()) or "none"
        raise UnknownAgent(
            f"there is no agent {name!r}. {hint}Known here: {known}. Register it in the DAG file or a module it "
            f'imports with @agent("{name}"), or name it as "package.module:Attribute".'
        )


registry = AgentRegistry()
"""The registry of this process."""


def as_definition(target: Any, name: str | None = None) -> AgentDefinition:
    """Return the definition of a definition, an agent class or a function.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(target, AgentDefinition):
        return target
    if isinstance(target, type) and issubclass(target, BaseAgent):
        return AgentDefinition(name or vars(target).get("agent_name") or target.__name__, target)
    if callable(target) and not isinstance(target, type):
        return AgentDefinition(name or function_name(target), target)
    raise ConfigurationError(f"{target!r} is no agent: give a BaseAgent class or a function of (task, ctx)")


@overload
def agent(name: AgentClassT) -> AgentClassT: ...
@overload
def agent(name: Callable[..., Any]) -> AgentDefinition: ...
@overload
def agent(name: str | None = None, *, config: type[BaseModel] | None = None) -> Callable[[Any], Any]: ...


def agent(name: Any = None, *, config: type[BaseModel] | None = None) -> Any:
    """Register a function or a ``BaseAgent`` class as an agent.

    ``@agent``, ``@agent("name")`` or ``@agent("name", config=Model)``. A function ``f(task)`` or ``f(task, ctx)``
    becomes an :class:`AgentDefinition`, which can still be called as the function; a class stays the class.

    Args:
        name: What it is resolved by; default the function's name with dashes, or the class's name.
        config: Model of a function agent's configuration, found in ``ctx.config``.

    Raises:
        ConfigurationError: Another agent has that name.
    """
    if name is not None and not isinstance(name, str):
        return agent()(name)

    def decorate(target: Any) -> Any:
        if isinstance(target, type):
            if config is not None:
                raise ConfigurationError(
                    f"{target.__name__}: a class says config_model = {config.__name__} itself"
                )
            target.agent_name = name or target.__name__  # type: ignore[attr-defined]
            registry.register(as_definition(target, name))
            return target
        definition = AgentDefinition(name or function_name(target), target, config)
        registry.register(definition)
        return definition

    return decorate


def _installed() -> Iterable[Any]:
    return entry_points(group=ENTRY_POINT_GROUP)


def _from_path(path: str) -> AgentDefinition:
    module, _, attribute = path.partition(":")
    try:
        return as_definition(getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UnknownAgent(f"there is no agent {path!r}: {error}") from error
