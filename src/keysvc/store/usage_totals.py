"""Totals of usage: batches are added to them, each once, and they are read back."""

import asyncio
import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Text, TextClause, bindparam, delete, func, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.core.errors import FailedPrecondition, PermissionDenied
from keysvc.core.listing import UsageFilter
from keysvc.core.usage import NO_KEY, Batch, Counter, Group, Tally
from keysvc.core.verdict import Verdict
from keysvc.store.database import Database
from keysvc.store.rows import USAGE_TIME
from keysvc.store.schema import key, secret, usage_source, usage_total, workspace

TOTAL_MAX: Final = 2**63 - 1
"""Where units stop growing: callers choose how large they are."""

DEAD_SERVER: Final = timedelta(days=30)
"""Longer than any outage: a server that was cut off still has counts to write afterwards, under its next number."""

ACTIVITY_LAG: Final = timedelta(minutes=1)
"""How much older than the totals the time of a key's activity may be: an index has it, so that to move it is dear."""

_ROWS_AT_ONCE: Final = 100
"""Are written as JSON before others have their turn; that takes a millisecond at most."""

_AMOUNTS: Final = ("verify_count", "success_count", "failure_count", "units")
_IDENTITY: Final = (usage_total.c.workspace, usage_total.c.key_id, usage_total.c.secret_id, usage_total.c.verdict)

_TAKE_FIRST: Final = """
    INSERT INTO usage_source (id, owner, batch_seq, batch_digest, update_time, as_of)
    VALUES (:source, :owner, :seq, :digest, clock_timestamp(), :as_of)
    ON CONFLICT DO NOTHING RETURNING id
"""
_TAKE_NEXT: Final = """
    UPDATE usage_source
       SET batch_seq = :seq, batch_digest = :digest, update_time = clock_timestamp(),
           as_of = coalesce(:as_of, as_of)
     WHERE id = :source AND owner = :owner AND batch_seq = :seq - 1
 RETURNING id
"""
# Rows as one text take a third of the time of arrays. They are locked in one order everywhere, so none wait in a ring.
_ADD: Final = """
    rows AS MATERIALIZED (
        SELECT workspace, key_id, secret_id, verdict, verify_count, success_count, failure_count, units,
               -- Of Verifies, and not in the future: callers report them too.
               CASE WHEN verdict <> '' THEN least(last_time, clock_timestamp()) END AS last_time
          FROM json_to_recordset(CAST(:rows AS json)) AS given (
            workspace text COLLATE "C", key_id uuid, secret_id text COLLATE "C", verdict text COLLATE "C",
            verify_count bigint, success_count bigint, failure_count bigint, units bigint, last_time timestamptz)
         WHERE EXISTS (SELECT FROM taken)
    ),
    added AS (
        INSERT INTO usage_total AS total (workspace, key_id, secret_id, verdict,
                                          verify_count, success_count, failure_count, units, last_time)
        SELECT * FROM rows ORDER BY workspace, key_id, secret_id, verdict
            ON CONFLICT (workspace, key_id, secret_id, verdict) DO UPDATE
           SET verify_count = total.verify_count + excluded.verify_count,
               success_count = total.success_count + excluded.success_count,
               failure_count = total.failure_count + excluded.failure_count,
               units = least(CAST(total.units AS numeric) + excluded.units, :total_max),
               last_time = greatest(total.last_time, excluded.last_time)
    ),
    accepted AS (
        SELECT key_id, max(last_time) AS time FROM rows WHERE verdict = :valid GROUP BY key_id
    ),
    old AS (
        SELECT key_id, time FROM key_activity JOIN accepted USING (key_id)
         WHERE active_time < time - :lag ORDER BY key_id FOR UPDATE OF key_activity
    ),
    moved AS (
        UPDATE key_activity SET active_time = greatest(active_time, time) FROM old
         WHERE key_activity.key_id = old.key_id
    )
    SELECT count(*) FROM taken
"""


def _adding(taking: str) -> TextClause:
    """The statement that adds a batch if its number can be taken, and tells whether it was."""
    return text(f"WITH taken AS ({taking}), {_ADD}").bindparams(
        bindparam("rows", type_=Text()),
        bindparam("as_of", type_=TIMESTAMP(timezone=True)),
        total_max=TOTAL_MAX,
        valid=Verdict.VALID,
        lag=ACTIVITY_LAG,
    )


_FIRST: Final = _adding(_TAKE_FIRST)
_NEXT: Final = _adding(_TAKE_NEXT)


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
        statement = _FIRST if batch.seq == 1 else _NEXT
        values = {
            "source": batch.source_id,
            "owner": batch.owner,
            "seq": batch.seq,
            "digest": batch.digest,
            "as_of": batch.as_of,
            "rows": await _json(_rows_of(batch)),
        }

        async def work(connection: AsyncConnection, attempt: int) -> bool:
            if (await connection.execute(statement, values)).scalar_one():
                return True
            await _check_repeated(connection, batch)
            # Another attempt of this very call added it, as far as anybody can tell.
            return attempt > 0

        return await self._database.run_alone(work)

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


def _rows_of(batch: Batch) -> Iterator[dict[str, str | int | None]]:
    """What ``_ADD`` calls ``rows``."""
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


async def _json(rows: Iterator[Mapping[str, object]]) -> str:
    """Rows as one text. Others have their turn in between: a batch may take milliseconds."""
    parts = []
    while part := list(islice(rows, _ROWS_AT_ONCE)):
        parts.append(json.dumps(part)[1:-1])
        await asyncio.sleep(0)
    return f"[{','.join(parts)}]"


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
