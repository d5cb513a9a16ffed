"""Look-ups: gathered, bounded, and shed when there are too many."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from keysvc.core.errors import Overloaded
from keysvc.core.verdict import Snapshot
from keysvc.store.lookups import BATCH_MAX, CROWD, CROWD_SECONDS, WAITING_MAX, Lookups
from tests.proxy import Proxy


class Silenced:
    """Look-ups in an empty database that can be made to wait."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.lookups = Lookups(proxy.url, lambda about: about.owner.encode(), limit_seconds=60)

    async def find(self) -> Snapshot:
        """Look for a secret that there is not."""
        return await self.lookups.find(secrets.token_hex(8)[:15])

    async def start(self, count: int) -> list["asyncio.Task[Snapshot]"]:
        """Look for so many at once; what can leave has left afterwards."""
        tasks = [asyncio.create_task(self.find()) for _ in range(count)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks


@pytest.fixture
async def silenced(database_url: str) -> AsyncIterator[Silenced]:
    """One statement is on its way, and is not answered before the proxy thaws."""
    proxy = Proxy(database_url)
    await proxy.start()
    silenced = Silenced(proxy)
    await silenced.find()
    proxy.freeze()
    sent = await silenced.start(1)
    yield silenced
    proxy.thaw()
    await sent[0]
    await silenced.lookups.close()
    await proxy.stop()


async def test_a_queue_that_does_not_get_shorter_refuses_at_once(silenced: Silenced) -> None:
    """A crowd is let in; where it still waits after a while nobody else is, until it has its answers."""
    waiting = await silenced.start(CROWD)
    waiting += await silenced.start(1)
    await asyncio.sleep(1.1 * CROWD_SECONDS)
    with pytest.raises(Overloaded):
        await silenced.find()
    silenced.proxy.thaw()
    assert [snapshot.record for snapshot in await asyncio.gather(*waiting)] == [None] * (CROWD + 1)
    assert (await silenced.find()).record is None


async def test_few_wait_for_as_long_as_it_takes(silenced: Silenced) -> None:
    """A database that is slow for a moment is no reason to refuse what it can answer then."""
    waiting = await silenced.start(CROWD - 1)
    await asyncio.sleep(1.1 * CROWD_SECONDS)
    waiting += await silenced.start(1)
    silenced.proxy.thaw()
    assert len(await asyncio.gather(*waiting)) == CROWD


async def test_there_is_an_end_to_what_waits(silenced: Silenced) -> None:
    """However quickly it comes."""
    waiting = await silenced.start(WAITING_MAX + 10)
    silenced.proxy.thaw()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(result, Overloaded) for result in results) >= 10
    assert sum(isinstance(result, Snapshot) for result in results) >= CROWD
    assert {type(result) for result in results} == {Overloaded, Snapshot}


async def test_look_ups_of_one_secret_that_wait_take_one_place(silenced: Silenced) -> None:
    """However many ask for it, it is asked for once."""
    one = secrets.token_hex(8)[:15]
    waiting = [asyncio.create_task(silenced.lookups.find(one)) for _ in range(2 * WAITING_MAX)]
    await asyncio.sleep(0)
    silenced.proxy.thaw()
    snapshots = await asyncio.gather(*waiting)
    assert all(snapshot is snapshots[0] for snapshot in snapshots)


async def test_those_who_wait_travel_together(silenced: Silenced) -> None:
    """A statement takes as many as it may: all of one have the same clock, and the next one a later one."""
    waiting = await silenced.start(BATCH_MAX + 1)
    silenced.proxy.thaw()
    times = [snapshot.at for snapshot in await asyncio.gather(*waiting)]
    assert len(set(times[:BATCH_MAX])) == 1
    assert times[BATCH_MAX] > times[0]
