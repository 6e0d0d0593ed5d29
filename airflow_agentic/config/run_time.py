"""The highest layer: what an operator, the params of a DAG and ``dag_run.conf`` say about the configuration of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.project import Project
from airflow_agentic.config.sources import OverridesSource
from airflow_agentic.config.tree import Node, Origin, dotted, merged, planted
from airflow_agentic.errors import ConfigFault, ProjectInvalid

KEY = "agentic"
"""Where params and ``dag_run.conf`` say it: ``{"agentic": {"agents": {"name": {"config": {"key": 1}}}}}``."""


def overlay(
    project: Project,
    agent: str,
    arguments: Mapping[str, Any] | None,
    asked: Mapping[str, Mapping[str, Any]],
) -> Node:
    """Return what run time says about the configuration of an agent.

    Args:
        project: What is declared.
        agent: Whose configuration.
        arguments: ``config=`` of the operator.
        asked: What others ask for, lower first: name of the source (``DAG params``, ``dag_run.conf``) to what it has
            under ``agentic``: nested maps, or dotted keys.

    Raises:
        ProjectInvalid: A key is set that is not declared overridable, or there is no such agent.
    """
    laid = planted(dict(arguments or {}), Origin("config= of the operator"))
    faults: list[ConfigFault] = []
    for name, values in asked.items():
        source = OverridesSource(values, project.root, name)
        faults += [*source.faults, *_forbidden(project, source.layer.root)]
        mine = source.layer.root.find(("agents", agent, "config"))
        if mine is not None:
            laid = merged(laid, mine)
    if faults:
        raise ProjectInvalid(faults)
    return laid


def _forbidden(project: Project, root: Node) -> list[ConfigFault]:
    faults = []
    for path, leaf in root.leaves():
        if not path:
            continue
        message, hint = "run time may set keys of agents' config only", "agents.NAME.config.KEY"
        if path[0] == "agents" and len(path) >= 2 and path[1] not in project.agents:
            message, hint = (
                f"there is no agent {path[1]!r}",
                did_you_mean(str(path[1]), project.agents) or hint,
            )
        elif path[0] == "agents" and len(path) >= 4 and path[2] == "config":
            key, allowed = dotted(path[3:]), project.agents[str(path[1])].overridable
            if any(key == one or key.startswith(f"{one}.") for one in allowed):
                continue
            message = "run time may set only what is declared overridable"
            hint = f"declare it: agents.{path[1]}.overridable: [{key}]"
        faults.append(ConfigFault(None, None, dotted(path), message, hint, leaf.origin.source))
    return faults
