"""Upkeep: what operators do to a whole deployment, from where its database is."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final
from uuid import uuid4

from keysvc.core.errors import FailedPrecondition, NotFound
from keysvc.core.permission import Permission
from keysvc.core.receipt import Receipt
from keysvc.core.revision import Revision
from keysvc.service.callers import Call, Caller
from keysvc.service.confirming import ChangeRequest, Confirming
from keysvc.service.ports import Changes, Transaction

ACTOR: Final = "command line"
"""The actor of these changes in the audit log: whoever can reach the database."""


def command_call(command: str) -> Call:
    """The call of a command, for the audit log."""
    return Call(Caller(ACTOR, (Permission.OPERATOR,)), command, str(uuid4()), "")


class Upkeep:
    """Changes of a deployment."""

    def __init__(self, changes: Changes, confirming: Confirming) -> None:
        self._changes = changes
        self._confirming = confirming

    async def bump(self, call: Call, asked: ChangeRequest, *, new_epoch: bool) -> Receipt:
        """Let every server forget what it remembers: rows were changed by hand, or the database was restored.

        Parameters:
            new_epoch: revisions from before mean nothing any more, as after a restored backup.
        """
        epoch = uuid4() if new_epoch else None

        async def work(transaction: Transaction) -> Revision:
            await transaction.read_clock()
            return await transaction.forget_everything(epoch)

        return await self._confirm(call, asked, work)

    async def activate_pepper(
        self, call: Call, asked: ChangeRequest, fingerprint: bytes, holders: Mapping[str, Collection[bytes]]
    ) -> None:
        """Make new digests under a pepper; servers that run notice within a second or two.

        Parameters:
            holders: the peppers of each server that runs.

        Raises:
            FailedPrecondition: it is retired, or a server lacks it, so that it could not read what others make.
        """
        lacking = sorted(host for host, peppers in holders.items() if fingerprint not in peppers)

        async def work(transaction: Transaction) -> None:
            state = await transaction.lock_pepper(fingerprint)
            if state is not None and state.retire_time is not None:
                raise FailedPrecondition(f"pepper {fingerprint.hex()} is retired, which is for ever")
            if lacking:
                raise FailedPrecondition(f"these servers do not have pepper {fingerprint.hex()}: {', '.join(lacking)}")
            if state is None or not state.signing:
                await transaction.activate_pepper(fingerprint)

        await self._changes.run(call.stamp(asked.reason), work, _nothing)

    async def retire_pepper(self, call: Call, asked: ChangeRequest, fingerprint: bytes, *, force: bool) -> Receipt:
        """Accept no secret under a pepper any more, for ever. Safe to repeat.

        Parameters:
            force: also if secrets that are not revoked are lost with it.

        Raises:
            NotFound: no secret was ever made under it.
            FailedPrecondition: it signs, or secrets would be lost.
        """

        async def work(transaction: Transaction) -> Revision:
            state = await transaction.lock_pepper(fingerprint)
            if state is None:
                raise NotFound(f"there is no pepper {fingerprint.hex()} in this database")
            if state.signing:
                raise FailedPrecondition(f"pepper {fingerprint.hex()} signs: activate another one first")
            if state.living and state.retire_time is None and not force:
                raise FailedPrecondition(
                    f"{state.living} secrets that are not revoked would never be accepted again: each moves to the "
                    "pepper that signs when it is next looked up; rotate or revoke what is left, or use --force"
                )
            return await transaction.retire_pepper(fingerprint)

        return await self._confirm(call, asked, work)

    async def limit_leases(self, call: Call, asked: ChangeRequest, lease_ms_max: int) -> None:
        """Allow leases of servers up to so long.

        Raises:
            FailedPrecondition: servers that run have longer ones.
        """

        async def work(transaction: Transaction) -> None:
            hosts = await transaction.limit_leases(lease_ms_max)
            if hosts:
                raise FailedPrecondition(f"these servers have longer leases: {', '.join(hosts)}")

        await self._changes.run(call.stamp(asked.reason), work, _nothing)

    async def _confirm(
        self, call: Call, asked: ChangeRequest, work: Callable[[Transaction], Awaitable[Revision]]
    ) -> Receipt:
        _, receipt = await self._confirming.make(
            call, asked, work, lambda again: again.find_revision(), lambda revision: revision
        )
        return receipt


async def _nothing(_transaction: Transaction) -> None:
    """There is nothing to read back."""
