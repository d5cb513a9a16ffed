"""An index by which a start finds whether a pepper is still needed, without reading all secrets."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the index."""
    op.execute("CREATE INDEX secret_of_pepper ON secret (pepper) WHERE revoke_time IS NULL")
