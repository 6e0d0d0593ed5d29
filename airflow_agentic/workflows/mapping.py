"""One agent for many items, and one that puts together what came of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, XComArg

from airflow_agentic.config.policies import Policy
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.operators.parsing import is_literal
from airflow_agentic.workflows.members import Agent, Member, agent_arguments, free_id, placed
from airflow_agentic.workflows.states import plain
from airflow_agentic.workflows.workflow import Workflow, grouped

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


def map_reduce(
    group_id: str,
    *,
    mapper: Agent,
    reducer: Member,
    items: Any = None,
    splitter: Member | None = None,
    task: Any = None,
    policy: str | Policy | None = None,
    **arguments: Any,
) -> Workflow:
    """Give each of many items to an agent, and all that came of them to another one.

    Args:
        group_id: Name of the task group.
        mapper: The agent for one item: a mapped task. Its map may say how many at once
            (``max_active_tis_per_dagrun``).
        reducer: Who gets the list of the mapper's results, in the order of the items. If there are no items, the list is
            empty.
        items: A list, or the output of a task that makes one.
        splitter: Instead of ``items``: an agent or task that makes the list of ``task``.
        task: What the splitter gets.
        policy: How the agents are guarded, in place of their own policies; a map may say another one.
        arguments: ``persistence`` of the durable runs in it; and as for any ``TaskGroup``.

    Returns:
        The task group; its output is the reducer's.

    Raises:
        ConfigurationError: There are neither items nor a splitter, or both; or the items are no list.
        UnknownAgent: There is no such agent.
    """
    _check(group_id, items, splitter, task)
    with grouped(group_id, policy, **arguments) as group:
        if splitter is not None:
            items = placed(group, splitter, task).output
        given = agent_arguments(mapper)
        given.setdefault("task_id", free_id(group, given["agent"]))
        mapped = RunAgentOperator.partial(**given).expand(task=items)
        collected = CollectOperator(task_id="collect", results=XComArg(mapped), trigger_rule="none_failed")
        reduced = placed(group, reducer, collected.output)
        collected >> reduced.node
    return group.ending_in(reduced.output)


def _check(group_id: str, items: Any, splitter: Any, task: Any) -> None:
    if (items is None) == (splitter is None):
        raise ConfigurationError(f"workflow {group_id!r}: give either items= or splitter=")
    if splitter is None and task is not None:
        raise ConfigurationError(f"workflow {group_id!r}: task= is for the splitter; the mapper gets items=")
    if items is not None and is_literal(items) and not (isinstance(items, list | tuple) and items):
        raise ConfigurationError(
            f"workflow {group_id!r}: items= must be a list with something in it, or the output of a task that makes one, "
            f"not {items!r:.100}"
        )


class CollectOperator(BaseOperator):
    """Makes one list of the results of a mapped task.

    Args:
        results: Its output.
    """

    template_fields: Collection[str] = ("results",)
    ui_color = "#e8f0fe"

    def __init__(self, *, results: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.results = results

    def execute(self, context: Context) -> list[Any]:  # noqa: ARG002  # Airflow's signature
        """Return the list; empty if there was nothing to map."""
        found = plain(self.results)
        return [] if found is None else list(found)
