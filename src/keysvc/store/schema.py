"""The tables. The migrations make them; a test compares both.

Times are the database's own. Text arrays and JSON hold what Verify needs in one row, so that a look-up joins three rows
and no more.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

metadata = MetaData()


def _time(name: str, *, nullable: bool = False) -> Column[Any]:
    """A time with time zone."""
    return Column(name, TIMESTAMP(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> Column[Any]:
    """A text of any length: limits are checked where requests come in."""
    return Column(name, Text, nullable=nullable)


def _one_row() -> Column[Any]:
    """The primary key of a table that has exactly one row."""
    return Column("single", Boolean, primary_key=True, server_default=text("true"))


revocation_clock = Table(
    "revocation_clock",
    metadata,
    _one_row(),
    Column("epoch", Uuid, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("log_start", BigInteger, nullable=False),
    Column("lease_ms_max", Integer, nullable=False),
)

key_change = Table(
    "key_change",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    _text("kind"),
    Column("subject_ids", ARRAY(Uuid), nullable=False),
    Column("final", Boolean, nullable=False),
    _time("at"),
    Column("restrictive", Boolean, nullable=False),
    Index("key_change_open", "seq", postgresql_where=text("NOT final")),
    Index("key_change_at", "at", postgresql_where=text("final")),
)

lease_member = Table(
    "lease_member",
    metadata,
    Column("member_id", Uuid, primary_key=True),
    Column("applied_seq", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("lease_ms", Integer, nullable=False),
    _text("host"),
    _time("started_at"),
    Column("report", JSONB, nullable=False, server_default=text("'{}'")),
    Column("grants", Boolean, nullable=False, server_default=text("false")),
)

tag_key = Table(
    "tag_key",
    metadata,
    _one_row(),
    Column("key", LargeBinary, nullable=False),
)

pepper = Table(
    "pepper",
    metadata,
    Column("fingerprint", LargeBinary, primary_key=True),
    Column("signing", Boolean, nullable=False),
    _time("create_time"),
    _time("retire_time", nullable=True),
    Index("pepper_signing", "signing", unique=True, postgresql_where=text("signing")),
)

workspace = Table(
    "workspace",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text(collation="C"), nullable=False, unique=True),
    _text("display_name"),
    Column("suspended", Boolean, nullable=False),
    Column("allowed_scopes", ARRAY(Text), nullable=False),
    Column("roles", JSONB, nullable=False),
    Column("default_ttl", Interval),
    Column("max_ttl", Interval),
    Column("key_limit", Integer),
    _time("create_time"),
    _time("update_time"),
    Column("version", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
)

key = Table(
    "key",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("workspace_id", Uuid, ForeignKey("workspace.id"), nullable=False),
    _text("display_name"),
    _text("environment"),
    _text("owner"),
    Column("scopes", ARRAY(Text), nullable=False),
    _text("role"),
    Column("ip_allowlist", ARRAY(Text), nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("tags", ARRAY(Text), nullable=False),
    Column("workspaces", ARRAY(Text), nullable=False),
    _text("creator"),
    _time("create_time"),
    _time("update_time"),
    _time("expire_time", nullable=True),
    Column("suspended", Boolean, nullable=False),
    _time("revoke_time", nullable=True),
    _text("revoke_reason"),
    Column("version", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("revoke_seq", BigInteger),
    Index("key_newest", "create_time", "id"),
    Index("key_of_workspace", "workspace_id", "create_time", "id"),
    Index("key_unrevoked", "workspace_id", postgresql_where=text("revoke_time IS NULL")),
    Index("key_of_owner", "owner", "create_time", "id", postgresql_where=text("owner <> ''")),
    Index("key_of_role", "role", "create_time", "id", postgresql_where=text("role <> ''")),
    Index("key_revoked", "create_time", "id", postgresql_where=text("revoke_time IS NOT NULL")),
    Index("key_suspended", "create_time", "id", postgresql_where=text("suspended")),
    Index("key_ending", "expire_time", postgresql_where=text("expire_time IS NOT NULL")),
    Index("key_named", "display_name", postgresql_ops={"display_name": "text_pattern_ops"}),
    Index("key_tagged", "tags", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
)

secret = Table(
    "secret",
    metadata,
    Column("id", Text(collation="C"), primary_key=True),
    Column("key_id", Uuid, ForeignKey("key.id"), nullable=False),
    Column("hint", Text(collation="C"), nullable=False),
    Column("pepper", LargeBinary, ForeignKey("pepper.fingerprint"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    _time("create_time"),
    _time("retire_time", nullable=True),
    _time("revoke_time", nullable=True),
    _text("revoke_reason"),
    Column("seq", BigInteger, nullable=False),
    _time("predecessor_retire_time", nullable=True),
    Column("revoke_seq", BigInteger),
    Index("secret_of_key", "key_id"),
    Index("secret_hint", "hint"),
    Index("secret_of_pepper", "pepper", postgresql_where=text("revoke_time IS NULL")),
)

request = Table(
    "request",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("body_digest", LargeBinary, nullable=False),
    Column("key_id", Uuid, ForeignKey("key.id", deferrable=True, initially="DEFERRED"), nullable=False),
    _text("secret_id"),
    _time("create_time"),
    Column("sealed", LargeBinary),
    Column("sealed_pepper", LargeBinary),
    Index("request_sealed", "create_time", postgresql_where=text("sealed IS NOT NULL")),
)

audit_event = Table(
    "audit_event",
    metadata,
    Column("id", Uuid, primary_key=True),
    _time("time"),
    _text("actor"),
    _text("method"),
    _text("workspace"),
    Column("key_id", Uuid),
    _text("secret_id", nullable=True),
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB, nullable=False),
    _text("reason"),
    _text("request_id"),
    _text("source_ip"),
    Column("seq", BigInteger),
    Index("audit_event_newest", "time", "id"),
    Index("audit_event_of_workspace", "workspace", "time", "id"),
    Index("audit_event_of_key", "key_id", "time", "id"),
)

usage_source = Table(
    "usage_source",
    metadata,
    Column("id", Text(collation="C"), primary_key=True),
    _text("owner"),
    Column("batch_seq", BigInteger, nullable=False),
    Column("batch_digest", LargeBinary, nullable=False),
    _time("update_time"),
    _time("as_of", nullable=True),
    Index("usage_source_of_server", "update_time", postgresql_where=text("as_of IS NOT NULL")),
)

usage_total = Table(
    "usage_total",
    metadata,
    Column("workspace", Text(collation="C"), primary_key=True),
    Column("key_id", Uuid, primary_key=True),
    Column("secret_id", Text(collation="C"), primary_key=True),
    Column("verdict", Text(collation="C"), primary_key=True),
    Column("verify_count", BigInteger, nullable=False),
    Column("success_count", BigInteger, nullable=False),
    Column("failure_count", BigInteger, nullable=False),
    Column("units", BigInteger, nullable=False),
    _time("last_time", nullable=True),
)

key_activity = Table(
    "key_activity",
    metadata,
    Column("key_id", Uuid, ForeignKey("key.id"), primary_key=True),
    _time("active_time"),
    Index("key_activity_time", "active_time"),
)
