"""Whether the work goes on: dead letters, leases that nobody takes over, agents that fell silent."""

from __future__ import annotations

import shlex
from collections import Counter
from datetime import UTC, datetime

from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.cli.checks.finding import Finding, Result
from airflow_agentic.cli.deliveries import lease_ended_seconds
from airflow_agentic.cli.output import count, span
from airflow_agentic.messaging import DeliveryState
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores import Store

ABANDONED_SECONDS = 300.0
"""A lease that ended so long ago, or longer than a lease lasts, was not taken over: nobody reads the mailbox."""

_LIMIT = 10_000
_NAMED = 5


def dead_letters(store: Store) -> Finding:
    """Count what nobody could handle."""
    dead = {stats.mailbox: stats.dead for stats in store.bus.mailboxes() if stats.dead}
    if not dead:
        return Finding("dead letters", Result.OK, "none")
    return Finding(
        "dead letters",
        Result.WARNING,
        f"{count(sum(dead.values()), 'dead letter')}: {_named(dead)}",
        "`airflow agentic dead-letters list` shows them with their reasons",
    )


def leases(store: Store) -> Finding:
    """Look for leases that ended and were not taken over."""
    now = datetime.now(UTC)
    patience = max(ABANDONED_SECONDS, store.bus.options.lease.total_seconds())
    mailboxes = store.bus.mailboxes()
    ended = [
        record
        for stats in mailboxes
        if stats.expired
        for record in store.bus.find(
            DeliveryQuery(mailbox=stats.mailbox, states=(DeliveryState.LEASED,), limit=_LIMIT)
        )
        if lease_ended_seconds(record, now) > patience
    ]
    if not ended:
        held = sum(stats.leased - stats.expired for stats in mailboxes)
        return Finding("leases", Result.OK, f"{held:,} held, none abandoned")
    boxes = Counter(record.mailbox for record in ended)
    longest = span(max(lease_ended_seconds(record, now) for record in ended))
    return Finding(
        "leases",
        Result.WARNING,
        f"whoever held them is gone and nobody reads their mailbox, for up to {longest}: {_named(boxes)}",
        "run whatever reads the mailbox, its next receive takes them over; "
        f"`airflow agentic messages peek {boxes.most_common(1)[0][0]} --state leased` shows them",
    )


def agents(store: Store) -> Finding:
    """Look for agents whose last instance stopped reporting without shutting down."""
    known = store.agents.list()
    lost = [
        status for status in known if status.state is AgentState.FAILED and status.reason.startswith("lost:")
    ]
    if not lost:
        return Finding("agents", Result.OK, f"{count(len(known), 'agent')} known, none lost")
    names = ", ".join(status.name for status in lost[:_NAMED])
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return Finding(
        "agents",
        Result.WARNING,
        f"stopped reporting without shutting down: {names}{more}",
        "look at the log of the task that ran it, and run it again (its messages come again when their leases "
        f"end); `airflow agentic agents describe {shlex.quote(lost[0].name)}` shows it",
    )


def _named(counts: dict[str, int]) -> str:
    named = [f"{number:,} in {mailbox}" for mailbox, number in list(counts.items())[:_NAMED]]
    if len(counts) > _NAMED:
        named.append(f"and {count(len(counts) - _NAMED, 'more mailbox')}")
    return ", ".join(named)
