"""Peppers: the server-held HMAC keys under which key strings are digested. Never in the database.

A digest is HMAC-SHA-256(pepper, whole key string). Slow password hashes are not wanted: 256 random bits need none.
"""

import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from keysvc.core.keystring import KeyString

PEPPER_BYTES: Final = 32

_PEPPER = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Proof:
    """What proves a secret: the digest of its key string, and the fingerprint of the pepper it was made under."""

    pepper: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class PepperState:
    """What a database knows of a pepper.

    Parameters:
        fingerprint: of it.
        signing: new digests are made under it.
        retire_time: since when secrets under it are not accepted; None: they are.
        living: how many secrets under it are not revoked, nor their keys.
    """

    fingerprint: bytes
    signing: bool
    create_time: datetime
    retire_time: datetime | None
    living: int


class Peppers:
    """The peppers that this server holds, newest first; all of them verify, one signs.

    Parameters:
        keys: 32 bytes each; the first one signs until the database says otherwise.
    """

    def __init__(self, keys: list[bytes]) -> None:
        if not keys:
            raise ValueError("must name at least one pepper")
        if any(len(key) != PEPPER_BYTES for key in keys):
            raise ValueError(f"must be peppers of {PEPPER_BYTES} bytes")
        self._keys = {fingerprint(key): key for key in keys}
        if len(self._keys) != len(keys):
            raise ValueError("must not name a pepper twice")
        self._signing = self.fingerprints[0]

    @classmethod
    def parse(cls, text: str) -> "Peppers":
        """Read a comma-separated list of 64 hex digits each; raise ``ValueError`` that does not repeat the text."""
        parts = [part.strip() for part in text.strip().split(",")]
        if not all(_PEPPER.fullmatch(part) for part in parts):
            raise ValueError("must be a comma-separated list of peppers, newest first, 64 hex digits each")
        return cls([bytes.fromhex(part) for part in parts])

    @property
    def fingerprints(self) -> tuple[bytes, ...]:
        """The fingerprint of each, newest first."""
        return tuple(self._keys)

    @property
    def signing(self) -> bytes:
        """The fingerprint of the one that new digests are made under."""
        return self._signing

    def sign_with(self, pepper: bytes) -> None:
        """Make new digests under the pepper with this fingerprint; raise ``KeyError`` when this server lacks it."""
        if pepper not in self._keys:
            raise KeyError(pepper.hex())
        self._signing = pepper

    def prove(self, key_string: KeyString) -> "Proof":
        """What is stored of a key string."""
        digest = hmac.digest(self._keys[self._signing], key_string.reveal().encode(), "sha256")
        return Proof(self._signing, digest)

    def digest(self, key_string: KeyString, pepper: bytes) -> bytes | None:
        """The digest under the pepper with this fingerprint; None when this server does not hold it."""
        key = self._keys.get(pepper)
        return key and hmac.digest(key, key_string.reveal().encode(), "sha256")

    def derive(self, purpose: bytes, pepper: bytes) -> bytes | None:
        """A key of 32 bytes for another purpose, which tells nothing of the pepper; None without this pepper.

        Parameters:
            purpose: begins with no letter of a key string's brand, so that it is never the digest of one.
        """
        key = self._keys.get(pepper)
        return key and hmac.digest(key, purpose, "sha256")

    def __repr__(self) -> str:
        """Show how many, not which."""
        return f"Peppers(<{len(self._keys)}>)"


def fingerprint(key: bytes) -> bytes:
    """What the database may know of a pepper: 8 bytes of a hash that only serve to tell peppers apart."""
    return sha256(b"keysvc pepper fingerprint\0" + key).digest()[:8]
