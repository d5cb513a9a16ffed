"""What callers of a simulated server change, and what they are told."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keysvc.core.audit import Stamp
from keysvc.core.errors import KeysvcError, Unavailable
from keysvc.core.key import Key
from keysvc.core.permission import Permission
from keysvc.core.receipt import Path, Receipt
from keysvc.core.revision import Revision
from keysvc.service.callers import Call, Caller
from keysvc.service.confirming import NOTHING_SAID, Confirming
from keysvc.service.lifecycle import Lifecycle
from keysvc.service.tenancy import Tenancy
from keysvc.service.upkeep import Upkeep
from keysvc.service.waiting import COUNT_LIMIT_SECONDS
from tests.lease.simulation.changes import Transaction, TwinChanges
from tests.lease.simulation.content import Place

if TYPE_CHECKING:
    from tests.lease.simulation.process import Process
    from tests.lease.simulation.world import World

SLACK_SECONDS = 2 * 1.2 + 2 * COUNT_LIMIT_SECONDS
"""A change may take that much longer than its barrier: for itself, and for statements that nobody answers."""


@dataclass(frozen=True)
class Stamped(Call):
    """A call of which it is known which audit events it tries to write."""

    stamps: "tuple[list[Stamp], ...]" = ()

    def stamp(self, reason: str = "") -> Stamp:
        """As the real one."""
        made = Call.stamp(self, reason)
        self.stamps[0].append(made)
        return made


class Calls:
    """Changes that one server is asked for."""

    def __init__(self, world: "World", process: "Process", changes: TwinChanges, confirming: Confirming) -> None:
        self._world = world
        self._process = process
        self._confirming = confirming
        self._lifecycle = Lifecycle(confirming)
        self._tenancy = Tenancy(changes, confirming)
        self._upkeep = Upkeep(changes, confirming)

    def revoke(self, place: Place) -> None:
        """Revoke a key."""

        async def make(call: Call) -> tuple[Key, Receipt]:
            key, receipt = await self._lifecycle.revoke(call, place.key_id, None, NOTHING_SAID)
            if key.revocation is not None and key.revocation.final:
                self._world.promises.told_revoked(place)
            return key, receipt

        self._change(f"revokes {place.name}", make)

    def suspend(self, place: Place) -> None:
        """Suspend a key."""
        self._change(f"suspends {place.name}", lambda call: self._lifecycle.suspend(call, place.key_id, NOTHING_SAID))

    def resume(self, place: Place) -> None:
        """Resume a key."""
        self._change(f"resumes {place.name}", lambda call: self._lifecycle.resume(call, place.key_id, NOTHING_SAID))

    def rename(self, place: Place) -> None:
        """Give a key another owner."""

        async def work(transaction: Transaction) -> Key:
            before = await transaction.lock_key(place.key_id)
            return await transaction.save_key(before, replace(before, owner=f"{before.owner}+"))

        def make(call: Call) -> Awaitable[tuple[Key, Receipt]]:
            return self._confirming.make(
                call, NOTHING_SAID, work, lambda again: again.find_key(place.key_id), lambda key: key.revision
            )

        self._change(f"gives {place.name} another owner", make)

    def suspend_home(self, name: str) -> None:
        """Suspend a workspace."""
        self._change(f"suspends {name}", lambda call: self._tenancy.suspend(call, name, NOTHING_SAID))

    def resume_home(self, name: str) -> None:
        """Resume a workspace."""
        self._change(f"resumes {name}", lambda call: self._tenancy.resume(call, name, NOTHING_SAID))

    def retire(self, place: Place) -> None:
        """Retire the pepper that a key is under, and no other key."""
        self._set_hidden(f"retires the pepper of {place.name}", place, is_hidden=True)

    def bring_in(self, place: Place) -> None:
        """Import a key."""
        self._set_hidden(f"imports {place.name}", place, is_hidden=False)

    def _set_hidden(self, what: str, place: Place, *, is_hidden: bool) -> None:
        async def work(transaction: Transaction) -> Revision:
            return await transaction.set_hidden(place.key_id, is_hidden=is_hidden)

        def make(call: Call) -> Awaitable[tuple[Revision, Receipt]]:
            return self._confirming.make(
                call, NOTHING_SAID, work, lambda again: again.find_revision(), lambda revision: revision
            )

        self._change(what, make)

    def bump(self, *, new_epoch: bool) -> None:
        """Let everybody forget everything."""

        async def make(call: Call) -> tuple[None, Receipt]:
            return None, await self._upkeep.bump(call, NOTHING_SAID, new_epoch=new_epoch)

        self._change("bumps, to another epoch" if new_epoch else "bumps", make)

    def _change(self, what: str, make: Callable[[Call], Awaitable[tuple[Any, Receipt]]]) -> None:
        """Make a change, and look at what is said of it."""
        world, process = self._world, self._process
        if world.is_astray:
            return
        stamps: list[Stamp] = []
        call = Stamped(Caller("test", (Permission.OPERATOR,)), "test", "", "", stamps=(stamps,))

        async def change() -> None:
            began, before = process.clock(), (world.disturbances, world.twin.epoch)
            world.changing += 1
            try:
                _, receipt = await make(call)
            except Unavailable as error:
                world.tell(f"{process.name} {what}: nobody knows, {error}")
                world.seen["nobody knows"] += 1
            except KeysvcError as error:
                world.tell(f"{process.name} {what}: nothing was changed, {error}")
                world.denied |= {stamp.event_id for stamp in stamps}
            else:
                world.tell(f"{process.name} {what}: {receipt.path or 'pending'} at revision {receipt.revision.seq}")
                world.seen[receipt.path] += 1
                world.promises.confirmed(process.name, receipt)
                if before == (world.disturbances, world.twin.epoch):
                    self._check_duration(receipt, process.clock() - began)
            finally:
                world.changing -= 1

        world.tell(f"{process.name} {what}")
        process.spawn(change)

    def _check_duration(self, receipt: Receipt, seconds: float) -> None:
        """No change waits for longer than it must, and none for the end of leases that can go on."""
        world, name = self._world, self._process.name
        if seconds > self._process.terms.wait_seconds(world.twin.lease_ms_max) + SLACK_SECONDS:
            world.wrong(f"(T): {name} has waited for {seconds:.3f} s")
        if receipt.path is Path.TIMER and seconds < min(each.lease_seconds for each in world.setting.machines):
            world.wrong(f"(T): {name} has waited for {seconds:.3f} s only")
