"""Indexes by which lists find keys without reading all of them."""

from alembic import op

revision = "0002"
down_revision = "0001"

_INDEXES = """
-- In the order of creation within an owner or role, so that a page is read straight off. Most keys have no role and
-- many have no owner: those are never asked for.
CREATE INDEX key_of_owner ON key (owner, create_time, id) WHERE owner <> '';
CREATE INDEX key_of_role ON key (role, create_time, id) WHERE role <> '';
CREATE INDEX key_revoked ON key (create_time, id) WHERE revoke_time IS NOT NULL;
CREATE INDEX key_suspended ON key (create_time, id) WHERE suspended;
CREATE INDEX key_ending ON key (expire_time) WHERE expire_time IS NOT NULL;
-- For prefixes, whatever the collation of the database.
CREATE INDEX key_named ON key (display_name text_pattern_ops);
-- Without the list of pending entries: every look-up would read it, and one unlucky creation would have to empty it.
CREATE INDEX key_tagged ON key USING gin (tags) WITH (fastupdate = off);
"""


def upgrade() -> None:
    """Make the indexes."""
    for statement in _INDEXES.strip().removesuffix(";").split(";\n"):
        op.execute(statement)
