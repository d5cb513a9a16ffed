"""A collector that takes members for dead which have not renewed for a quarter of their lease."""

import asyncio
from typing import Any

from keysvc.lease.collector import Collector
from keysvc.lease.terms import Terms
from keysvc.leasing import Parts
from keysvc.service.waiting import Waiting
from tests.nemesis.serving import serve


class Hasty(Terms):
    """Has no patience."""

    def collect_seconds(self, lease_ms: int) -> float:
        """How soon."""
        return lease_ms / 4000


class Eager(Waiting):
    """Looks for dead members all the time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._collector = Collector(Hasty(self._terms.lease_seconds, self._terms.renew_seconds))

    async def sweep(self) -> None:
        """Look ten times as often."""
        for _ in range(10):
            await super().sweep()
            await asyncio.sleep(0.1)


serve(Parts(waiting=Eager))
