"""Leases: who answers from memory, and which changes everybody knows."""

from alembic import op

revision = "0004"
down_revision = "0003"

_STATEMENTS = """
-- The change that revoked it: as long as that is not final, the state is REVOKING.
ALTER TABLE key ADD COLUMN revoke_seq bigint;
ALTER TABLE secret ADD COLUMN revoke_seq bigint;
UPDATE key SET revoke_seq = seq WHERE revoke_time IS NOT NULL;
UPDATE secret SET revoke_seq = seq WHERE revoke_time IS NOT NULL;

-- Changes that somebody may not know yet. There are few at any time.
CREATE INDEX key_change_open ON key_change (seq) WHERE NOT final;
-- What is to be trimmed.
CREATE INDEX key_change_at ON key_change (at) WHERE final;

-- What a member tells about itself, for people: nothing is decided by it.
ALTER TABLE lease_member ADD COLUMN report jsonb NOT NULL DEFAULT '{}';

-- No lease is longer: what is waited for where the members cannot be read, or may be missing.
UPDATE revocation_clock SET lease_ms_max = 3000;

-- When it was decided that secrets under a pepper are not accepted any more.
ALTER TABLE pepper ADD COLUMN retire_time timestamptz;
"""


def upgrade() -> None:
    """Add columns and indexes."""
    for statement in _STATEMENTS.strip().removesuffix(";").split(";\n"):
        op.execute(statement)
