"""Whether the work goes on: dead letters, leases and mailboxes that nobody takes over, sources that fell silent."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.cli.checks.finding import Finding, Result
from airflow_agentic.cli.deliveries import lease_ended_seconds
from airflow_agentic.cli.output import count, span
from airflow_agentic.messaging import DeliveryState
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.messaging.routing import UNROUTABLE
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


def unroutable(store: Store) -> Finding:
    """Count what led to nobody."""
    dead = store.bus.stats(UNROUTABLE).dead
    if not dead:
        return Finding(
            "routes",
            Result.OK,
            f"{count(len(store.bus.subscriptions()), 'subscription')}, nothing unroutable",
        )
    sample = store.bus.dead_letters(UNROUTABLE, limit=1)[0].message
    where = f", the oldest for {sample.address}" if sample else ""
    return Finding(
        "routes",
        Result.WARNING,
        f"{count(dead, 'message')} led to nobody{where}",
        "let somebody subscribe: in the project file, or `airflow agentic routes subscribe MAILBOX --topic PATTERN`; then "
        f"`airflow agentic dead-letters redrive --mailbox {UNROUTABLE} --reason TEXT` routes them anew",
    )


def unread(store: Store) -> Finding:
    """Look for mailboxes that subscribed to something and of which nobody ever took a message."""
    waiting: dict[str, int] = {}
    longest = 0.0
    subscribed = {each.mailbox for each in store.bus.subscriptions()}
    for stats in store.bus.mailboxes():
        oldest = stats.oldest_ready_seconds or 0.0
        taken = stats.leased or stats.done or stats.dead
        if stats.mailbox in subscribed and stats.claimable and not taken and oldest > ABANDONED_SECONDS:
            waiting[stats.mailbox] = stats.ready
            longest = max(longest, oldest)
    if not waiting:
        return Finding(
            "readers", Result.OK, "every mailbox that gets what is published has been read, or is empty"
        )
    return Finding(
        "readers",
        Result.WARNING,
        f"nobody ever took a message of these, for up to {span(longest)}: {_named(waiting)}",
        "run the agent or the DAG that reads it, or end what it subscribed to: in the project file, or with "
        f"`airflow agentic routes unsubscribe {next(iter(waiting))}`",
    )


def heartbeats(store: Store) -> Finding:
    """Look for sources whose next heartbeat is late."""
    known = store.bus.heartbeats()
    late = [beat for beat in known if beat.late]
    if not late:
        return Finding("heartbeats", Result.OK, f"{count(len(known), 'source')} known, none late")
    untold = sum(not beat.reported for beat in late)
    told = f"; of {untold:,} nobody was told" if untold else ""
    return Finding(
        "heartbeats",
        Result.WARNING,
        f"late: {_some([beat.source for beat in late])}{told}",
        "look at what should send them; `airflow agentic heartbeats list` shows since when",
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
    return Finding(
        "agents",
        Result.WARNING,
        f"stopped reporting without shutting down: {_some([status.name for status in lost])}",
        "look at the log of the task that ran it, and run it again (its messages come again when their leases "
        f"end); `airflow agentic agents describe {shlex.quote(lost[0].name)}` shows it",
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _named(counts: dict[str, int]) -> str:
    named = [f"{number:,} in {mailbox}" for mailbox, number in list(counts.items())[:_NAMED]]
    if len(counts) > _NAMED:
        named.append(f"and {count(len(counts) - _NAMED, 'more mailbox')}")
    return ", ".join(named)
