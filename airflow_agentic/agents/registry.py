"""Which agents there are, by name."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, overload

from pydantic import BaseModel, PydanticUndefinedAnnotation, PydanticUserError

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.configuration import NoConfiguration, declared_faults, validate
from airflow_agentic.agents.contracts import Contract, type_parameters
from airflow_agentic.agents.function import FunctionAgent, function_name, takes_context, task_types
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.config.injection.signatures import Need, needs_of
from airflow_agentic.config.loading import UnknownPath, installed, load
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.references import Resolved, has_reference
from airflow_agentic.config.tree import dotted
from airflow_agentic.errors import ConfigurationError, UnknownAgent

ENTRY_POINT_GROUP = "airflow_agentic.agents"

AgentClassT = TypeVar("AgentClassT", bound=type[BaseAgent[Any, Any]])


@dataclass(frozen=True)
class AgentDefinition:
    """How to make an agent of a name. Calling it calls the function or class it was made from.

    Attributes:
        name: What it is resolved by.
        target: The function or agent class.
        own_config_model: Model of a function agent's configuration; a class has its own.
    """

    name: str
    target: Callable[..., Any]
    own_config_model: type[BaseModel] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, without any lifecycle: what unit tests of the function want."""
        return self.target(*args, **kwargs)

    def create(
        self,
        config: Mapping[str, Any] | BaseModel | Resolved | None = None,
        store: AgentStore | None = None,
        supplied: Mapping[str, Any] | None = None,
    ) -> BaseAgent[Any, Any]:
        """Make an instance.

        Args:
            config: Its configuration.
            store: Where its state and numbers are kept.
            supplied: What it needs, by parameter; see :attr:`needs`.

        Raises:
            ConfigurationError: ``config`` does not fit, or something that it needs is not there.
        """
        things = {**{need.parameter: None for need in self.needs if need.or_none}, **(supplied or {})}
        for need in self.needs:
            if not need.optional and need.parameter not in things:
                raise ConfigurationError(
                    f"agent {self.name!r} needs {need}, and was made without it. RunAgentOperator provides what the "
                    "project file declares; a test gives it as run_agent(..., services={...})"
                )
        made = self._make(config, store, {key: things[key] for key in _names(self.constructor_needs, things)})
        made.equip({key: things[key] for key in _names(self.work_needs, things)})
        return made

    @property
    def agent_class(self) -> type[BaseAgent[Any, Any]] | None:
        """The class, if it is made of one."""
        return self.target if isinstance(self.target, type) and issubclass(self.target, BaseAgent) else None

    @property
    def config_model(self) -> type[BaseModel]:
        """Model of the configuration."""
        return self.agent_class.config_model if self.agent_class else self.own_config_model or NoConfiguration

    @cached_property
    def constructor_needs(self) -> tuple[Need, ...]:
        """What its constructor needs besides name, config and store."""
        return needs_of(self.agent_class, given=("name", "config", "store")) if self.agent_class else ()

    @cached_property
    def work_needs(self) -> tuple[Need, ...]:
        """What its ``process`` or function needs besides task and context."""
        if self.agent_class is not None:
            return needs_of(self.agent_class.process, skip=3)  # self, task, ctx
        return needs_of(self.target, skip=1 + takes_context(self.target))

    @property
    def needs(self) -> tuple[Need, ...]:
        """All that it needs; a parameter of both stands once."""
        return tuple({need.parameter: need for need in (*self.work_needs, *self.constructor_needs)}.values())

    def contract(self) -> Contract:
        """Return what it takes and gives, without making one.

        Raises:
            ConfigurationError: The function cannot be an agent, or nothing can be held against one of its types.
        """
        types = type_parameters(self.agent_class, BaseAgent) if self.agent_class else task_types(self.target)
        try:
            return Contract(self.name, *types)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            text = str(error).partition("\n")[0]
            raise ConfigurationError(
                f"the input or output type of agent {self.name!r} cannot be used: {text}"
            ) from error

    def check(self) -> None:
        """Read the signature as far as it can be read without making one.

        Raises:
            ConfigurationError: It cannot be an agent, or a type in its signature cannot be found.
        """
        self.contract()
        assert self.needs is not None

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Hold a configuration against the model; what depends on references is not judged.

        Raises:
            ConfigurationError: It does not fit.
        """
        if not has_reference(config):
            validate(self.name, self.config_model, config)
        elif found := [
            f"{dotted(path)}: {text}" for path, text, _ in declared_faults(self.config_model, config)
        ]:
            raise ConfigurationError(f"configuration of agent {self.name!r}: {'; '.join(found)}.")

    def _make(
        self,
        config: Mapping[str, Any] | BaseModel | Resolved | None,
        store: AgentStore | None,
        things: Mapping[str, Any],
    ) -> BaseAgent[Any, Any]:
        if self.agent_class is not None:
            return self.agent_class(name=self.name, config=config, store=store, **things)
        return FunctionAgent(self.target, self.name, config, store, self.own_config_model)

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
        return sorted({*self._known, *(point.name for point in installed(ENTRY_POINT_GROUP))})

    def find(self, name: str) -> AgentDefinition | None:
        """Return the agent that was registered here or is declared by an installed package, if there is one."""
        if name in self._known:
            return self._known[name]
        return next(
            (
                as_definition(point.load(), name)
                for point in installed(ENTRY_POINT_GROUP)
                if point.name == name
            ),
            None,
        )

    def resolve(self, name: str, declared: Iterable[str] = ()) -> AgentDefinition:
        """Find an agent: registered here, declared by an installed package, or by path.

        Args:
            name: Its name, ``package.module:Attribute`` or ``package.module.Attribute``.
            declared: Names that are known from elsewhere, for the error text.

        Raises:
            UnknownAgent: There is none; names the nearest one and how to register.
            ConfigurationError: What the name leads to is no agent.
        """
        if ":" in name and name not in self._known:
            return _from_path(name)
        found = self.find(name)
        if found is not None:
            return found
        if "." in name:  # a path, or a name with a dot in it that nobody knows
            with contextlib.suppress(UnknownAgent):
                return _from_path(name)
        known = sorted({*self.names(), *declared})
        near = did_you_mean(name, known)
        hint = f"{near[0].upper()}{near[1:]} " if near else ""
        raise UnknownAgent(
            f"there is no agent {name!r}. {hint}Known here: {', '.join(known) or 'none'}. Register it in the DAG file "
            f'or a module it imports with @agent("{name}"), declare it in the project file, or name it as '
            '"package.module:Attribute".'
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


def _names(needs: Iterable[Need], things: Mapping[str, Any]) -> list[str]:
    return [need.parameter for need in needs if need.parameter in things]


def _from_path(path: str) -> AgentDefinition:
    try:
        return as_definition(load(path))
    except UnknownPath as error:
        raise UnknownAgent(f"there is no agent {path!r}: {error}") from error
