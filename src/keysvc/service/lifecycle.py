"""Suspends, resumes and revokes keys."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from operator import attrgetter
from uuid import UUID

from keysvc.core.errors import FailedPrecondition, NotFound
from keysvc.core.key import Key, Revocation
from keysvc.core.receipt import Receipt
from keysvc.core.revision import Revision
from keysvc.service.callers import Call, is_usable_operator, key_not_found
from keysvc.service.confirming import ChangeRequest, Confirming
from keysvc.service.ports import Transaction


class Lifecycle:
    """Changes of what a key may still do. Each is safe to repeat: a repeat changes nothing and answers the same."""

    def __init__(self, confirming: Confirming) -> None:
        self._confirming = confirming

    async def suspend(self, call: Call, key_id: UUID, asked: ChangeRequest) -> tuple[Key, Receipt]:
        """Refuse a key until ``resume``.

        Raises:
            NotFound: no such key.
            FailedPrecondition: it is revoked, or the last usable operator key.
        """
        return await self._change(call, key_id, asked, lambda key: _with_suspension(key, suspended=True))

    async def resume(self, call: Call, key_id: UUID, asked: ChangeRequest) -> tuple[Key, Receipt]:
        """End a suspension.

        Raises:
            NotFound: no such key.
            FailedPrecondition: it is revoked.
        """
        return await self._change(call, key_id, asked, lambda key: _with_suspension(key, suspended=False))

    async def _change(
        self, call: Call, key_id: UUID, asked: ChangeRequest, decide: Callable[[Key], Key]
    ) -> tuple[Key, Receipt]:
        """Lock the key, decide what becomes of it, and save that if it is anything new."""

        async def work(transaction: Transaction) -> Key:
            before = await lock_key(call, key_id, transaction)
            after = decide(before)
            if after == before:
                return before
            await check_operator_remains(before, after, transaction)
            return await transaction.save_key(before, after)

        recall = partial(find_key, key_id)
        return await self._confirming.make(call, asked, work, recall, attrgetter("revision"))

    async def revoke(
        self, call: Call, key_id: UUID, secret_id: str | None, asked: ChangeRequest
    ) -> tuple[Key, Receipt]:
        """Revoke a key, or one secret of it, for ever. The first revocation stays: its time, reason and revision.

        Until everybody knows the state is REVOKING. Revoking again waits for the same, and answers the same.

        Raises:
            NotFound: no such key, or no such secret of it.
            FailedPrecondition: it is the last usable operator key.
        """

        async def work(transaction: Transaction) -> Key:
            before = await lock_key(call, key_id, transaction)
            revocation = Revocation(transaction.at, asked.reason, final=False)
            if secret_id is None:
                after = before if before.revocation else replace(before, revocation=revocation)
            else:
                after = _with_secret_revoked(before, secret_id, revocation)
            if after == before:
                return before
            await check_operator_remains(before, after, transaction)
            return await transaction.save_key(before, after, secret_id=secret_id)

        revision_of = partial(_revision_of_revocation, secret_id)
        key, receipt = await self._confirming.make(call, asked, work, partial(find_key, key_id), revision_of)
        return (key.with_final(receipt.revision) if receipt.is_complete else key), receipt


def find_key(key_id: UUID, transaction: Transaction) -> Awaitable[Key]:
    """The key as it is after a change of it."""
    return transaction.find_key(key_id)


def _revision_of_revocation(secret_id: str | None, key: Key) -> Revision:
    """Of the revocation of a key, or of one of its secrets, that is there already."""
    secret = key.secret(secret_id) if secret_id else None
    revocation = secret.revocation if secret else key.revocation
    return (revocation and revocation.revision) or key.revision


async def lock_key(call: Call, key_id: UUID, transaction: Transaction) -> Key:
    """The locked key, if the caller may know of it and change it."""
    key = await transaction.lock_key(key_id)
    if key is None or not call.caller.sees(key.workspace):
        raise key_not_found(key_id)
    call.caller.check_operator(key.workspace)
    return key


def _with_suspension(key: Key, *, suspended: bool) -> Key:
    """The key suspended or not; a revoked one stays as it is for ever."""
    if key.revocation:
        raise FailedPrecondition(f"key {key.id} is revoked, which is for ever", key_id=str(key.id))
    return replace(key, suspended=suspended)


def _with_secret_revoked(key: Key, secret_id: str, revocation: Revocation) -> Key:
    """The key with one secret revoked, unless that is so already."""
    secret = key.secret(secret_id)
    if secret is None:
        raise NotFound(f"key {key.id} has no secret {secret_id}", key_id=str(key.id), secret_id=secret_id)
    if secret.revocation:
        return key
    revoked = replace(secret, revocation=revocation)
    return replace(key, secrets=tuple(revoked if each is secret else each for each in key.secrets))


async def check_operator_remains(before: Key, after: Key, transaction: Transaction) -> None:
    """Raise ``FailedPrecondition`` if the change would leave nobody who can administer keysvc."""
    if not is_usable_operator(before) or is_usable_operator(after):
        return
    others = await transaction.lock_callers()
    if not any(is_usable_operator(other) for other in others if other.id != before.id):
        raise FailedPrecondition(
            "it is the last usable operator key: create another one first (keysvc bootstrap --another)",
            key_id=str(before.id),
        )
