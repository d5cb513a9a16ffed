"""Leases of clients."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add a column."""
    # Whether clients may have leases from it. Then its row must stay for as long as they may last, though it has ended.
    op.execute("ALTER TABLE lease_member ADD COLUMN grants boolean NOT NULL DEFAULT false")
