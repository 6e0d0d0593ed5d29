"""State and numbers of named agents on a SQL database."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.agents.status import (
    KEPT_INSTANCES,
    AgentProfile,
    AgentStatus,
    Instance,
    PerformanceMetrics,
    summarise,
)
from airflow_agentic.stores.sql.clock import from_ms, to_ms
from airflow_agentic.stores.sql.database import SqlDatabase
from airflow_agentic.stores.sql.dialects import Dialect

_REGISTER = """
    INSERT INTO agentic_agent (name, agent_type, description, configuration, input_schema, output_schema)
    VALUES (:name, :agent_type, :description, :configuration, :input_schema, :output_schema)
    ON CONFLICT (name) DO UPDATE SET agent_type = excluded.agent_type, description = excluded.description,
        configuration = excluded.configuration, input_schema = excluded.input_schema,
        output_schema = excluded.output_schema"""


@dataclass(frozen=True)
class _Statements:
    forget: str
    add_instance: str
    report: str
    count: str
    read: str


@functools.cache
def _statements_of(dialect: Dialect) -> _Statements:
    now = dialect.now
    return _Statements(
        forget=f"""
    DELETE FROM agentic_agent_instance WHERE agent_id IN (
        SELECT agent_id FROM agentic_agent_instance
        WHERE name = :name AND (state = 'shutdown' OR alive_until < {now})
        ORDER BY updated_at DESC {dialect.no_limit} OFFSET :kept)""",
        add_instance=f"""
    INSERT INTO agentic_agent_instance (agent_id, name, state, owner, updated_at, alive_until)
    VALUES (:agent_id, :name, 'initialized', :owner, {now}, {now} + :alive)""",
        report=f"""
    UPDATE agentic_agent_instance SET state = :state, reason = :reason, updated_at = {now},
        alive_until = {now} + :alive
    WHERE agent_id = :agent_id""",
        count=f"""
    UPDATE agentic_agent SET processed = processed + :processed, succeeded = succeeded + :succeeded,
        failed = failed + :failed, degraded = degraded + :degraded,
        total_seconds = total_seconds + :total_seconds,
        max_seconds = {dialect.greatest}(max_seconds, :max_seconds),
        last_error = coalesce(:last_error, last_error)
    WHERE name = (SELECT name FROM agentic_agent_instance WHERE agent_id = :agent_id)""",
        read=f"""
    SELECT a.*, i.agent_id, i.state, i.reason, i.owner, i.updated_at, i.alive_until, {now} AS now
    FROM agentic_agent a JOIN agentic_agent_instance i ON i.name = a.name
    WHERE CAST(:name AS TEXT) IS NULL OR a.name = :name""",
    )


class SqlAgentStore:
    """Implements :class:`airflow_agentic.agents.status.AgentStore`.

    Args:
        database: Where.
    """

    def __init__(self, database: SqlDatabase) -> None:
        self._db = database
        self._sql = _statements_of(database.dialect)

    def register(self, agent_id: str, profile: AgentProfile, owner: str, alive_for: timedelta) -> None:
        """See the port."""
        values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in asdict(profile).items()}
        with self._db.transaction():
            self._db.execute(_REGISTER, values)
            self._db.execute(self._sql.forget, {"name": profile.name, "kept": KEPT_INSTANCES})
            self._db.execute(
                self._sql.add_instance,
                {"agent_id": agent_id, "name": profile.name, "owner": owner, "alive": to_ms(alive_for)},
            )

    def report(
        self,
        agent_id: str,
        state: AgentState,
        reason: str,
        *,
        add: PerformanceMetrics,
        alive_for: timedelta,
    ) -> None:
        """See the port."""
        values = {"agent_id": agent_id, "state": str(state), "reason": reason, "alive": to_ms(alive_for)}
        with self._db.transaction():
            self._db.execute(self._sql.report, values)
            if add != PerformanceMetrics():
                self._db.execute(self._sql.count, {**asdict(add), "agent_id": agent_id})

    def get(self, name: str) -> AgentStatus | None:
        """See the port."""
        return next(iter(self._read(name)), None)

    def list(self) -> Sequence[AgentStatus]:
        """See the port."""
        return self._read(None)

    def _read(self, name: str | None) -> Sequence[AgentStatus]:
        by_name: dict[str, list[Any]] = {}
        for row in self._db.fetch(self._sql.read, {"name": name}, again=True):
            by_name.setdefault(row.name, []).append(row)
        # Sorted here: each database sorts text in its own way.
        return [_status(rows) for _, rows in sorted(by_name.items())]


def _status(rows: list[Any]) -> AgentStatus:
    first = rows[0]
    profile = AgentProfile(
        name=first.name,
        agent_type=first.agent_type,
        description=first.description,
        configuration=json.loads(first.configuration),
        input_schema=json.loads(first.input_schema),
        output_schema=json.loads(first.output_schema),
    )
    numbers = {key: getattr(first, key) for key in asdict(PerformanceMetrics())}
    instances = [
        Instance(
            agent_id=row.agent_id,
            state=AgentState(row.state),
            reason=row.reason,
            owner=row.owner,
            updated_at=from_ms(row.updated_at),
            alive_until=from_ms(row.alive_until),
        )
        for row in rows
    ]
    return summarise(profile, PerformanceMetrics(**numbers), instances, from_ms(first.now))
