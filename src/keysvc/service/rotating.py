"""Rotates keys: a second secret takes over from the first without a moment in which neither works."""

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from operator import attrgetter
from typing import Final
from uuid import UUID

from keysvc.core.errors import FailedPrecondition
from keysvc.core.key import Key, Revocation
from keysvc.core.keystring import KeyString
from keysvc.core.receipt import Receipt
from keysvc.core.revision import Revision
from keysvc.core.scope import granted
from keysvc.service.callers import Call
from keysvc.service.confirming import NOTHING_SAID, ChangeRequest, Confirming
from keysvc.service.lifecycle import find_key, lock_key
from keysvc.service.minting import Minting, RequestClaim
from keysvc.service.ports import Transaction

OVERLAP_DEFAULT: Final = timedelta(hours=24)
OVERLAP_MAX: Final = timedelta(days=30)
LIVING_SECRETS_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation shall be.

    Parameters:
        overlap: how long the old secret goes on; 0: not at all.
    """

    key_id: UUID
    overlap: timedelta = OVERLAP_DEFAULT
    claim: RequestClaim | None = None
    asked: ChangeRequest = NOTHING_SAID


class Rotating:
    """Rotates keys.

    Parameters:
        minting: makes their secrets.
    """

    def __init__(self, confirming: Confirming, minting: Minting) -> None:
        self._confirming = confirming
        self._minting = minting

    async def rotate(self, call: Call, key: Key, wanted: Rotation) -> tuple[Key, KeyString, Receipt]:
        """Mint a second secret for a key; the old one retires after the overlap, or earlier if that was so before.

        Nothing else of the key changes: not its id, its grants, its expiry.

        Parameters:
            key: as it was read before; only its environment is used.

        Raises:
            NotFound: no such key.
            PermissionDenied: the key grants what the caller does not hold.
            FailedPrecondition: it is revoked, a rotation is under way, or the request id was used before.
        """
        minted = self._minting.mint(key.environment)

        async def work(transaction: Transaction) -> tuple[Key, KeyString]:
            before = await lock_key(call, wanted.key_id, transaction)
            # Whoever rotates a key holds its new key string, and with it all that it grants.
            workspace = await transaction.find_workspace(before.workspace)
            call.caller.check_holds(granted(before.role, before.scopes, workspace.roles))
            if repeated := await self._minting.claim(call, wanted.claim, before.id, minted, transaction):
                return before, repeated.key_string
            after = _with_old_secret_retiring(before, wanted.overlap)
            # None, where all have ended: there is nothing to go back to.
            old_retire_time = next((each.retire_time for each in before.living_secrets), None)
            new = replace(minted.secret(transaction), predecessor_retire_time=old_retire_time)
            after = replace(after, secrets=(*after.secrets, new))
            saved = await transaction.save_key(before, after, secret_id=minted.id, proof=minted.proof)
            return saved, minted.key_string

        async def recall(transaction: Transaction) -> tuple[Key, KeyString]:
            return await transaction.find_key(wanted.key_id), minted.key_string

        rotated, receipt = await self._confirming.make(call, wanted.asked, work, recall, _revision_of_rotated)
        return *rotated, receipt

    async def cancel(self, call: Call, key_id: UUID, asked: ChangeRequest) -> tuple[Key, Receipt]:
        """Go back: revoke the new secret of a rotation, and let the old one live on, as long as it would have without.

        A key without a rotation stays as it is.

        Raises:
            NotFound: no such key.
            FailedPrecondition: it is revoked.
        """

        async def work(transaction: Transaction) -> Key:
            before = await lock_key(call, key_id, transaction)
            _check_not_revoked(before)
            if len(before.living_secrets) < LIVING_SECRETS_MAX:
                return before
            old, new = before.living_secrets
            changed = {
                old.id: replace(old, retire_time=new.predecessor_retire_time),
                new.id: replace(new, revocation=Revocation(transaction.at, asked.reason, final=False)),
            }
            after = replace(before, secrets=tuple(changed.get(each.id, each) for each in before.secrets))
            return await transaction.save_key(before, after, secret_id=new.id)

        recall = partial(find_key, key_id)
        key, receipt = await self._confirming.make(call, asked, work, recall, attrgetter("revision"))
        return (key.with_final(receipt.revision) if receipt.is_complete else key), receipt


def _revision_of_rotated(rotated: tuple[Key, KeyString]) -> Revision:
    return rotated[0].revision


def _check_not_revoked(key: Key) -> None:
    if key.revocation:
        raise FailedPrecondition(f"key {key.id} is revoked, which is for ever", key_id=str(key.id))


def _with_old_secret_retiring(key: Key, overlap: timedelta) -> Key:
    """The key with an end for the secret that lives now."""
    _check_not_revoked(key)
    living = key.living_secrets
    if len(living) >= LIVING_SECRETS_MAX:
        raise FailedPrecondition(
            f"key {key.id} has two living secrets: revoke one of them, cancel the rotation, or wait until "
            f"{living[0].id} retires",
            key_id=str(key.id),
        )
    end = key.at + overlap
    retiring = {each.id: replace(each, retire_time=min(each.retire_time or end, end)) for each in living}
    return replace(key, secrets=tuple(retiring.get(each.id, each) for each in key.secrets))
