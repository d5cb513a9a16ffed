"""Sealed copies: how a repeated Create or Rotate can answer a key string that is kept nowhere.

The key of the seal is made from a pepper, which is never in the database, and from the request id, which is kept
nowhere at all. So neither the database nor a backup opens it, not even together with all the server's peppers: only
the caller's repeat does.

The cipher is AES-256-GCM. Each key seals one copy, so that a nonce cannot meet itself.
"""

from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keysvc.core.errors import Unavailable
from keysvc.core.key import SealedCopy
from keysvc.core.keystring import KeyString
from keysvc.core.pepper import Peppers

_PURPOSE: Final = b"\0keysvc sealed copy\0"
_NONCE: Final = bytes(12)


class Sealing:
    """Seals key strings and opens them again.

    Parameters:
        peppers: of this server.
    """

    def __init__(self, peppers: Peppers) -> None:
        self._peppers = peppers

    def seal(self, key_string: KeyString, request: bytes, secret_id: str) -> SealedCopy:
        """Seal a key string.

        Parameters:
            request: caller, method and request id.
            secret_id: which secret it is; a copy moved to another row does not open.
        """
        pepper = self._peppers.signing
        cipher = self._cipher(request, secret_id, pepper)
        return SealedCopy(pepper, cipher.encrypt(_NONCE, key_string.reveal().encode(), secret_id.encode()))

    def open(self, sealed: SealedCopy, request: bytes, secret_id: str) -> KeyString:
        """The key string that was sealed for the same request.

        Raises:
            Unavailable: this server lacks the pepper that it was sealed under.
            InvalidTag: it was sealed for another request or secret, or tampered with.
        """
        cipher = self._cipher(request, secret_id, sealed.pepper)
        return KeyString(cipher.decrypt(_NONCE, sealed.text, secret_id.encode()).decode())

    def _cipher(self, request: bytes, secret_id: str, pepper: bytes) -> AESGCM:
        """The cipher for one copy."""
        key = self._peppers.derive(_PURPOSE + request + b"\0" + secret_id.encode(), pepper)
        if key is None:
            raise Unavailable("this server lacks the pepper of this request's sealed copy")
        return AESGCM(key)
