"""State and numbers of named agents on SQLite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
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
from airflow_agentic.stores.sql.clock import NOW, from_ms, to_ms
from airflow_agentic.stores.sql.database import SqlDatabase

_REGISTER = """
    INSERT INTO agentic_agent (name, agent_type, description, configuration, input_schema, output_schema)
    VALUES (:name, :agent_type, :description, :configuration, :input_schema, :output_schema)
    ON CONFLICT (name) DO UPDATE SET agent_type = excluded.agent_type, description = excluded.description,
        configuration = excluded.configuration, input_schema = excluded.input_schema,
        output_schema = excluded.output_schema"""

_FORGET = f"""
    DELETE FROM agentic_agent_instance WHERE agent_id IN (
        SELECT agent_id FROM agentic_agent_instance
        WHERE name = :name AND (state = 'shutdown' OR alive_until < {NOW})
        ORDER BY updated_at DESC LIMIT -1 OFFSET :kept)"""

_ADD_INSTANCE = f"""
    INSERT INTO agentic_agent_instance (agent_id, name, state, owner, updated_at, alive_until)
    VALUES (:agent_id, :name, 'initialized', :owner, {NOW}, {NOW} + :alive)"""

_REPORT = f"""
    UPDATE agentic_agent_instance SET state = :state, reason = :reason, updated_at = {NOW},
        alive_until = {NOW} + :alive
    WHERE agent_id = :agent_id"""

_COUNT = """
    UPDATE agentic_agent SET processed = processed + :processed, succeeded = succeeded + :succeeded,
        failed = failed + :failed, degraded = degraded + :degraded,
        total_seconds = total_seconds + :total_seconds, max_seconds = max(max_seconds, :max_seconds),
        last_error = coalesce(:last_error, last_error)
    WHERE name = (SELECT name FROM agentic_agent_instance WHERE agent_id = :agent_id)"""

_READ = f"""
    SELECT a.*, i.agent_id, i.state, i.reason, i.owner, i.updated_at, i.alive_until, {NOW} AS now
    FROM agentic_agent a JOIN agentic_agent_instance i ON i.name = a.name
    WHERE :name IS NULL OR a.name = :name
    ORDER BY a.name"""


class SqlAgentStore:
    """Implements :class:`airflow_agentic.agents.status.AgentStore`.

    Args:
        database: Where.
    """

    def __init__(self, database: SqlDatabase) -> None:
        self._db = database

    def register(self, agent_id: str, profile: AgentProfile, owner: str, alive_for: timedelta) -> None:
        """See the port."""
        values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in asdict(profile).items()}
        with self._db.transaction():
            self._db.execute(_REGISTER, values)
            self._db.execute(_FORGET, {"name": profile.name, "kept": KEPT_INSTANCES})
            self._db.execute(
                _ADD_INSTANCE,
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
            self._db.execute(_REPORT, values)
            if add != PerformanceMetrics():
                self._db.execute(_COUNT, {**asdict(add), "agent_id": agent_id})

    def get(self, name: str) -> AgentStatus | None:
        """See the port."""
        return next(iter(_read(self._db, name)), None)

    def list(self) -> Sequence[AgentStatus]:
        """See the port."""
        return _read(self._db, None)


def _read(database: SqlDatabase, name: str | None) -> list[AgentStatus]:
    by_name: dict[str, list[Any]] = {}
    for row in database.fetch(_READ, {"name": name}):
        by_name.setdefault(row.name, []).append(row)
    return [_status(rows) for rows in by_name.values()]


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
