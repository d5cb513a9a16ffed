"""Reads for people and tools: one key, one workspace, pages of keys, workspaces and audit events."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, case, exists, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.core.audit import AuditEvent, Stamp
from keysvc.core.key import Key, State
from keysvc.core.listing import AuditFilter, KeyFilter, Position
from keysvc.core.revision import Revision
from keysvc.core.workspace import Workspace
from keysvc.store.database import Database
from keysvc.store.rows import EPOCH, KEY_COLUMNS, KEY_SOURCE, WORKSPACE_COLUMNS, keys_of, workspace_of
from keysvc.store.schema import audit_event, key, key_activity, secret, workspace

_SHOWN_STATE = case(
    (key.c.revoke_time.is_not(None), State.REVOKED),
    (key.c.suspended, State.SUSPENDED),
    (key.c.expire_time <= func.now(), State.EXPIRED),
    else_=State.ACTIVE,
)
"""``Key.state`` in SQL."""


class Listings:
    """Reads from the primary: what a change has returned is in every later answer.

    Parameters:
        database: where from.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_key(self, key_id: UUID) -> Key | None:
        """A key; None if there is no such key."""
        keys = await self._keys(select(*KEY_COLUMNS).where(key.c.id == key_id))
        return keys[0] if keys else None

    async def list_keys(self, asked: KeyFilter, after: Position | None, limit: int) -> list[Key]:
        """The newest keys that the filter admits, older than ``after``."""
        query = select(*KEY_COLUMNS).where(*_key_conditions(asked))
        return await self._keys(_page(query, key.c.create_time, key.c.id, after, limit))

    async def find_workspace(self, name: str) -> Workspace | None:
        """A workspace; None if there is no such workspace."""
        rows = await self._rows(select(*WORKSPACE_COLUMNS).where(workspace.c.name == name))
        return workspace_of(rows[0]) if rows else None

    async def list_workspaces(
        self, names: tuple[str, ...] | None, organization: str | None, after: str | None, limit: int
    ) -> list[Workspace]:
        """Workspaces by name, behind ``after``.

        Parameters:
            names: only these; None: all.
            organization: only of this one; None: of all.
        """
        query = select(*WORKSPACE_COLUMNS).order_by(workspace.c.name).limit(limit)
        if names is not None:
            query = query.where(workspace.c.name.in_(names))
        if organization is not None:
            query = query.where(workspace.c.name.startswith(f"{organization}/", autoescape=True))
        if after is not None:
            query = query.where(workspace.c.name > after)
        return [workspace_of(row) for row in await self._rows(query)]

    async def list_audit_events(
        self, asked: AuditFilter, after: Position | None, limit: int
    ) -> list[tuple[AuditEvent, Revision | None]]:
        """The newest audit events that the filter admits, older than ``after``, each with its revision."""
        query = select(audit_event, EPOCH).where(*_audit_conditions(asked))
        rows = await self._rows(_page(query, audit_event.c.time, audit_event.c.id, after, limit))
        return [(_event_of(row), None if row.seq is None else Revision(row.epoch, row.seq)) for row in rows]

    async def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        """All rows of a query."""

        async def work(connection: AsyncConnection) -> list[Row[Any]]:
            return list(await connection.execute(query))

        return await self._database.read(work)

    async def _keys(self, query: Select[Any]) -> list[Key]:
        """The keys of a query for ``KEY_COLUMNS``, with their secrets."""

        async def work(connection: AsyncConnection) -> list[Key]:
            return await keys_of(connection, await connection.execute(query.select_from(KEY_SOURCE)))

        return await self._database.read(work)


def _page(
    query: Select[Any], time: ColumnElement[Any], item_id: ColumnElement[Any], after: Position | None, limit: int
) -> Select[Any]:
    """One page, newest first, of what is older than ``after``."""
    if after is not None:
        query = query.where(tuple_(time, item_id) < tuple_(after.time, after.id))
    return query.order_by(time.desc(), item_id.desc()).limit(limit)


def _key_conditions(asked: KeyFilter) -> list[ColumnElement[bool]]:
    """The filter in SQL."""
    conditions: list[ColumnElement[bool]] = []
    if asked.workspaces is not None:
        conditions.append(workspace.c.name.in_(asked.workspaces))
    if asked.state is not None:
        conditions.append(_SHOWN_STATE.is_not_distinct_from(asked.state))
    if asked.environment is not None:
        conditions.append(key.c.environment == asked.environment)
    if asked.owner is not None:
        conditions.append(key.c.owner == asked.owner)
    if asked.tag is not None:
        conditions.append(key.c.tags.contains([asked.tag]))
    if asked.role is not None:
        conditions.append(key.c.role == asked.role)
    if asked.hint_prefix is not None:
        hinted = secret.c.hint.startswith(asked.hint_prefix, autoescape=True)
        conditions.append(exists().where(secret.c.key_id == key.c.id, hinted))
    if asked.display_name_prefix is not None:
        conditions.append(key.c.display_name.startswith(asked.display_name_prefix, autoescape=True))
    if asked.expire_before is not None:
        conditions.append(key.c.expire_time < asked.expire_before)
    if asked.idle_since is not None:
        was_idle = key_activity.c.active_time < asked.idle_since
        conditions.append(exists().where(key_activity.c.key_id == key.c.id, was_idle))
    return conditions


def _audit_conditions(asked: AuditFilter) -> list[ColumnElement[bool]]:
    """The filter in SQL."""
    conditions: list[ColumnElement[bool]] = []
    if asked.workspaces is not None:
        conditions.append(audit_event.c.workspace.in_(asked.workspaces))
    if asked.key_id is not None:
        conditions.append(audit_event.c.key_id == asked.key_id)
    if asked.actor is not None:
        conditions.append(audit_event.c.actor == asked.actor)
    if asked.method is not None:
        conditions.append(audit_event.c.method == asked.method)
    if asked.start_time is not None:
        conditions.append(audit_event.c.time >= asked.start_time)
    if asked.end_time is not None:
        conditions.append(audit_event.c.time < asked.end_time)
    return conditions


def _event_of(row: Row[Any]) -> AuditEvent:
    """A row of ``audit_event``."""
    stamp = Stamp(
        event_id=row.id,
        actor=row.actor,
        method=row.method,
        request_id=row.request_id,
        source_ip=row.source_ip,
        reason=row.reason,
    )
    return AuditEvent(stamp, row.time, row.workspace, row.key_id, row.secret_id, row.before, row.after, row.seq)
