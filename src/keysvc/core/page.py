"""Page tokens: where a list goes on, good only for the list that it came from."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

_MAC_BYTES = 16


class PageTokens:
    """Writes and reads opaque page tokens that cannot be made up or carried to another list.

    Parameters:
        key: secret of the deployment, the same in every server.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"keysvc page tokens", "sha256")

    def write(self, position: str, listing: bytes) -> str:
        """Seal a position.

        Parameters:
            position: where the list goes on.
            listing: all that identifies the list: caller, method, workspace and filter.
        """
        return urlsafe_b64encode(self._mac(position.encode(), listing) + position.encode()).decode().rstrip("=")

    def read(self, token: str, listing: bytes) -> str:
        """Open a token; raise ``ValueError`` when it is not one of this list."""
        try:
            raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except ValueError:
            raw = b""
        mac, position = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(position, listing)):
            raise ValueError("must be the next_page_token of a list with the same filter, workspace and caller")
        return position.decode()

    def _mac(self, position: bytes, listing: bytes) -> bytes:
        """Bind a position to its list."""
        return hmac.digest(self._key, len(position).to_bytes(4) + position + listing, "sha256")[:_MAC_BYTES]
