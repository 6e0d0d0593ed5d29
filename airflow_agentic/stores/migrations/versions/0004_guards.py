"""Documents of guards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of the guards."""
    op.create_table(
        "agentic_guard",
        sa.Column("kind", _bytewise(20), primary_key=True),
        sa.Column("name", _bytewise(400), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        # Few rows, each changed time and again: with room beside it, a new version needs no new entry in the index.
        postgresql_with={"fillfactor": 50},
    )


def _bytewise(length: int) -> sa.types.TypeEngine[str]:
    # The index is in the order that names are listed in, and finds them by how they begin.
    return sa.String(length, collation="C").with_variant(sa.String(length), "sqlite")
