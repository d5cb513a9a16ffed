"""Usage, sealed copies for repeated requests, and which changes are restrictive."""

from alembic import op

revision = "0003"
down_revision = "0002"

_STATEMENTS = """
-- The key string of a request that may be repeated, sealed with a key made from a pepper and the request id, neither of
-- which is in the database. A server removes it after 10 minutes.
ALTER TABLE request ADD COLUMN sealed bytea, ADD COLUMN sealed_pepper bytea;
CREATE INDEX request_sealed ON request (create_time) WHERE sealed IS NOT NULL;

-- When the secret that this one was rotated in for would have retired without it: what CancelRotation goes back to.
ALTER TABLE secret ADD COLUMN predecessor_retire_time timestamptz;

-- Whether somebody must wait until it is known everywhere.
ALTER TABLE key_change ADD COLUMN restrictive boolean;
UPDATE key_change SET restrictive = true;
ALTER TABLE key_change ALTER COLUMN restrictive SET NOT NULL;

-- Who counts: callers of RecordUsage, and servers, whose own counts arrive in the same way. batch_seq is what makes a
-- batch count once: it moves by one, in the transaction that adds the batch to the totals.
CREATE TABLE usage_source (
    id           text COLLATE "C" PRIMARY KEY,
    owner        text NOT NULL,
    batch_seq    bigint NOT NULL,
    batch_digest bytea NOT NULL,
    update_time  timestamptz NOT NULL,
    as_of        timestamptz
);
-- Servers: who is alive, and how fresh their counts are.
CREATE INDEX usage_source_of_server ON usage_source (update_time) WHERE as_of IS NOT NULL;

-- Totals of each secret and verdict; without a verdict what RecordUsage reported, without workspace, key and secret the
-- presentations that proved none. Rewritten all the time, hence the free space for in-page updates.
CREATE TABLE usage_total (
    workspace     text COLLATE "C" NOT NULL,
    key_id        uuid   NOT NULL,
    secret_id     text COLLATE "C" NOT NULL,
    verdict       text COLLATE "C" NOT NULL,
    verify_count  bigint NOT NULL,
    success_count bigint NOT NULL,
    failure_count bigint NOT NULL,
    units         bigint NOT NULL,
    last_time     timestamptz,
    PRIMARY KEY (workspace, key_id, secret_id, verdict)
) WITH (fillfactor = 50);

-- When a key was last accepted, or created: what idle keys are found by. Apart from the key, whose row must stay free
-- for those who revoke it.
CREATE TABLE key_activity (
    key_id      uuid PRIMARY KEY REFERENCES key (id),
    active_time timestamptz NOT NULL
) WITH (fillfactor = 70);
INSERT INTO key_activity SELECT id, create_time FROM key;
CREATE INDEX key_activity_time ON key_activity (active_time);
"""


def upgrade() -> None:
    """Add tables and columns; keys that are there count as active since their creation."""
    for statement in _STATEMENTS.strip().removesuffix(";").split(";\n"):
        op.execute(statement)
