"""Peppers come and go: which one signs, and the digests that move to it."""

from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from keysvc.core.pepper import Peppers, Proof
from keysvc.lease.memory import Memory

WANTED_MAX: Final = 10_000
REFRESH_SECONDS: Final = 1.0
"""How often digests are moved, and how often it is asked which pepper signs."""

_log = structlog.get_logger("keysvc.service")


class PepperStore(Protocol):
    """Where fingerprints and digests are."""

    async def read_signing(self) -> bytes:
        """The fingerprint of the pepper that signs."""
        ...

    async def rehash(self, wanted: Mapping[str, tuple[bytes, Proof]]) -> None:
        """Replace the proofs of secrets that are still under the given pepper."""
        ...


class Rehashing:
    """Moves the digests of secrets that are used to the pepper that signs, so that an older one can be retired.

    What a key may do does not change with it, so this takes no revision, and whoever remembers the key goes on.

    Parameters:
        peppers: of this server.
        memory: what it remembers.
        store: where fingerprints and digests are.
    """

    def __init__(self, peppers: Peppers, memory: Memory, store: PepperStore) -> None:
        self._peppers = peppers
        self._memory = memory
        self._store = store
        self._wanted: dict[str, tuple[bytes, Proof]] = {}

    def want(self, secret_id: str, pepper: bytes, proof: Proof) -> None:
        """A secret has been proved that is under an older pepper; whoever comes too late comes again."""
        if len(self._wanted) < WANTED_MAX:
            self._wanted[secret_id] = pepper, proof

    async def flush(self) -> None:
        """Write what was wanted, and look which pepper signs.

        Raises:
            Unavailable: the database did not answer in time.
        """
        wanted, self._wanted = self._wanted, {}
        if wanted:
            await self._store.rehash(wanted)
        signing = await self._store.read_signing()
        if signing == self._peppers.signing:
            return
        try:
            self._peppers.sign_with(signing)
        except KeyError:
            _log.error("this server lacks the pepper that signs", pepper=signing.hex())
        else:
            _log.info("another pepper signs", pepper=signing.hex())
            # Or what is remembered would be looked up no more, and never move.
            self._memory.flush()
