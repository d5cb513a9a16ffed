"""Suspends, resumes and revokes keys."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from keysvc.core.errors import FailedPrecondition, NotFound
from keysvc.core.key import Key, Revocation, State
from keysvc.service.callers import Call, is_usable_operator, key_not_found
from keysvc.service.ports import Changes, Transaction


class Lifecycle:
    """Changes of what a key may still do. Each is safe to repeat: a repeat changes nothing and answers the same."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    async def suspend(self, call: Call, key_id: UUID, reason: str) -> Key:
        """Refuse a key until ``resume``.

        Raises:
            NotFound: no such key.
            FailedPrecondition: it is revoked, or the last usable operator key.
        """
        return await self._change(call, key_id, reason, lambda key: _with_suspension(key, suspended=True))

    async def resume(self, call: Call, key_id: UUID, reason: str) -> Key:
        """End a suspension.

        Raises:
            NotFound: no such key.
            FailedPrecondition: it is revoked.
        """
        return await self._change(call, key_id, reason, lambda key: _with_suspension(key, suspended=False))

    async def _change(self, call: Call, key_id: UUID, reason: str, decide: Callable[[Key], Key]) -> Key:
        """Lock the key, decide what becomes of it, and save that if it is anything new."""

        async def work(transaction: Transaction) -> Key:
            before = await lock_key(call, key_id, transaction)
            after = decide(before)
            if after == before:
                return before
            await check_operator_remains(before, after, transaction)
            return await transaction.save_key(before, after)

        return await self._changes.run(call.stamp(reason), work, lambda again: again.find_key(key_id))

    async def revoke(self, call: Call, key_id: UUID, secret_id: str | None, reason: str) -> Key:
        """Revoke a key, or one secret of it, for ever. The first revocation stays: its time, reason and revision.

        Raises:
            NotFound: no such key, or no such secret of it.
            FailedPrecondition: it is the last usable operator key.
        """

        async def work(transaction: Transaction) -> Key:
            before = await lock_key(call, key_id, transaction)
            revocation = Revocation(transaction.at, reason)
            if secret_id is None:
                after = before if before.revocation else replace(before, revocation=revocation)
            else:
                after = _with_secret_revoked(before, secret_id, revocation)
            if after == before:
                return before
            await check_operator_remains(before, after, transaction)
            return await transaction.save_key(before, after, secret_id=secret_id)

        return await self._changes.run(call.stamp(reason), work, lambda again: again.find_key(key_id))


async def lock_key(call: Call, key_id: UUID, transaction: Transaction) -> Key:
    """The locked key, if the caller may know of it and change it."""
    key = await transaction.lock_key(key_id)
    if key is None or not call.caller.sees(key.workspace):
        raise key_not_found(key_id)
    call.caller.check_operator(key.workspace)
    return key


def _with_suspension(key: Key, *, suspended: bool) -> Key:
    """The key suspended or not; a revoked one stays as it is for ever."""
    if key.state is State.REVOKED:
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
