"""The rules of a project that every DAG must keep to."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.project import Project


@dataclass(frozen=True)
class AgentUse:
    """How a DAG runs an agent.

    Attributes:
        agent: Its name; ``None`` if it is filled in only when the task runs.
        retries: Of the task.
        has_timeout: Whether the task has an ``execution_timeout``.
    """

    agent: str | None
    retries: int
    has_timeout: bool


def violations(project: Project, use: AgentUse) -> list[str]:
    """Return what a task does not keep to, each with what to do about it; empty if all is well."""
    rules = project.rules
    found = []
    if rules.declared_agents_only and use.agent is None:
        found.append(
            "declared_agents_only: the agent is filled in when the task runs; give its name in the DAG"
        )
    elif rules.declared_agents_only and use.agent not in project.agents:
        near = (
            did_you_mean(str(use.agent), project.agents)
            or f"declare it: agents: {{{use.agent}: {{type: …}}}}"
        )
        found.append(f"declared_agents_only: the project file declares no agent {use.agent!r} ({near})")
    section = None if use.agent is None else project.agents.get(use.agent)
    if rules.require_policy and use.agent is None:
        found.append("require_policy: the agent is filled in when the task runs; give its name in the DAG")
    elif rules.require_policy and (section is None or section.policy is None):
        found.append(
            f"require_policy: agent {use.agent!r} has none; say agents.{use.agent}.policy in the project file"
        )
    if rules.require_execution_timeout and not use.has_timeout:
        found.append("require_execution_timeout: give the task an execution_timeout=timedelta(…)")
    if use.retries < rules.min_retries:
        found.append(f"min_retries: the task has retries={use.retries}; give it at least {rules.min_retries}")
    return found
