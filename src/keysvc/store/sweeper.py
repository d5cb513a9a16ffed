"""Removes what is over."""

from datetime import timedelta

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.store.database import Database
from keysvc.store.schema import request


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
