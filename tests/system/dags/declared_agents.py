"""The agents of the workflow that is declared in ``agentic.tests.yaml``."""

from __future__ import annotations

from typing import Any

from outside import effect

from airflow_agentic.agents import AgentContext


def triage(task: dict[str, Any]) -> str:
    """Say what kind of ticket it is."""
    return str(task["kind"])


def refund(task: dict[str, Any], ctx: AgentContext) -> str:
    """Refund it, once."""
    ctx.step("refund", effect, ctx, f"refund {task['number']}")
    return f"refunded {task['number']}"


def look_at(task: dict[str, Any]) -> str:
    """Look at a bug."""
    return f"looked at {task['number']}"
