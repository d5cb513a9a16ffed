"""Who waits for a connection that is in use."""

import asyncio
from collections import deque
from typing import Final

from keysvc.core.errors import Overloaded, Unavailable

WAITING_MAX: Final = 1_000


class Lane:
    """Connections of one kind, and who waits for one to be free.

    Parameters:
        connections_max: how many there are.
    """

    def __init__(self, connections_max: int) -> None:
        self._free = connections_max
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait for a connection to be free; raises what ``refuse`` is told."""
        if self._free:
            self._free -= 1
        elif len(self._waiting) < WAITING_MAX:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        else:
            raise Overloaded("too much work is waiting for the database")

    def leave(self) -> None:
        """Let the next one have the connection."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1

    def refuse(self, message: str) -> None:
        """Tell all who wait that the database cannot be reached."""
        while self._waiting:
            self._waiting.popleft().set_exception(Unavailable(message))
