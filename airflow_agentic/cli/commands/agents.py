"""``airflow agentic agents``: state and numbers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from airflow_agentic.agents.status import AgentStatus, PerformanceMetrics
from airflow_agentic.cli.access import opened
from airflow_agentic.cli.command import command
from airflow_agentic.cli.deliveries import nearest
from airflow_agentic.cli.output import count, exact, fields, iso, listing, pretty, shorten, single, span
from airflow_agentic.errors import UnknownAgent

_NAME_WIDTH = 60


@command
def list_agents(args: Namespace) -> None:
    """List the agents that ever reported to the store."""
    with opened(args) as store:
        found = store.agents.list()
    now = datetime.now(UTC)
    listing(args.output, [_brief(status) for status in found], [_row(status, now) for status in found])


@command
def describe_agent(args: Namespace) -> None:
    """Show all that is known of one agent."""
    with opened(args) as store:
        status = store.agents.get(args.name)
        if status is None:
            known = [other.name for other in store.agents.list()]
            raise UnknownAgent(
                f"no agent {args.name!r} ever reported to this store. {nearest(args.name, known)}"
            )
    now = datetime.now(UTC)
    single(args.output, _full(status), lambda: _lines(status, now))


def _brief(status: AgentStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "type": status.profile.agent_type,
        "state": str(status.state),
        "reason": status.reason,
        "agent_id": status.agent_id,
        "live_instances": status.live_instances,
        "metrics": {
            **asdict(status.metrics),
            "error_rate": status.metrics.error_rate,
            "mean_seconds": status.metrics.mean_seconds,
        },
        "updated_at": exact(status.updated_at),
    }


def _full(status: AgentStatus) -> dict[str, Any]:
    profile = status.profile
    return {
        **_brief(status),
        "description": profile.description,
        "configuration": profile.configuration,
        "input_schema": profile.input_schema,
        "output_schema": profile.output_schema,
    }


def _row(status: AgentStatus, now: datetime) -> dict[str, object]:
    metrics = status.metrics
    return {
        "name": shorten(status.name, _NAME_WIDTH),
        "type": shorten(status.profile.agent_type, _NAME_WIDTH),
        "state": status.state,
        "live": status.live_instances,
        "processed": metrics.processed,
        "failed": metrics.failed,
        "error rate": f"{metrics.error_rate:.1%}" if metrics.processed else "",
        "mean ms": _milliseconds(metrics.mean_seconds) if metrics.processed else "",
        "last seen": f"{span((now - status.updated_at).total_seconds())} ago",
    }


def _lines(status: AgentStatus, now: datetime) -> Iterator[str]:
    profile = status.profile
    seen = f"{iso(status.updated_at)} ({span((now - status.updated_at).total_seconds())} ago)"
    yield from fields(
        {
            "Name": status.name,
            "Type": profile.agent_type,
            "Description": profile.description or "(none)",
            "State": f"{status.state}: {status.reason}" if status.reason else status.state,
            "Live": count(status.live_instances, "instance"),
            "Instance": status.agent_id,
            "Last seen": seen,
        }
    )
    yield "Metrics"
    yield from fields(_numbers(status.metrics), "  ")
    for title, value in (
        ("Configuration", profile.configuration),
        ("Input schema", profile.input_schema),
        ("Output schema", profile.output_schema),
    ):
        yield title
        yield from pretty(value) if value else ["  (none)"]


def _numbers(metrics: PerformanceMetrics) -> dict[str, object]:
    return {
        "processed": f"{metrics.processed:,}",
        "succeeded": f"{metrics.succeeded:,} ({metrics.degraded:,} of them degraded)",
        "failed": f"{metrics.failed:,} ({metrics.error_rate:.1%})",
        "mean": f"{_milliseconds(metrics.mean_seconds)} ms",
        "longest": f"{_milliseconds(metrics.max_seconds)} ms",
        "total": span(metrics.total_seconds),
        "last error": metrics.last_error or "(none)",
    }


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"
