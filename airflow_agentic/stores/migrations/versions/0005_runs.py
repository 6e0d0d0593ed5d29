"""Durable runs: heads, records and snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite keeps rows in the order of such a key, in one tree; what it finds by another key lies in two."""


def _name(length: int) -> sa.types.TypeEngine[str]:
    # Listed by how they begin, so the order must be that of bytes.
    return sa.String(length, collation="C").with_variant(sa.String(length), "sqlite")


def upgrade() -> None:
    """Create the tables of durable runs."""
    op.create_table(
        "agentic_run",
        sa.Column("run_id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("stream", _name(500), nullable=False),
        sa.Column("agent", sa.String(512), nullable=False),
        sa.Column("mode", sa.String(20), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("correlation", sa.String(1100), nullable=False),
        sa.Column("task", sa.String(1100), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("step", sa.String(1100), nullable=False),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("waiting", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("category", sa.String(40), nullable=False),
        sa.Column("owner", sa.String(400), nullable=False),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        # Of the time above. It is in the indexes, and that one is not: most records leave them as they are.
        sa.Column("updated_minute", sa.BigInteger, nullable=False),
        # Changed with each record: with room beside it, a new version needs no new entry in the indexes.
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("agentic_run_stream", "agentic_run", ["stream"], unique=True)
    op.create_index("agentic_run_correlation", "agentic_run", ["correlation"])
    op.create_index("agentic_run_status", "agentic_run", ["status", "updated_minute"])
    op.create_index("agentic_run_agent", "agentic_run", ["agent", "status", "updated_minute"])
    op.create_table(
        "agentic_event",
        # run_id * 2^31 + version: the records of a run lie side by side.
        sa.Column("event_id", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("name", sa.String(1100), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "agentic_snapshot",
        # As that of the record that it goes with.
        sa.Column("event_id", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kept", sa.SmallInteger, nullable=False),
        sa.Column("chain", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
