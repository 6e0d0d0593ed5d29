"""Agents made of a typed function."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, get_type_hints

from pydantic import BaseModel

from airflow_agentic.agents.base import BaseAgent, NoConfiguration
from airflow_agentic.agents.context import AgentContext
from airflow_agentic.agents.status import AgentStore
from airflow_agentic.errors import ConfigurationError


class FunctionAgent(BaseAgent[Any, Any]):
    """An agent whose ``process`` is a function ``f(task)`` or ``f(task, ctx)``.

    The annotations of the task and of the return value are its input and output types; without one, any JSON.

    Args:
        function: What it does.
        name: What it is resolved by; default the function's name with dashes.
        config: Values for ``config_model``.
        store: Where state and numbers are kept.
        config_model: Model of the configuration, found in ``ctx.config``.

    Raises:
        ConfigurationError: The function is async, or does not take one or two positional arguments.
    """

    config_model: ClassVar[type[BaseModel]] = NoConfiguration

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        config: Mapping[str, Any] | BaseModel | None = None,
        store: AgentStore | None = None,
        config_model: type[BaseModel] | None = None,
    ) -> None:
        self._function = function
        self._takes_context = _arity(function) == 2
        if config_model is not None:
            self.config_model = config_model  # type: ignore[misc]  # each function may have its own model
        super().__init__(name or function_name(function), config, store)

    def process(self, task: Any, ctx: AgentContext) -> Any:
        """Call the function."""
        return self._function(task, ctx) if self._takes_context else self._function(task)

    def _types(self) -> tuple[Any, Any]:
        hints = _hints(self._function)
        parameters = list(inspect.signature(self._function).parameters)
        return hints.get(parameters[0], Any), hints.get("return", Any)

    def _description(self) -> str:
        return (inspect.getdoc(self._function) or "").split("\n\n")[0]


def function_name(function: Callable[..., Any]) -> str:
    """Return the default agent name of a function: ``audit_licence`` becomes ``audit-licence``."""
    return str(getattr(function, "__name__", type(function).__name__)).replace("_", "-")


def _arity(function: Callable[..., Any]) -> int:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) not in (1, 2) or any(p.kind not in positional for p in parameters):
        raise ConfigurationError(
            f"{function_name(function)!r} cannot be an agent: it must take (task) or (task, ctx), "
            f"and takes {inspect.signature(function)}"
        )
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(f"{function_name(function)!r} cannot be an agent: its function is async")
    return len(parameters)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    if isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    try:
        hints = get_type_hints(function, localns=_closure(function), include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"a type in the signature of agent {function_name(function)!r} cannot be found: {error}. "
            "Define or import it at module level."
        ) from None
    if hints.get("return") is type(None):
        hints["return"] = None
    return hints


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    """Names that only exist where the function was defined, as in a DAG function."""
    found: dict[str, Any] = {}
    if inspect.isfunction(function):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # not set yet: a function that calls itself
                found[name] = cell.cell_contents
    return found
