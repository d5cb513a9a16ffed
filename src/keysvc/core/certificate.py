"""Certificates of clients: the names that one carries. What may be believed of them, the TLS handshake has verified."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Certificate:
    """The names of a certificate.

    Parameters:
        uris, dns_names: its alternative names of these kinds.
        common_name: of its subject, if it has no alternative names of any kind; else None.
    """

    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    common_name: str | None = None
