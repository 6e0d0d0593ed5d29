"""``airflow agentic policies``: how work is guarded, as the project declares it."""

from __future__ import annotations

import textwrap
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from airflow_agentic import runtime
from airflow_agentic.cli.command import command
from airflow_agentic.cli.deliveries import nearest
from airflow_agentic.cli.output import fields, listing, note, shorten, single
from airflow_agentic.cli.policies import ORDER, bounds, bounds_in_words, guards_in_short, refusals, steps
from airflow_agentic.config import Project
from airflow_agentic.config.policies import Policy
from airflow_agentic.config.tree import dotted
from airflow_agentic.errors import ConfigurationError

_WIDTH = 80
_INDENT = 11
_TEXT_WIDTH = 100


@command
def list_policies(args: Namespace) -> None:
    """List the declared policies, by name, and the agents that have them."""
    project = runtime.project()
    found = sorted(project.policies.items())
    listing(
        args.output,
        [_data(project, name, policy) for name, policy in found],
        [_row(project, name, policy) for name, policy in found],
    )
    if not found:
        note("no policy is declared: write it under policies: in the project file")


@command
def explain_policy(args: Namespace) -> None:
    """Say what a policy does to a call."""
    project = runtime.project()
    policy = project.policies.get(args.policy)
    if policy is None:
        raise ConfigurationError(
            f"there is no policy {args.policy!r} in the project. {nearest(args.policy, project.policies)}"
        )
    found = steps(policy, project.budgets)
    data = {
        **_data(project, args.policy, policy),
        "order": [
            {"guard": step.guard, "says": list(step.says), "figures": dict(step.figures)} for step in found
        ],
        "refusals": list(refusals(policy)),
        "bounds": bounds(policy),
    }
    single(args.output, data, lambda: _lines(project, args.policy, policy))


def _data(project: Project, name: str, policy: Policy) -> dict[str, Any]:
    return {
        "name": name,
        "description": policy.description,
        "source": _source(project, name),
        "agents": _agents(project, name),
        "settings": policy.model_dump(mode="json", exclude_unset=True, exclude={"description"}),
    }


def _row(project: Project, name: str, policy: Policy) -> dict[str, object]:
    return {
        "policy": name,
        "guards": shorten(", ".join(guards_in_short(policy)) or "(none)", _WIDTH),
        "agents": shorten(", ".join(_agents(project, name)), _WIDTH),
        "declared at": _source(project, name),
    }


def _source(project: Project, name: str) -> str:
    node = project.root.find(("policies", name))
    return dotted(("policies", name)) if node is None else node.origin.source


def _agents(project: Project, name: str) -> list[str]:
    return [agent for agent, section in project.agents.items() if section.policy == name]


def _with_budgets(project: Project, name: str) -> Iterator[str]:
    """Yield the agents that have a policy; a budget of their own takes the place of the policy's."""
    for agent in _agents(project, name):
        budget = project.agents[agent].budget
        yield f"{agent} (budget {budget})" if budget else agent


def _lines(project: Project, name: str, policy: Policy) -> Iterator[str]:
    yield from fields(
        {
            "Policy": f"{name}: {policy.description}" if policy.description else name,
            "Declared at": _source(project, name),
            "Agents": ", ".join(_with_budgets(project, name)) or "(none; operators may name it)",
        }
    )
    found = steps(policy, project.budgets)
    yield "A call goes through these, from the top down"
    for step in found:
        texts = [line for text in step.says for line in textwrap.wrap(text, _TEXT_WIDTH)]
        for number, text in enumerate(texts):
            yield f"  {'' if number else step.guard:<{_INDENT}}{text}"
    if not found:
        yield "  (nothing guards it)"
    missing = [guard for guard in ORDER if guard not in {step.guard for step in found}]
    if missing:
        yield f"  {'without':<{_INDENT}}{', '.join(missing)}"
    if told := list(refusals(policy)):
        yield "When breaker, limits, bulkhead or budget refuse"
        yield from (f"  {text}" for text in told)
    yield "In the worst case"
    yield from (f"  {text}" for text in bounds_in_words(policy))
