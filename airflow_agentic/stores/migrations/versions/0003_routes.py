"""Lanes, priorities, expiry, subscriptions, signs of life and state of consumers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OPEN = "state IN ('ready', 'leased')"


def upgrade() -> None:
    """Add what deliveries are ordered by, and the new tables."""
    for column in (
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default="4"),
        sa.Column("ordering_key", sa.String(512)),
        # 1 while an earlier delivery of the lane is open: such a delivery is in nobody's reach.
        sa.Column("waiting", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("expires_at", sa.BigInteger),
    ):
        op.add_column("agentic_delivery", column)
    op.drop_index("agentic_delivery_claim", "agentic_delivery")
    op.drop_index("agentic_delivery_count", "agentic_delivery")
    # One for each question: what changes its state leaves one index for another, and is in no third one.
    _partial("claim", ["mailbox", "priority", "visible_at", "delivery_id"], f"{_OPEN} AND waiting = 0")
    _partial("lane", ["mailbox", "ordering_key", "delivery_id"], "waiting = 1")
    _partial("done", ["mailbox"], "state = 'done'")
    _partial("dead", ["mailbox", "delivery_id"], "state = 'dead'")
    _partial("expiry", ["expires_at"], "state = 'ready' AND expires_at IS NOT NULL")
    # What begins a conversation is found by its own id.
    op.drop_index("agentic_message_correlation", "agentic_message")
    caused = sa.text("correlation_id <> message_id")
    op.create_index(
        "agentic_message_correlation",
        "agentic_message",
        ["correlation_id"],
        sqlite_where=caused,
        postgresql_where=caused,
    )
    # One row for each lane that has open deliveries. Whoever adds to a lane or ends something in it locks the row.
    op.create_table(
        "agentic_lane",
        sa.Column("mailbox", sa.String(200), primary_key=True),
        sa.Column("ordering_key", sa.String(512), primary_key=True),
        sa.Column("deliveries", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "agentic_subscription",
        sa.Column("mailbox", sa.String(200), primary_key=True),
        sa.Column("topic", sa.String(512), primary_key=True),
        sa.Column("filter", sa.Text, primary_key=True),
        sa.Column("role", sa.String(200)),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("max_attempts", sa.Integer),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "agentic_heartbeat",
        sa.Column("source", sa.String(512), primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("reported", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "agentic_state",
        sa.Column("scope", sa.String(512), primary_key=True),
        sa.Column("key", sa.String(1100), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
    )


def _partial(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(
        f"agentic_delivery_{name}", "agentic_delivery", columns, sqlite_where=where, postgresql_where=where
    )
