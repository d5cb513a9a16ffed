"""The first tables: the clock and log of changes, workspaces, keys, secrets, audit."""

from secrets import token_bytes
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
-- One row. The revision is taken by UPDATE ... RETURNING, last before the commit, so that the row lock makes revision
-- order equal commit order: a sequence would not, since a lower number can commit later. Every restrictive change
-- rewrites it, hence the free space for in-page updates and the eager vacuum.
CREATE TABLE revocation_clock (
    single       boolean PRIMARY KEY DEFAULT true CHECK (single),
    epoch        uuid    NOT NULL,
    seq          bigint  NOT NULL,
    log_start    bigint  NOT NULL,
    lease_ms_max integer NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- The log of changes that Verify's answers depend on.
CREATE TABLE key_change (
    seq         bigint PRIMARY KEY,
    kind        text   NOT NULL CHECK (kind IN ('keys', 'workspaces', 'refusals', 'all')),
    subject_ids uuid[] NOT NULL,
    final       boolean NOT NULL,
    at          timestamptz NOT NULL
);

-- Who may answer from memory. Empty as long as every Verify reads the database.
CREATE TABLE lease_member (
    member_id   uuid PRIMARY KEY,
    applied_seq bigint  NOT NULL,
    beat        bigint  NOT NULL,
    lease_ms    integer NOT NULL,
    host        text    NOT NULL,
    started_at  timestamptz NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- One row: the key under which key strings carry their tag. It is no pepper: who learns it can make the database look
-- up ids that do not exist, and nothing else. In the database every server has it without configuration.
CREATE TABLE tag_key (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    key    bytea NOT NULL
);

-- Fingerprints of the peppers that digests were made under; the peppers themselves are never here.
CREATE TABLE pepper (
    fingerprint bytea PRIMARY KEY,
    signing     boolean NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE UNIQUE INDEX pepper_signing ON pepper (signing) WHERE signing;

CREATE TABLE workspace (
    id             uuid PRIMARY KEY,
    name           text COLLATE "C" NOT NULL UNIQUE,
    display_name   text NOT NULL,
    suspended      boolean NOT NULL,
    allowed_scopes text[] NOT NULL,
    roles          jsonb NOT NULL,
    default_ttl    interval,
    max_ttl        interval,
    key_limit      integer,
    create_time    timestamptz NOT NULL,
    update_time    timestamptz NOT NULL,
    version        integer NOT NULL,
    seq            bigint NOT NULL
);

CREATE TABLE key (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace (id),
    display_name  text NOT NULL,
    environment   text NOT NULL CHECK (environment IN ('live', 'test')),
    owner         text NOT NULL,
    scopes        text[] NOT NULL,
    role          text NOT NULL,
    ip_allowlist  text[] NOT NULL,
    metadata      jsonb NOT NULL,
    tags          text[] NOT NULL,
    workspaces    text[] NOT NULL,
    creator       text NOT NULL,
    create_time   timestamptz NOT NULL,
    update_time   timestamptz NOT NULL,
    expire_time   timestamptz,
    suspended     boolean NOT NULL,
    revoke_time   timestamptz,
    revoke_reason text NOT NULL,
    version       integer NOT NULL,
    seq           bigint NOT NULL
);
CREATE INDEX key_newest ON key (create_time, id);
CREATE INDEX key_of_workspace ON key (workspace_id, create_time, id);
-- Counts the keys that a workspace's limit is about.
CREATE INDEX key_unrevoked ON key (workspace_id) WHERE revoke_time IS NULL;

CREATE TABLE secret (
    id            text COLLATE "C" PRIMARY KEY,
    key_id        uuid NOT NULL REFERENCES key (id),
    hint          text COLLATE "C" NOT NULL,
    pepper        bytea NOT NULL REFERENCES pepper (fingerprint),
    digest        bytea NOT NULL,
    create_time   timestamptz NOT NULL,
    retire_time   timestamptz,
    revoke_time   timestamptz,
    revoke_reason text NOT NULL,
    seq           bigint NOT NULL
);
CREATE INDEX secret_of_key ON secret (key_id);
CREATE INDEX secret_hint ON secret (hint);

-- Which secret a Create or Rotate with a request_id made. Only a digest of the id is kept. It is claimed before the
-- key exists.
CREATE TABLE request (
    digest      bytea PRIMARY KEY,
    body_digest bytea NOT NULL,
    key_id      uuid NOT NULL REFERENCES key (id) DEFERRABLE INITIALLY DEFERRED,
    secret_id   text NOT NULL,
    create_time timestamptz NOT NULL
);

-- One row for each change, written in the transaction of the change. Names and ids are copies: an event says what was
-- true then.
CREATE TABLE audit_event (
    id         uuid PRIMARY KEY,
    time       timestamptz NOT NULL,
    actor      text NOT NULL,
    method     text NOT NULL,
    workspace  text NOT NULL,
    key_id     uuid,
    secret_id  text,
    before     jsonb,
    after      jsonb NOT NULL,
    reason     text NOT NULL,
    request_id text NOT NULL,
    source_ip  text NOT NULL,
    seq        bigint
);
CREATE INDEX audit_event_newest ON audit_event (time, id);
CREATE INDEX audit_event_of_workspace ON audit_event (workspace, time, id);
CREATE INDEX audit_event_of_key ON audit_event (key_id, time, id);
"""


def upgrade() -> None:
    """Make the tables and the rows that every database has."""
    for statement in _TABLES.strip().removesuffix(";").split(";\n"):
        op.execute(statement)
    connection = op.get_bind()
    connection.execute(
        sa.text("INSERT INTO revocation_clock (epoch, seq, log_start, lease_ms_max) VALUES (:epoch, 0, 0, 0)"),
        {"epoch": uuid4()},
    )
    connection.execute(sa.text("INSERT INTO tag_key (key) VALUES (:key)"), {"key": token_bytes(32)})
    connection.execute(
        sa.text(
            "INSERT INTO workspace (id, name, display_name, suspended, allowed_scopes, roles, create_time, update_time,"
            " version, seq) VALUES (:id, 'keysvc/system', 'Callers of keysvc', false, '{}', '{}', now(), now(), 1, 0)"
        ),
        {"id": uuid4()},
    )
