"""Who takes part in a workflow: an agent, or any task."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from airflow.sdk import BaseOperator, TaskGroup, XComArg
from airflow.sdk.definitions.mappedoperator import MappedOperator

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.registry import AgentDefinition
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.workflows.workflow import Workflow

Agent: TypeAlias = str | AgentDefinition | type[BaseAgent[Any, Any]] | Mapping[str, Any]
"""An agent: its name, what ``@agent`` made, or a map of the arguments of ``RunAgentOperator``."""

Member: TypeAlias = Agent | BaseOperator | MappedOperator | XComArg | Workflow | Callable[[Any], Any]
"""An agent; a task that is there already; or what makes one of the value that it gets.

The latter is a ``@task`` function, or any function of one argument that returns an operator, its output, or a workflow:
``lambda task: parallel("vote", ["ann", "ben"], task=task)``.
"""

_NO_ID = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True)
class Part:
    """A member in its place.

    Attributes:
        name: What it is called in the workflow.
        node: Its task, or group of tasks.
        output: Its result.
    """

    name: str
    node: BaseOperator | MappedOperator | TaskGroup
    output: XComArg

    @property
    def ends_with(self) -> str:
        """Id of the task that says how it went."""
        return str(self.output.operator.task_id)  # type: ignore[attr-defined]  # of every output of a task

    @property
    def begins_with(self) -> str:
        """Id of the task, or group of tasks, that begins it."""
        return str(self.node.node_id)


def placed(group: TaskGroup, member: Member, task: Any = None, **arguments: Any) -> Part:
    """Give a member its place in a group that is open.

    Args:
        group: The group.
        member: Who.
        task: What it gets.
        arguments: Of its operator, if it is an agent.

    Raises:
        ConfigurationError: It is no member.
        UnknownAgent: There is no such agent.
    """
    if isinstance(member, Workflow):
        return Part(_label(member.group_id), member, member.output)
    if isinstance(member, BaseOperator | MappedOperator):
        return Part(_label(member.task_id), member, XComArg(member))
    if isinstance(member, XComArg):
        operator = member.operator  # type: ignore[attr-defined]
        return Part(_label(operator.task_id), operator, member)
    if is_agent(member):
        given = {"task": task, **arguments, **agent_arguments(member)}
        if "mailbox" in given:
            del given["task"]
        given.setdefault("task_id", free_id(group, given["agent"]))
        operator = RunAgentOperator(**given)
        return Part(_label(operator.task_id), operator, operator.output)
    if not callable(member):
        raise ConfigurationError(
            f"{member!r} cannot be a part of workflow {group.group_id!r}: give an agent's name, a map of RunAgentOperator's "
            "arguments, a task, or a function that makes one"
        )
    made = member(task)
    if not isinstance(made, Workflow | BaseOperator | MappedOperator | XComArg):
        raise ConfigurationError(
            f"{getattr(member, '__name__', member)!r} in workflow {group.group_id!r} must return a task, its output or a "
            f"workflow, and returned {type(made).__name__}. A plain function becomes a task with @task, an agent with @agent"
        )
    return placed(group, made)


def is_agent(member: Any) -> bool:
    """Whether a member is an agent, and no other task."""
    # A definition can be called too.
    return isinstance(member, str | AgentDefinition | Mapping) or (
        isinstance(member, type) and issubclass(member, BaseAgent)
    )


def agent_arguments(member: Any) -> dict[str, Any]:
    """Return what is said of an agent, as arguments of its operator.

    Raises:
        ConfigurationError: The map names no agent.
    """
    if not isinstance(member, Mapping):
        return {"agent": member}
    if not member.get("agent"):
        raise ConfigurationError(f"{dict(member)!r} names no agent: write {{'agent': 'NAME', …}}")
    return dict(member)


def agent_name(agent: Any) -> str:
    """Return an agent's name, whatever it was given as."""
    name = (
        getattr(agent, "name", None) or vars(agent).get("agent_name") if not isinstance(agent, str) else agent
    )
    return str(name or getattr(agent, "__name__", agent))


def free_id(group: TaskGroup, agent: Any) -> str:
    """Return a task id for an agent that is free in a group: ``writer``, ``writer_2``."""
    name = agent_name(agent).rpartition(":")[2]
    base = _NO_ID.sub("_", name)
    found, count = base, 1
    while group.child_id(found) in group.children:
        count += 1
        found = f"{base}_{count}"
    return found


def some(members: Collection[Any], what: str, group_id: str, at_least: int = 1) -> None:
    """Refuse a workflow with too few members.

    Raises:
        ConfigurationError: There are too few, or it is one text.
    """
    if isinstance(members, str):
        raise ConfigurationError(f"workflow {group_id!r}: {what} must be a list, as in [{members!r}]")
    if len(members) < at_least:
        raise ConfigurationError(
            f"workflow {group_id!r} needs at least {at_least} of {what}, and has {len(members)}"
        )


def _label(node_id: str | None) -> str:
    return str(node_id).rpartition(".")[2]
