"""A supervisor that removes the rows of all workers when one of them has ended: they can join again."""

from typing import Any
from uuid import UUID

from keysvc import workers
from keysvc.store.leases import remove_members
from tests.nemesis.serving import serve


async def remove(database: Any, *_: UUID, granting: bool) -> None:
    """Remove whatever there is."""
    await remove_members(database, UUID(int=0), UUID(int=2**128 - 1), granting=granting)


workers.remove_members = remove
serve()
