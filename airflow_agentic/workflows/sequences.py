"""One after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_agentic.config.policies import Policy
from airflow_agentic.workflows.members import Member, placed, some
from airflow_agentic.workflows.workflow import Workflow, grouped


def sequence(
    group_id: str,
    members: Sequence[Member],
    *,
    task: Any = None,
    policy: str | Policy | None = None,
    **arguments: Any,
) -> Workflow:
    """Let agents work one after the other, each on what the one before it made.

    Args:
        group_id: Name of the task group.
        members: Agents or tasks, in order. An agent whose map has a ``task`` gets that instead.
        task: What the first one gets.
        policy: How the agents are guarded, in place of their own policies; a map may say another one.
        arguments: ``persistence`` of the durable runs in it; and as for any ``TaskGroup``.

    Returns:
        The task group; its output is the last one's.

    Raises:
        ConfigurationError: There is none.
        UnknownAgent: There is no such agent.
    """
    some(members, "members", group_id)
    with grouped(group_id, policy, **arguments) as group:
        before = None
        for member in members:
            part = placed(group, member, task if before is None else before.output)
            if before is not None:
                before.node >> part.node
            before = part
    assert before is not None
    return group.ending_in(before.output)
