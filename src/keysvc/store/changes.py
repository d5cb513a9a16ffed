"""Changes: conditional transactions that say who made them and take their place in the log.

The outcome of a commit is unknown when its connection is lost before the answer comes. Reading back does not settle
it: that commit may still be on its way. Running the same transaction again does: it waits for the lost one's locks, and
then the audit event, whose id both carry, is there or is not.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.core.audit import Stamp
from keysvc.lease.barrier import Commit
from keysvc.store.database import Database
from keysvc.store.transaction import AlreadyCommittedError, Transaction

T = TypeVar("T")


class Changes:
    """Runs changes.

    Parameters:
        database: where to.
        timeline: SQL of the database's timeline.
    """

    def __init__(self, database: Database, timeline: str) -> None:
        self._database = database
        self._timeline = timeline

    async def run(
        self,
        stamp: Stamp,
        work: Callable[[Transaction], Awaitable[T]],
        recall: Callable[[Transaction], Awaitable[T]],
    ) -> T:
        """Make one change, once, whatever happens to its connections.

        The change is durable when this returns (``synchronous_commit = on``), and then every later read sees it.

        Parameters:
            stamp: who makes it; becomes the audit event.
            work: takes its locks, decides, and saves or inserts at most one thing. Its result is returned.
            recall: reads the same result, for when an earlier attempt turns out to have been committed.

        Raises:
            Unavailable: the database did not answer in time; it is unknown whether the change was made.
            Whatever ``work`` raises: then nothing was changed.
        """

        async def attempt(connection: AsyncConnection, number: int) -> T:
            transaction = Transaction(connection, stamp, timeline=self._timeline, is_first=number == 0)
            try:
                await transaction.settle()
                return await work(transaction)
            except AlreadyCommittedError:
                result = await recall(transaction)
                await connection.rollback()  # nothing to commit, so no commit that could be lost again
                return result
            except IntegrityError as error:
                # The lost attempt's commit arrived between our look for its event and our own insert.
                if number:
                    raise OperationalError(error.statement, None, error.orig or error) from error
                raise

        return await self._database.run(attempt, commit=True)

    async def commit(
        self,
        stamp: Stamp,
        work: Callable[[Transaction], Awaitable[T]],
        recall: Callable[[Transaction], Awaitable[T]],
    ) -> tuple[T, Commit]:
        """As ``run``, for a change that somebody waits for until everybody knows; also where it was committed."""

        async def with_commit(
            transaction: Transaction, part: Callable[[Transaction], Awaitable[T]]
        ) -> tuple[T, Commit]:
            return await part(transaction), await transaction.read_commit()

        return await self.run(
            stamp,
            lambda transaction: with_commit(transaction, work),
            lambda transaction: with_commit(transaction, recall),
        )
