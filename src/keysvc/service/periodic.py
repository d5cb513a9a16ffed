"""Work that is done again and again while a server runs."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from keysvc.core.errors import Overloaded, Unavailable

_log = structlog.get_logger("keysvc.service")


class Periodic:
    """Does one piece of work again and again, each time a while after the last one ended.

    A database that is away is told of by those who read it; the work is simply tried again.

    Parameters:
        name: of the work, for the log.
        pause_seconds: how long a while is.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[None]], pause_seconds: float) -> None:
        self._name = name
        self._work = work
        self._pause_seconds = pause_seconds
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, at once."""
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Let the work under way finish, and do it no more."""
        self._stopping.set()
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._work()
            except (Unavailable, Overloaded):
                pass
            except Exception:  # noqa: BLE001 (whatever it is, the next time may be better)
                _log.exception("periodic work failed", work=self._name)
            pause = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait({pause}, timeout=self._pause_seconds)
            pause.cancel()
