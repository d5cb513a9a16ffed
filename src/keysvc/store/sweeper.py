"""Removes what is over."""

from datetime import timedelta

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.store.database import Database
from keysvc.store.schema import key_change, request, revocation_clock


class Sweeper:
    """Removes what is over.

    Parameters:
        database: where from.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remove_sealed_copies(self, repeatable: timedelta) -> None:
        """Remove the sealed copies of requests so long ago; their claims stay."""
        is_over = request.c.create_time <= func.clock_timestamp() - repeatable
        statement = (
            update(request).values(sealed=None, sealed_pepper=None).where(request.c.sealed.is_not(None), is_over)
        )

        async def work(connection: AsyncConnection, _attempt: int) -> None:
            await connection.execute(statement)

        await self._database.run(work, commit=True)

    async def trim_changes(self, kept: timedelta) -> None:
        """Remove changes from the log that everybody has known for so long.

        In one statement with the start of the log: who has not read them must see that they are gone.
        """
        is_over = key_change.c.at <= func.clock_timestamp() - kept
        gone = delete(key_change).where(key_change.c.final, is_over).returning(key_change.c.seq).cte("gone")
        last = select(func.max(gone.c.seq)).scalar_subquery()
        statement = (
            update(revocation_clock)
            .values(log_start=func.greatest(revocation_clock.c.log_start, last))
            .where(exists(select(gone.c.seq)))
        )

        async def work(connection: AsyncConnection, _attempt: int) -> None:
            await connection.execute(statement)

        await self._database.run(work, commit=True)
