"""Named agents: profile, numbers and instances."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the agents."""
    op.create_table(
        "agentic_agent",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("agent_type", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False, server_default=""),
        sa.Column("configuration", sa.Text, nullable=False, server_default="{}"),
        sa.Column("input_schema", sa.Text, nullable=False, server_default="{}"),
        sa.Column("output_schema", sa.Text, nullable=False, server_default="{}"),
        sa.Column("processed", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("succeeded", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("failed", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("degraded", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("total_seconds", sa.Float, nullable=False, server_default="0"),
        sa.Column("max_seconds", sa.Float, nullable=False, server_default="0"),
        sa.Column("last_error", sa.Text),
    )
    op.create_table(
        "agentic_agent_instance",
        sa.Column("agent_id", sa.String(300), primary_key=True),
        sa.Column("name", sa.String(200), sa.ForeignKey("agentic_agent.name"), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("owner", sa.String(300), nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("alive_until", sa.BigInteger, nullable=False),
    )
    op.create_index("agentic_agent_instance_name", "agentic_agent_instance", ["name", "updated_at"])
