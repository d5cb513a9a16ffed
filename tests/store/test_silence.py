"""A database that falls silent: what is given up is closed only when nothing waits at its socket any more.

libuv ends the process when it is told to wait at the number of a socket that was closed while it was waited for, and
has been given to another one since. So the loop of these tests takes note of whoever comes too late.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import pytest
from sqlalchemy import text

from keysvc.core.errors import Unavailable
from keysvc.store.database import Database
from keysvc.store.leases import Listener
from keysvc.store.line import Line
from tests.nemesis.link import WAKE_UPS, Link

LIMIT_SECONDS = 0.3


class WatchingLoop(asyncio.SelectorEventLoop):
    """An event loop that knows what has been closed while it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.closed_too_early = list[int]()

    def remove_reader(self, fd: Any) -> bool:
        """Wait no more until something can be read."""
        try:
            os.fstat(fd)
        except OSError:
            self.closed_too_early.append(fd)
        return super().remove_reader(fd)


async def listen(link: Link) -> None:
    """Listen until somebody asks whether the connection still lives, and then listen again."""
    listener = Listener(link.url(), lambda _: None, LIMIT_SECONDS, silence_seconds=0.05)
    listener.start()
    await until_connected(link, 1)
    link.delay(0, inf)
    await until_connected(link, 2)  # The first one has been given up.
    link.delay()
    await link.until_carried(WAKE_UPS)
    await listener.stop()


async def stop_listening(link: Link) -> None:
    """Stop while an answer is waited for."""
    listener = Listener(link.url(), lambda _: None, 20, silence_seconds=0.05)
    listener.start()
    await until_connected(link, 1)
    link.delay(0, inf)
    await link.until_carried(WAKE_UPS)
    await listener.stop()


async def ask_on_a_line(link: Link) -> None:
    """One statement that nobody answers in time, one whose caller goes away, and one to a database that is back."""
    line = Line(link.url(), "keysvc", LIMIT_SECONDS)
    await line.ask("SELECT 1")
    link.freeze()
    with pytest.raises(Unavailable):
        await line.ask("SELECT 1")
    await goes_away(line.ask("SELECT 1"))
    link.thaw()
    assert await line.ask("SELECT 2") == [(2,)]
    link.freeze()
    await goes_away(line.ask("SELECT 1"))
    link.thaw()
    await line.close()


async def work_in_transactions(link: Link) -> None:
    """The same in transactions, and in single reads."""
    database = Database(link.url(), limit_seconds=LIMIT_SECONDS)

    async def number(connection: Any, *_: int) -> int:
        return int(await connection.scalar(text("SELECT 1")))

    for work in (lambda: database.run(number, commit=True), lambda: database.read(number)):
        assert await work() == 1
        link.freeze()
        with pytest.raises(Unavailable):
            await work()
        await goes_away(work())
        link.thaw()
        assert await work() == 1
    await database.close()


async def goes_away(call: Awaitable[Any]) -> None:
    """A caller that does not wait for the answer."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, LIMIT_SECONDS / 3)


async def until_connected(link: Link, times: int) -> None:
    """Wait until connections have been made so often, and something was said on the last one."""
    async with asyncio.timeout(20):
        while link.connections < times:  # noqa: ASYNC110 (the link is in another thread)
            await asyncio.sleep(0.01)
        while not link.carried[WAKE_UPS]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("work", [listen, stop_listening, ask_on_a_line, work_in_transactions])
def test_nothing_is_closed_that_is_still_waited_for(link: Link, work: Callable[[Link], Awaitable[None]]) -> None:
    """However a statement is given up."""
    loop = WatchingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work(link))
    assert loop.closed_too_early == []
