"""Agents made of a typed function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.configuration import NoConfiguration
from airflow_agentic.agents.context import AgentContext
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.config.injection.signatures import type_hints
from airflow_agentic.config.references import Resolved
from airflow_agentic.errors import ConfigurationError


class FunctionAgent(BaseAgent[Any, Any]):
    """An agent whose ``process`` is a function ``f(task)`` or ``f(task, ctx)``.

    The annotations of the task and of the return value are its input and output types; without one, any JSON.
    Parameters after these are what it needs, by type: ``f(task, ctx, index: SearchIndex)``.

    Args:
        function: What it does.
        name: What it is resolved by; default the function's name with dashes.
        config: Values for ``config_model``.
        store: Where state and numbers are kept.
        config_model: Model of the configuration, found in ``ctx.config``.

    Raises:
        ConfigurationError: The function is async, or does not take a task.
    """

    config_model: ClassVar[type[BaseModel]] = NoConfiguration

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        config: Mapping[str, Any] | BaseModel | Resolved | None = None,
        store: AgentStore | None = None,
        config_model: type[BaseModel] | None = None,
    ) -> None:
        self._function = function
        self._takes_context = takes_context(function)
        if config_model is not None:
            self.config_model = config_model  # type: ignore[misc]  # each function may have its own model
        super().__init__(name or function_name(function), config, store)

    def process(self, task: Any, ctx: AgentContext, **things: Any) -> Any:
        """Call the function with the task, the context if it takes one, and the things that it needs."""
        given = (task, ctx) if self._takes_context else (task,)
        return self._function(*given, **things)

    def _types(self) -> tuple[Any, Any]:
        return task_types(self._function)

    def _description(self) -> str:
        return (inspect.getdoc(self._function) or "").split("\n\n")[0]


def function_name(function: Callable[..., Any]) -> str:
    """Return the default agent name of a function: ``audit_licence`` becomes ``audit-licence``."""
    return str(getattr(function, "__name__", type(function).__name__)).replace("_", "-")


def takes_context(function: Callable[..., Any]) -> bool:
    """Whether the second parameter of an agent's function is the context.

    It is if it is annotated as :class:`AgentContext` or not at all, or is called ``ctx``; any other is something that
    the function needs. Parameters after these two, and those that are given by keyword only, are needs as well.

    Raises:
        ConfigurationError: The function is async, or does not take a task by position.
    """
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    untyped = [p for p in parameters[2:] if p.annotation is p.default is inspect.Parameter.empty]
    untyped += [p for p in parameters[1:2] if p.kind not in positional and p.annotation is p.default]
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    takes_task = bool(parameters) and parameters[0].kind in positional
    if not takes_task or untyped or any(p.kind in collecting for p in parameters):
        raise ConfigurationError(
            f"{function_name(function)!r} cannot be an agent: it must take (task), (task, ctx) and after these what "
            f"it needs, each with its type; it takes {signature}"
        )
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"{function_name(function)!r} cannot be an agent: its function is async")
    if len(parameters) < 2 or parameters[1].kind not in positional:
        return False
    second = parameters[1]
    if second.name == "ctx" or second.annotation is inspect.Parameter.empty:
        return True
    return type_hints(function)[second.name] in (AgentContext, Any)


def task_types(function: Callable[..., Any]) -> tuple[Any, Any]:
    """Return the input and output types of an agent's function; ``Any`` where nothing is annotated.

    Raises:
        ConfigurationError: The function cannot be an agent.
    """
    takes_context(function)
    hints = type_hints(function)
    first = next(iter(inspect.signature(function).parameters))
    return hints.get(first, Any), hints.get("return", Any)
