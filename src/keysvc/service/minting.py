"""Mints secrets, and sees to it that a repeated request gets the first one again."""

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from keysvc.core.errors import FailedPrecondition, InvalidArgument, Violation
from keysvc.core.key import MintedFor, Secret
from keysvc.core.keystring import Environment, KeyString, mint
from keysvc.core.pepper import Peppers, Proof
from keysvc.service.callers import Call
from keysvc.service.ports import Transaction
from keysvc.service.sealing import Sealing

_NO_DIGIT: Final = re.compile("[^0-9a-f]")

REPEATABLE: Final = timedelta(minutes=10)
"""How long a repeat answers the key string again."""


@dataclass(frozen=True, slots=True)
class RequestClaim:
    """What makes a Create or Rotate safe to repeat.

    Parameters:
        request_id: the caller's UUID; only a digest of it is kept.
        body: everything else that was asked for; a repeat must ask for the same.
    """

    request_id: UUID
    body: bytes


@dataclass(frozen=True, slots=True)
class Minted:
    """A new secret: what may be stored (id, hint, proof), and the text that may not."""

    id: str
    hint: str
    proof: Proof
    key_string: KeyString

    def secret(self, transaction: Transaction) -> Secret:
        """The secret as it is created now."""
        return Secret(self.id, self.hint, transaction.at, transaction.start)


@dataclass(frozen=True, slots=True)
class Repeated:
    """What an earlier request with the same id made."""

    key_id: UUID
    key_string: KeyString


class Minting:
    """Mints secrets.

    Parameters:
        peppers: of this server.
        tag_key: the deployment's tag key.
        entropy: gives so many unpredictable bytes.
    """

    def __init__(self, peppers: Peppers, *, tag_key: bytes, entropy: Callable[[int], bytes]) -> None:
        self._peppers = peppers
        self._tag_key = tag_key
        self._entropy = entropy
        self._sealing = Sealing(peppers)

    def mint(self, environment: Environment) -> Minted:
        """Make a new secret."""
        minted = mint(environment, self._tag_key, self._entropy)
        return Minted(minted.id, minted.hint, self._peppers.prove(minted.key_string), minted.key_string)

    async def claim(
        self, call: Call, claim: RequestClaim | None, key_id: UUID, minted: Minted, transaction: Transaction
    ) -> Repeated | None:
        """Claim a request id for a new secret of a key; None if it is the first to do so, or there is no id.

        Raises:
            InvalidArgument: the id was used with another body, or is sent as ``x-request-id`` too.
            FailedPrecondition: the id was used too long ago for its key string to be repeated; names the key.
        """
        if claim is None:
            return None
        if claim.request_id.hex in _NO_DIGIT.sub("", call.request_id.lower()):
            raise InvalidArgument(
                [Violation("request_id", "must not be sent as x-request-id too, which logs and audit events show")]
            )
        scope = f"{call.caller.name}\0{call.method}\0{claim.request_id}".encode()
        # Keyed with the tag key, so that ids cannot be tried out against a dump alone.
        digest = hmac.digest(self._tag_key, scope, "sha256")
        sealed = self._sealing.seal(minted.key_string, scope, minted.id)
        wanted = MintedFor(key_id, minted.id, sha256(claim.body).digest(), sealed)
        first = await transaction.claim_request(digest, wanted, REPEATABLE)
        if first == wanted:
            return None
        if first.body_digest != wanted.body_digest:
            raise InvalidArgument([Violation("request_id", "was used before, for a request with another body")])
        if first.sealed is None:
            raise FailedPrecondition(
                f"request_id was used before: it made a secret of key {first.key_id}",
                key_id=str(first.key_id),
                secret_id=first.secret_id,
            )
        return Repeated(first.key_id, self._sealing.open(first.sealed, scope, first.secret_id))
