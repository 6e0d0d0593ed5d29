"""Refuses DAGs that break the rules of the project file: Airflow asks it for every task that it parses.

Airflow loads this module when it starts, through the entry point group ``airflow.policy``. Without ``rules:`` in a
project file it lets everything pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.policies import hookimpl

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.definitions.mappedoperator import MappedOperator


@hookimpl
def task_policy(task: BaseOperator | MappedOperator) -> None:
    """Refuse a task that runs an agent and breaks a rule.

    Raises:
        AirflowClusterPolicyViolation: It breaks a rule; the DAG is not imported.
    """
    mapped: dict[str, Any] | None = getattr(task, "partial_kwargs", None)
    if not getattr(task.operator_class if mapped is not None else type(task), "runs_agents", False):
        return
    # Late: at Airflow's start nothing of this provider is needed.
    from airflow.exceptions import AirflowClusterPolicyViolation

    from airflow_agentic import runtime
    from airflow_agentic.config.rules import AgentUse, violations
    from airflow_agentic.errors import AgenticError

    agent = mapped.get("agent") if mapped is not None else getattr(task, "agent", None)
    # A task of a workflow may run several.
    agents = getattr(task, "several_agents", None) or (
        getattr(agent, "name", None) or getattr(agent, "agent_name", None) or _literal(agent),
    )
    retries, has_timeout = int(task.retries or 0), task.execution_timeout is not None
    try:
        project = runtime.project()
        uses = [AgentUse(name, retries, has_timeout) for name in agents]
        broken = list(dict.fromkeys(each for use in uses for each in violations(project, use)))
    except AgenticError as error:
        raise AirflowClusterPolicyViolation(str(error)) from error
    if broken:
        raise AirflowClusterPolicyViolation(
            f"task {task.task_id!r} breaks the rules of the project file: {'; '.join(broken)}"
        )


def _literal(agent: object) -> str | None:
    return agent if isinstance(agent, str) and "{{" not in agent else None
