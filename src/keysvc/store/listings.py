"""Reads for people and tools: one key, one workspace, pages of keys, workspaces and audit events."""

import time
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    FromClause,
    Integer,
    Row,
    Select,
    bindparam,
    literal,
    select,
    true,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.core.audit import AuditEvent, Stamp
from keysvc.core.key import Key
from keysvc.core.listing import AuditFilter, KeyFilter, Listed, Position
from keysvc.core.revision import Revision
from keysvc.core.workspace import Workspace
from keysvc.store.database import Database
from keysvc.store.key_conditions import EVERYTHING, PLANNING, Condition, Finder, Way, key_conditions
from keysvc.store.rows import (
    CLOCK_COLUMNS,
    EPOCH,
    KEY_COLUMNS,
    KEY_SOURCE,
    USAGE_TIME,
    WORKSPACE_COLUMNS,
    is_revoking,
    keys_of,
    workspace_of,
)
from keysvc.store.schema import audit_event, key, workspace

FEW: Final = 500
"""So many keys may lie anywhere, and are still read and sorted in a few milliseconds."""

EXAMINED_MAX: Final = 10_000
"""Of many keys no more are examined for one page."""

EXAMINE_SECONDS: Final = 0.004
"""After so long no further stretch is begun. The last may take twice as long as all before it together."""

_FIRST_STRETCH: Final = 500

_KEY: Final = select(*KEY_COLUMNS).select_from(KEY_SOURCE).where(key.c.id == bindparam("key_id", type_=key.c.id.type))

_NEWEST: Final = Position(datetime.max.replace(tzinfo=UTC), UUID(int=(1 << 128) - 1))
"""Every key is older."""


class Listings:
    """Reads from the primary: what a change has returned is in every later answer.

    Parameters:
        database: where from.
        few: candidates of a condition are read all at once up to this number.
        examined_max: how many keys are examined for a page where there are more.
    """

    def __init__(self, database: Database, *, few: int = FEW, examined_max: int = EXAMINED_MAX) -> None:
        self._database = database
        self._few = few
        self._examined_max = examined_max

    async def find_key(self, key_id: UUID) -> Key | None:
        """A key; None if there is no such key."""

        async def work(connection: AsyncConnection) -> Key | None:
            keys = await keys_of(connection, await connection.execute(_KEY, {"key_id": key_id}))
            return keys[0] if keys else None

        return await self._database.read(work)

    async def list_keys(self, asked: KeyFilter, after: Position | None, limit: int) -> Listed:
        """The newest keys that the filter admits, older than ``after``; fewer than ``limit`` where they are rare.

        If a condition has few candidates, these are examined. Otherwise keys are examined from the newest on, those of
        an owner or the like if possible, until there are enough, or until so many have been examined that the rest is
        left to the next page.
        """
        conditions = key_conditions(asked)

        async def work(connection: AsyncConnection, _attempt: int) -> Listed:
            await connection.exec_driver_sql(PLANNING)
            chosen = await self._choose(connection, [each.finder for each in conditions if each.finder])
            if isinstance(chosen, Way):
                rows, end = await self._examine(connection, chosen, conditions, after, limit + 1)
            else:
                query = _page_of_few(chosen, conditions, after, limit + 1)
                rows, end = list(await connection.execute(query)), None
            if len(rows) > limit:
                rows = rows[:limit]
                end = Position(rows[-1].create_time, rows[-1].id)
            return Listed(tuple(await keys_of(connection, rows)), end)

        return await self._database.run(work, commit=False)

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

    async def _choose(self, connection: AsyncConnection, finders: list[Finder]) -> Way | Finder:
        """By what to find keys: by a finder of few, or else on a way through many."""
        ways = [finder.way for finder in finders if finder.way]
        if len(finders) > len(ways) or len(ways) > 1:
            query = select(*(finder.count(self._few + 1).label(f"n{n}") for n, finder in enumerate(finders)))
            counts = (await connection.execute(query)).one()
            fewest, finder = min(zip(counts, finders, strict=True), key=itemgetter(0))
            if fewest <= self._few:
                return finder
        return ways[0] if ways else EVERYTHING

    async def _examine(
        self,
        connection: AsyncConnection,
        way: Way,
        conditions: list[Condition],
        after: Position | None,
        wanted: int,
    ) -> tuple[list[Row[Any]], Position | None]:
        """Keys on a way that the conditions admit, as ``KEY_COLUMNS``, and where to go on, if there were too few.

        Keys that lie together cost a thousandth of a millisecond each, keys that lie apart and must be read first a
        hundredth. So it goes in stretches, each twice as long as the one before, until its time is up.
        """
        query = _stretch(way, conditions)
        found: list[Row[Any]] = []
        start = after or _NEWEST
        size, left = _FIRST_STRETCH, self._examined_max
        give_up = time.monotonic() + EXAMINE_SECONDS
        while True:
            size = min(size, left)
            stretch = {"after_time": start.time, "after_id": start.id, "size": size, "wanted": wanted - len(found)}
            rows = (await connection.execute(query, stretch)).all()
            found += (row for row in rows if row.id is not None)
            if rows[0].end_id is None or len(found) == wanted:
                return found, None
            start = Position(rows[0].end_time, rows[0].end_id)
            size, left = 2 * size, left - size
            if not left or time.monotonic() > give_up:
                return found, start

    async def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        """All rows of a query."""

        async def work(connection: AsyncConnection) -> list[Row[Any]]:
            return list(await connection.execute(query))

        return await self._database.read(work)


def _page_of_few(finder: Finder, conditions: list[Condition], after: Position | None, wanted: int) -> Select[Any]:
    """Those of few keys that the conditions admit, as ``KEY_COLUMNS``."""
    # OFFSET 0 keeps the other conditions, and with them their indexes, out of the search.
    few = select(key).where(finder.where).offset(0).subquery("few")
    query = select(*_key_columns(few)).where(*(condition.holds(few.c) for condition in conditions))
    return _page(query, few.c.create_time, few.c.id, after, wanted)


def _stretch(way: Way, conditions: list[Condition]) -> Select[Any]:
    """The first ``wanted`` of the next ``size`` keys on a way that the conditions admit, beside where these keys end.

    One statement, so that both are of one snapshot. There is always a row; that of no key has no id.
    """
    size: BindParameter[int] = bindparam("size", type_=Integer)
    stretch = way.select(*key.c).limit(size).subquery("stretch")
    found = select(stretch).where(*(condition.holds(stretch.c) for condition in conditions))
    page = found.order_by(*way.order(stretch.c)).limit(bindparam("wanted", type_=Integer)).subquery("page")
    ends = (key.c.create_time.label("end_time"), key.c.id.label("end_id"))
    end = way.select(*ends).offset(size - 1).limit(1).subquery("end")
    one = select(literal(1).label("one")).subquery("one")
    return (
        select(*end.c, *_key_columns(page))
        .select_from(one.outerjoin(end, true()).outerjoin(page, true()))
        .order_by(page.c.create_time.desc(), page.c.id.desc())
    )


def _key_columns(source: FromClause) -> tuple[ColumnElement[Any], ...]:
    """``KEY_COLUMNS`` of keys that a subquery has found. A look-up for each keeps their order, as a join may not."""
    name = select(workspace.c.name).where(workspace.c.id == source.c.workspace_id).scalar_subquery()
    return (*source.c, name.label("workspace"), is_revoking(source.c), *CLOCK_COLUMNS, USAGE_TIME)


def _page(
    query: Select[Any], time: ColumnElement[Any], item_id: ColumnElement[Any], after: Position | None, limit: int
) -> Select[Any]:
    """One page, newest first, of what is older than ``after``."""
    if after is not None:
        query = query.where(tuple_(time, item_id) < tuple_(after.time, after.id))
    return query.order_by(time.desc(), item_id.desc()).limit(limit)


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
