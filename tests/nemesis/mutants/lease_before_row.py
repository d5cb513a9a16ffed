"""A member that takes its first leases before its row is there."""

import asyncio
from typing import Final

from keysvc.lease.news import News
from keysvc.leasing import Parts
from keysvc.service.renewing import Renewing
from tests.nemesis.serving import serve

ROW_SECONDS: Final = 12.0


class Hasty(Renewing):
    """Joins later."""

    async def start(self) -> None:
        """Answer from memory at once."""
        log = (await self._membership.fetch(0)).log
        self._holder.joined(self._new_id(), log)
        self._holder.renewed(self._clock(), News(log, ()))
        self._running = asyncio.create_task(self._run_without_row())

    async def _run_without_row(self) -> None:
        until = self._clock() + ROW_SECONDS
        while self._clock() < until:
            sent = self._clock()
            self._holder.renewed(sent, await self._membership.fetch(self._holder.applied.seq))
            await asyncio.sleep(0.8 * self._holder.terms.lease_seconds)
        self._holder.lose()
        await self._run()


serve(Parts(renewing=Hasty))
