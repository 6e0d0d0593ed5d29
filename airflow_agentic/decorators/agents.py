"""``@task.agentic``: a typed function as an agent and a task at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from airflow_agentic.agents.registry import AgentDefinition, as_definition
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.operators.agents import RunAgentOperator

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator
    from airflow.sdk.definitions.context import Context


class AgenticDecoratedOperator(DecoratedOperator, RunAgentOperator):
    """Runs the decorated function as a :class:`FunctionAgent`.

    Args:
        python_callable: Stands for the function in TaskFlow calls; ``agent_definition`` on it is the agent.
        op_args: The task, unless the agent handles a mailbox.
        op_kwargs: The same by name.
    """

    template_fields: Sequence[str] = (
        "op_args",
        "op_kwargs",
        "mailbox",
        "config",
        "lease",
        "run_key",
        "agentic_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "op_args": "py",
        "op_kwargs": "py",
        "config": "json",
    }
    custom_operator_name = "@task.agentic"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Sequence[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._definition: AgentDefinition = python_callable.agent_definition  # type: ignore[attr-defined]
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs or {},
            agent=self._definition.name,
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Run the agent on what the function was called with."""
        arguments = [*self.op_args, *self.op_kwargs.values()]
        self.task = arguments[0] if arguments else None
        return RunAgentOperator.execute(self, context)

    def chosen(self) -> AgentDefinition:
        """Return the decorated function's definition; it needs no name in the registry."""
        return self._definition


def agentic_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Make an agent and a task of a function ``f(task)`` or ``f(task, ctx)``.

    The annotations are the agent's input and output types. ``f("…")`` in the DAG gives it a task; with
    ``@task.agentic(mailbox="…")`` it is called as ``f()`` and handles the messages of the mailbox.

    Args:
        python_callable: The function.
        multiple_outputs: As for ``@task``.
        kwargs: As for ``RunAgentOperator`` (``mailbox``, ``gather``, ``lease``, ``run_key``, …) and any operator. ``agent``
            sets the agent's name; default: the function's name with dashes.

    Raises:
        ConfigurationError: The function does not take one or two arguments.
    """
    if python_callable is not None:
        return _decorate(python_callable, multiple_outputs, kwargs)
    return lambda function: _decorate(function, multiple_outputs, kwargs)  # type: ignore[return-value]


def _decorate(
    function: Callable[..., Any], multiple_outputs: bool | None, kwargs: dict[str, Any]
) -> TaskDecorator:
    options = dict(kwargs)
    name = options.pop("agent", None)
    if "task" in options:
        raise ConfigurationError("@task.agentic takes the task when the function is called, not as task=")
    front = _front(function, as_definition(function, name), mailbox=options.get("mailbox") is not None)
    return task_decorator_factory(
        python_callable=front,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=AgenticDecoratedOperator,
        **options,
    )


def _front(function: Callable[..., Any], definition: AgentDefinition, *, mailbox: bool) -> Callable[..., Any]:
    """Stand for the function towards Airflow: its ``ctx`` is ours to give, and a mailbox gives the task."""

    @functools.wraps(function)
    def front(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    parameters = [] if mailbox else list(signature.parameters.values())[:1]
    front.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    front.agent_definition = definition  # type: ignore[attr-defined]
    return front
