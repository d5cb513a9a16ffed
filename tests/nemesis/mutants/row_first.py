"""A member that deletes its row when it is asked to stop, and then goes on serving for a while."""

import asyncio
from typing import Any, Final

from keysvc import app
from keysvc.leasing import Parts
from keysvc.service.renewing import Renewing
from keysvc.stopping import stop_signal
from tests.nemesis.serving import serve

STAY_SECONDS: Final = 1.5


class Leaving(Renewing):
    """Gives up the membership, then the lease."""

    async def leave_first(self) -> None:
        """Delete the row, and renew no more."""
        assert self._running
        self._running.cancel()
        await self._membership.leave(self._rows)


_members: list[Leaving] = []


def _renewing(*arguments: Any, **named: Any) -> Leaving:
    _members.append(Leaving(*arguments, **named))
    return _members[0]


class _Late(asyncio.Event):
    """Is set a while after the signal."""

    async def wait(self) -> bool:
        """Wait for the signal, delete the row, and stay."""
        await super().wait()
        for member in _members:
            await member.leave_first()
        await asyncio.sleep(STAY_SECONDS)
        return True


def _late_signal() -> asyncio.Event:
    signalled, late = stop_signal(), _Late()
    task = asyncio.create_task(signalled.wait())
    task.add_done_callback(lambda _: late.set())
    return late


app.stop_signal = _late_signal
serve(Parts(renewing=_renewing))
