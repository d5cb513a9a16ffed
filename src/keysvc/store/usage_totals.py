"""Totals of usage: batches are added to them, each once, and they are read back."""

import asyncio
import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice, starmap
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    Numeric,
    TableValuedAlias,
    Text,
    Update,
    Uuid,
    bindparam,
    cast,
    column,
    delete,
    func,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP, Insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from keysvc.core.errors import FailedPrecondition, PermissionDenied
from keysvc.core.listing import UsageFilter
from keysvc.core.usage import NO_KEY, Batch, Counter, Group, Tally
from keysvc.core.verdict import Verdict
from keysvc.store.database import Database
from keysvc.store.rows import USAGE_TIME
from keysvc.store.schema import key, key_activity, secret, usage_source, usage_total, workspace

TOTAL_MAX: Final = 2**63 - 1
"""Where units stop growing: callers choose how large they are."""

DEAD_SERVER: Final = timedelta(days=30)
"""Longer than any outage: a server that was cut off still has counts to write afterwards, under its next number."""

_ROWS_AT_ONCE: Final = 100
"""Are written as JSON before others have their turn; that takes a millisecond at most."""

_AMOUNTS: Final = ("verify_count", "success_count", "failure_count", "units")
_IDENTITY: Final = (usage_total.c.workspace, usage_total.c.key_id, usage_total.c.secret_id, usage_total.c.verdict)


class UsageTotals:
    """Keeps the totals of usage.

    Parameters:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_clock(self) -> datetime:
        """The database's clock."""

        async def work(connection: AsyncConnection) -> datetime:
            at: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
            return at

        return await self._database.read(work)

    async def find_owners(self, secret_ids: Collection[str]) -> dict[str, tuple[UUID, str]]:
        """Key and workspace of each secret that exists."""
        query = (
            select(secret.c.id, secret.c.key_id, workspace.c.name)
            .select_from(secret.join(key).join(workspace))
            .where(secret.c.id == func.any(literal(list(secret_ids), ARRAY(Text))))
        )

        async def work(connection: AsyncConnection) -> dict[str, tuple[UUID, str]]:
            return {row.id: (row.key_id, row.name) for row in await connection.execute(query)}

        return await self._database.read(work) if secret_ids else {}

    async def add(self, batch: Batch) -> bool:
        """Add a batch to the totals, durably; False: it had been added before.

        That is decided by one conditional statement: the source's number moves by one, or not at all. So a batch counts
        once, however often it is sent, over whatever connections, to whichever server; also when the answer of a commit
        was lost.

        Raises:
            PermissionDenied: the source is another caller's.
            FailedPrecondition: there is a gap before the batch, or another one was added under its number.
        """
        added, active = await _json(_added(batch)), await _json(_active(batch))

        async def work(connection: AsyncConnection, attempt: int) -> bool:
            if not await _take_number(connection, batch):
                await _check_repeated(connection, batch)
                # Another attempt of this very call added it, as far as anybody can tell.
                return attempt > 0
            if added:
                await connection.execute(_ADDITION, {"rows": added})
            if active:
                await connection.execute(_ACTIVITY, {"rows": active})
            return True

        return await self._database.run(work, commit=True)

    async def forget_source(self, source_id: str, owner: str) -> None:
        """Forget a source that will never send again."""
        statement = delete(usage_source).where(usage_source.c.id == source_id, usage_source.c.owner == owner)

        async def work(connection: AsyncConnection, _attempt: int) -> None:
            await connection.execute(statement)

        await self._database.run(work, commit=True)

    async def forget_dead_servers(self) -> None:
        """Forget servers that ended long ago without saying so. Nobody will ever send for them again."""
        statement = delete(usage_source).where(
            usage_source.c.as_of.is_not(None), usage_source.c.update_time < func.now() - DEAD_SERVER
        )

        async def work(connection: AsyncConnection, _attempt: int) -> None:
            await connection.execute(statement)

        await self._database.run(work, commit=True)

    async def list_totals(
        self, asked: UsageFilter, after: Counter | None, limit: int
    ) -> tuple[list[tuple[Counter, Tally]], datetime | None]:
        """Totals by workspace and group, in the order of ``Counter``, behind ``after``; and how fresh they are.

        What is not kept apart stands empty in the counter.
        """
        total = usage_total.c
        kept = [total.workspace]
        if asked.groups & {Group.KEY, Group.SECRET}:
            kept.append(total.key_id)
        if Group.SECRET in asked.groups:
            kept.append(total.secret_id)
        if Group.VERDICT in asked.groups:
            kept.append(total.verdict)
        sums = [func.sum(total[name]).label(name) for name in _AMOUNTS]
        query = select(*kept, *sums, func.max(total.last_time).label("last_time")).group_by(*kept).order_by(*kept)
        if asked.workspaces is not None:
            query = query.where(total.workspace.in_(asked.workspaces))
        if asked.key_id is not None:
            query = query.where(total.key_id == asked.key_id)
        if after is not None:
            position = dict(zip((each.name for each in _IDENTITY), _identity(after), strict=True))
            query = query.where(tuple_(*kept) > tuple_(*(position[each.name] for each in kept)))

        async def work(connection: AsyncConnection) -> tuple[list[tuple[Counter, Tally]], datetime | None]:
            # Before the totals: what they say is at least as fresh.
            usage_time = (await connection.execute(select(USAGE_TIME))).scalar_one()
            return [_total_of(row._asdict()) for row in await connection.execute(query.limit(limit))], usage_time

        return await self._database.read(work)


async def _take_number(connection: AsyncConnection, batch: Batch) -> bool:
    """Move the source's number to the batch's; False if it does not stand right before it."""
    source = usage_source.c
    values = {
        "batch_seq": batch.seq,
        "batch_digest": batch.digest,
        "update_time": func.clock_timestamp(),
        "as_of": batch.as_of,
    }
    if batch.seq == 1:
        first = upsert(usage_source).values(id=batch.source_id, owner=batch.owner, **values)
        statement: Any = first.on_conflict_do_nothing().returning(source.id)
    else:
        statement = (
            update(usage_source)
            .values(**values | {"as_of": func.coalesce(batch.as_of, source.as_of)})
            .where(source.id == batch.source_id, source.owner == batch.owner, source.batch_seq == batch.seq - 1)
            .returning(source.id)
        )
    return (await connection.execute(statement)).one_or_none() is not None


async def _check_repeated(connection: AsyncConnection, batch: Batch) -> None:
    """Raise unless the batch has been added before."""
    source = (await connection.execute(select(usage_source).where(usage_source.c.id == batch.source_id))).one_or_none()
    if source is not None and source.owner != batch.owner:
        raise PermissionDenied("source_id belongs to another caller: choose another one, such as a random UUID")
    last = 0 if source is None else source.batch_seq
    if last < batch.seq:
        raise FailedPrecondition(
            f"batch_seq must be {last + 1}, the next one of this source, or a repeat",
            expected_batch_seq=str(last + 1),
        )
    if source is not None and last == batch.seq and source.batch_digest != batch.digest:
        raise FailedPrecondition(
            f"another batch was recorded as batch_seq {batch.seq} of this source: "
            "a source that begins anew needs a new source_id",
            expected_batch_seq=str(last + 1),
        )


def _given(**columns: TypeEngine[Any]) -> TableValuedAlias:
    """Rows that come as one text: for many small rows that takes a third of the time of arrays."""
    given = func.json_to_recordset(cast(bindparam("rows", type_=Text()), JSON))
    return given.table_valued(*starmap(column, columns.items()), name="given").render_derived(with_types=True)


def _addition() -> Insert:
    """Adds tallies. Rows are locked in one order everywhere, so that batches do not block each other."""
    identity = {each.name: each.type for each in _IDENTITY}
    given = _given(**identity, **dict.fromkeys(_AMOUNTS, BigInteger()), last_time=TIMESTAMP(timezone=True))
    add = upsert(usage_total).from_select(
        list(given.c.keys()), select(*given.c).order_by(*(given.c[name] for name in identity))
    )
    total, new = usage_total.c, add.excluded
    return add.on_conflict_do_update(
        index_elements=list(_IDENTITY),
        set_={
            "verify_count": total.verify_count + new.verify_count,
            "success_count": total.success_count + new.success_count,
            "failure_count": total.failure_count + new.failure_count,
            "units": func.least(cast(total.units, Numeric) + new.units, TOTAL_MAX),
            "last_time": func.greatest(total.last_time, new.last_time),
        },
    )


def _activity() -> Update:
    """Moves the times of activity on. Rows are locked in one order everywhere."""
    given = _given(key_id=Uuid(), active_time=TIMESTAMP(timezone=True))
    locked = (
        select(key_activity.c.key_id)
        .where(key_activity.c.key_id.in_(select(given.c.key_id)))
        .order_by(key_activity.c.key_id)
        .with_for_update()
        .cte("locked")
    )
    return (
        update(key_activity)
        .values(active_time=func.greatest(key_activity.c.active_time, given.c.active_time))
        .where(key_activity.c.key_id == given.c.key_id, key_activity.c.key_id.in_(select(locked.c.key_id)))
    )


_ADDITION: Final = _addition()
_ACTIVITY: Final = _activity()


def _added(batch: Batch) -> Iterator[dict[str, str | int | None]]:
    """The rows of ``_addition``."""
    for counter, tally in batch.tallies.items():
        yield {
            "workspace": counter.workspace,
            "key_id": counter.key_id.hex,
            "secret_id": counter.secret_id,
            "verdict": counter.verdict or "",
            "verify_count": tally.verify_count,
            "success_count": tally.success_count,
            "failure_count": tally.failure_count,
            "units": tally.units,
            "last_time": tally.last_time.isoformat() if tally.last_time else None,
        }


def _active(batch: Batch) -> Iterator[dict[str, str]]:
    """The rows of ``_activity``: when each key was last accepted."""
    active: dict[UUID, datetime] = {}
    for counter, tally in batch.tallies.items():
        if counter.verdict is Verdict.VALID and tally.last_time is not None:
            active[counter.key_id] = max(tally.last_time, active.get(counter.key_id, tally.last_time))
    for key_id, time in active.items():
        yield {"key_id": key_id.hex, "active_time": time.isoformat()}


async def _json(rows: Iterator[Mapping[str, object]]) -> str:
    """Rows as one text, empty if there are none. Others have their turn in between: a batch may take milliseconds."""
    parts = []
    while part := list(islice(rows, _ROWS_AT_ONCE)):
        parts.append(json.dumps(part)[1:-1])
        await asyncio.sleep(0)
    return f"[{','.join(parts)}]" if parts else ""


def _identity(counter: Counter) -> tuple[str, UUID, str, str]:
    """The primary key of a counter's row."""
    return counter.workspace, counter.key_id, counter.secret_id, counter.verdict or ""


def _total_of(row: dict[str, Any]) -> tuple[Counter, Tally]:
    """A row of ``list_totals``."""
    verdict = row.get("verdict")
    counter = Counter(
        row["workspace"], row.get("key_id", NO_KEY), row.get("secret_id", ""), Verdict(verdict) if verdict else None
    )
    return counter, Tally(last_time=row["last_time"], **{name: int(row[name]) for name in _AMOUNTS})
