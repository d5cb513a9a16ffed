"""A revoker that says REVOKED when it has committed, and not only when everybody knows."""

import asyncio

from keysvc.core.receipt import Path
from keysvc.lease.barrier import Barrier, Commit
from keysvc.leasing import Parts
from keysvc.service.waiting import Waiting
from tests.nemesis.serving import serve


class Rash(Waiting):
    """Marks revocations as final at the beginning of their barrier."""

    def open(self, commit: Commit) -> tuple[Barrier, asyncio.Future[Path]]:
        """Mark it, and wait all the same."""
        self._marking = asyncio.create_task(self._registry.mark_final([commit.revision.seq]))
        return super().open(commit)


serve(Parts(waiting=Rash))
