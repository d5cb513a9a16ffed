"""Rows to values and back: how keys, secrets and workspaces lie in their tables."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Uuid, any_, bindparam, exists, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from keysvc.core.key import Key, Revocation, Secret
from keysvc.core.keystring import Environment
from keysvc.core.revision import Revision
from keysvc.core.verdict import Verdict
from keysvc.core.workspace import Workspace
from keysvc.store import schema

EPOCH = select(schema.revocation_clock.c.epoch).scalar_subquery().label("epoch")
CLOCK_COLUMNS = (func.clock_timestamp().label("at"), EPOCH)
"""The database's clock, and the epoch of its revisions."""

LIVE_SERVER: Final = timedelta(minutes=1)
"""A server that has not said anything for so long is not counting any more."""

USAGE_TIME = (
    select(func.min(schema.usage_source.c.as_of))
    .where(schema.usage_source.c.as_of.is_not(None), schema.usage_source.c.update_time > func.now() - LIVE_SERVER)
    .scalar_subquery()
    .label("usage_time")
)
"""How fresh the totals of usage are."""

THIS_CHANGE: Final[ColumnElement[int]] = literal_column("(SELECT clock.seq FROM clock)")
"""The revision of the change that a closing statement makes; see ``keysvc.store.transaction``."""


def is_open(seq: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether somebody may not know the change with a revision yet.

    One look by the primary key for each row: to list all that are open would depend on statistics to be quick.
    """
    return exists().where(schema.key_change.c.seq == seq, ~schema.key_change.c.final)


def is_revoking(row: ReadOnlyColumnCollection[str, Any]) -> Any:  # noqa: ANN401 (a column with a name)
    """Whether the revocation of a key or secret is still to be confirmed."""
    return is_open(row.revoke_seq).label("revoking")


WORKSPACE_COLUMNS = (*schema.workspace.c, *CLOCK_COLUMNS)
"""What ``workspace_of`` needs."""

KEY_COLUMNS = (
    *schema.key.c,
    schema.workspace.c.name.label("workspace"),
    is_revoking(schema.key.c),
    *CLOCK_COLUMNS,
    USAGE_TIME,
)
"""What ``keys_of`` needs, from ``KEY_SOURCE``."""

KEY_SOURCE = schema.key.join(schema.workspace)


_USAGE: Final = schema.usage_total.c
_NAME: Final = (
    select(schema.workspace.c.name)
    .select_from(KEY_SOURCE)
    .where(schema.key.c.id == schema.secret.c.key_id)
    .correlate(schema.secret)
    .scalar_subquery()
)
_USED: Final = (
    # A row for each secret, so that no planner thinks of reading the usage of all.
    select(
        func.coalesce(func.sum(_USAGE.verify_count), 0).label("usage_total"),
        func.max(_USAGE.last_time).filter(_USAGE.verdict == Verdict.VALID).label("last_used_time"),
    )
    .where(_USAGE.workspace == _NAME, _USAGE.key_id == schema.secret.c.key_id, _USAGE.secret_id == schema.secret.c.id)
    .correlate(schema.secret)
    .lateral("used")
)
_SECRETS: Final = (
    select(
        schema.secret,
        is_revoking(schema.secret.c),
        _USED.c.usage_total,
        _USED.c.last_used_time,
    )
    .select_from(schema.secret.join(_USED, true()))
    .where(schema.secret.c.key_id == any_(bindparam("key_ids", type_=ARRAY(Uuid))))
    .order_by(schema.secret.c.create_time, schema.secret.c.id)
)


def workspace_of(row: Row[Any]) -> Workspace:
    """A row of ``WORKSPACE_COLUMNS``."""
    return Workspace(
        id=row.id,
        name=row.name,
        display_name=row.display_name,
        suspended=row.suspended,
        allowed_scopes=tuple(row.allowed_scopes),
        roles={role: tuple(grants) for role, grants in row.roles.items()},
        default_ttl=row.default_ttl,
        max_ttl=row.max_ttl,
        key_limit=row.key_limit,
        create_time=row.create_time,
        update_time=row.update_time,
        revision=Revision(row.epoch, row.seq),
        version=row.version,
    )


def workspace_values(workspace: Workspace) -> dict[str, Any]:
    """The columns of a workspace that can change, but ``seq``."""
    return {
        "display_name": workspace.display_name,
        "suspended": workspace.suspended,
        "allowed_scopes": list(workspace.allowed_scopes),
        "roles": {role: list(grants) for role, grants in workspace.roles.items()},
        "default_ttl": workspace.default_ttl,
        "max_ttl": workspace.max_ttl,
        "key_limit": workspace.key_limit,
        "update_time": workspace.update_time,
        "version": workspace.version,
    }


def key_values(key: Key) -> dict[str, Any]:
    """The columns of a key that can change, but ``seq``."""
    return {
        "display_name": key.display_name,
        "owner": key.owner,
        "scopes": list(key.scopes),
        "role": key.role,
        "ip_allowlist": list(key.ip_allowlist),
        "metadata": dict(key.metadata),
        "tags": list(key.tags),
        "workspaces": list(key.workspaces),
        "update_time": key.update_time,
        "expire_time": key.expire_time,
        "suspended": key.suspended,
        **_revocation_values(key.revocation),
        "version": key.version,
    }


def secret_values(secret: Secret) -> dict[str, Any]:
    """The columns of a secret that can change, but ``seq``."""
    return {"retire_time": secret.retire_time, **_revocation_values(secret.revocation)}


def _revocation_values(revocation: Revocation | None) -> dict[str, Any]:
    return {
        "revoke_time": revocation and revocation.time,
        "revoke_reason": revocation.reason if revocation else "",
        "revoke_seq": revocation and (revocation.revision.seq if revocation.revision else THIS_CHANGE),
    }


def _revocation_of(row: Row[Any], epoch: UUID) -> Revocation | None:
    if row.revoke_time is None:
        return None
    return Revocation(row.revoke_time, row.revoke_reason, not row.revoking, Revision(epoch, row.revoke_seq))


def _secret_of(row: Row[Any], epoch: UUID) -> Secret:
    return Secret(
        id=row.id,
        hint=row.hint,
        create_time=row.create_time,
        retire_time=row.retire_time,
        revision=Revision(epoch, row.seq),
        revocation=_revocation_of(row, epoch),
        predecessor_retire_time=row.predecessor_retire_time,
        usage_total=int(row.usage_total),
        last_used_time=row.last_used_time,
    )


def _key_of(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        workspace=row.workspace,
        display_name=row.display_name,
        environment=Environment(row.environment),
        owner=row.owner,
        scopes=tuple(row.scopes),
        role=row.role,
        ip_allowlist=tuple(row.ip_allowlist),
        metadata=row.metadata,
        tags=tuple(row.tags),
        workspaces=tuple(row.workspaces),
        creator=row.creator,
        create_time=row.create_time,
        update_time=row.update_time,
        at=row.at,
        revision=Revision(row.epoch, row.seq),
        expire_time=row.expire_time,
        suspended=row.suspended,
        revocation=_revocation_of(row, row.epoch),
        version=row.version,
        usage_time=row.usage_time,
    )


async def keys_of(connection: AsyncConnection, rows: Iterable[Row[Any]]) -> list[Key]:
    """The keys of rows of ``KEY_COLUMNS``, in their order, each with its secrets.

    The secrets are read in a second statement, begun after the first: where the first one waited for the lock of a key,
    one snapshot for both would show the secrets from before the wait.
    """
    keys = [_key_of(row) for row in rows]
    secrets: dict[UUID, list[Secret]] = {key.id: [] for key in keys}
    for row in await connection.execute(_SECRETS, {"key_ids": list(secrets)}) if keys else ():
        secrets[row.key_id].append(_secret_of(row, keys[0].revision.epoch))
    return [replace(key, secrets=tuple(secrets[key.id])) for key in keys]
