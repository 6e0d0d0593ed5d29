"""Messages and their deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BigKey = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OPEN = sa.text("state IN ('ready', 'leased')")


def upgrade() -> None:
    """Create the tables of the bus."""
    op.create_table(
        "agentic_message",
        sa.Column("seq", _BigKey, primary_key=True, autoincrement=True),
        sa.Column("message_id", sa.String(512), nullable=False),
        sa.Column("source", sa.String(512), nullable=False),
        sa.Column("correlation_id", sa.String(512), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        # Id first: a person looks for an id and does not know the source.
        sa.UniqueConstraint("message_id", "source", name="agentic_message_identity"),
        sqlite_autoincrement=True,
    )
    op.create_index("agentic_message_correlation", "agentic_message", ["correlation_id"])
    op.create_table(
        "agentic_delivery",
        sa.Column("delivery_id", _BigKey, primary_key=True, autoincrement=True),
        sa.Column("message_seq", _BigKey, sa.ForeignKey("agentic_message.seq"), nullable=False),
        sa.Column("mailbox", sa.String(200), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        # For a leased delivery, when its lease ends: claiming needs one condition for both.
        sa.Column("visible_at", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("lease_token", sa.String(32)),
        sa.Column("lease_owner", sa.String(300)),
        sa.Column("reason", sa.Text),
        sa.Column("redrives", sa.Integer, nullable=False, server_default="0"),
        sa.Column("history", sa.Text, nullable=False, server_default="[]"),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("state IN ('ready', 'leased', 'done', 'dead')", name="agentic_delivery_state"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "agentic_delivery_claim",
        "agentic_delivery",
        ["mailbox", "visible_at", "delivery_id"],
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_index("agentic_delivery_count", "agentic_delivery", ["mailbox", "state", "visible_at"])
    op.create_index("agentic_delivery_message", "agentic_delivery", ["message_seq"])
