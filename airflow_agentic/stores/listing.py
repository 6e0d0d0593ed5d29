"""Which heads of runs a query asks for, where no database says it."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_agentic.persistence.ports import RunHead, RunQuery


def matches(head: RunHead, query: RunQuery) -> bool:
    """Whether a query asks for a run."""
    return (
        (query.streams is None or head.stream in query.streams)
        and head.stream.startswith(query.prefix)
        and query.agent in (None, head.agent)
        and (not query.statuses or head.status in query.statuses)
        and query.correlation in (None, head.correlation)
        and (query.after is None or _order(head.place) > _order(query.after))
    )


def newest(heads: Iterable[RunHead]) -> list[RunHead]:
    """Return runs in the order of listings: what was written last comes first."""
    return sorted(heads, key=lambda head: _order(head.place))


def _order(place: tuple[int, str]) -> tuple[int, str]:
    at, stream = place
    return -at, stream
