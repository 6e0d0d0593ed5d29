"""The highest layer: what an operator, the params of a DAG and ``dag_run.conf`` say about the configuration of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.project import Project
from airflow_agentic.config.references import has_reference
from airflow_agentic.config.sources import OverridesSource
from airflow_agentic.config.tree import Node, Origin, Path, dotted, merged, planted
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
    told = [(path, leaf, _refusal(project, path, leaf)) for path, leaf in root.values() if path]
    return [
        ConfigFault(None, None, dotted(path), *refusal, leaf.origin.source)
        for path, leaf, refusal in told
        if refusal
    ]


def _refusal(project: Project, path: Path, leaf: Node) -> tuple[str, str] | None:
    """Return why run time may not set a value, and what to do; ``None`` if it may."""
    if path[0] == "agents" and len(path) >= 2 and path[1] not in project.agents:
        near = did_you_mean(str(path[1]), project.agents)
        return f"there is no agent {path[1]!r}", near or "agents.NAME.config.KEY"
    if path[0] != "agents" or len(path) < 4 or path[2] != "config":
        return "run time may set keys of agents' config only", "agents.NAME.config.KEY"
    key, allowed = dotted(path[3:]), project.agents[str(path[1])].overridable
    if not any(key == one or key.startswith(f"{one}.") for one in allowed):
        hint = f"declare it: agents.{path[1]}.overridable: [{key}]"
        return "run time may set only what is declared overridable", hint
    if not leaf.deletes and has_reference(leaf.plain()):
        # Or whoever may start a run could read every secret that the workers can.
        return "run time may not refer to what is kept elsewhere", "give the value itself"
    return None
