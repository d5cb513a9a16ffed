"""TLS: what the server proves itself with, and what clients have proved."""

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID

from keysvc.core.certificate import Certificate


@dataclass(frozen=True, slots=True)
class Pem:
    """What TLS needs, in PEM.

    Parameters:
        cert, key: certificate chain and private key of the server.
        client_ca: with it, clients must have a certificate signed by one of these.
    """

    cert: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """The same as gRPC wants it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.cert)], root_certificates=self.client_ca)


class Tls:
    """The TLS of a server.

    Parameters:
        pem: what it begins with.
    """

    def __init__(self, pem: Pem) -> None:
        self._pem = pem
        self._replaced: deque[Pem] = deque(maxlen=1)  # filled and emptied by different threads

    def replace(self, pem: Pem) -> None:
        """Use other files from the next connection on; open ones stay. Whether clients need certificates stays too."""
        self._replaced.append(pem)

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials of a port."""
        return grpc.dynamic_ssl_server_credentials(
            self._pem.configuration(),
            # Annotations forget that None is an answer: nothing has changed.
            self._fetch,  # type: ignore[arg-type]
            require_client_authentication=self._pem.client_ca is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What has replaced the files, once. gRPC asks before each handshake, which waits: nothing is read here."""
        try:
            return self._replaced.pop().configuration()
        except IndexError:
            return None


def peer_certificate(context: "grpc.aio.ServicerContext[Any, Any]") -> Certificate | None:
    """The certificate that a client has proved to hold; None if there is none, or it cannot be read.

    gRPC names an identity only of a client whose certificate it has verified.
    """
    proved = context.auth_context()
    if list(proved.get("transport_security_type", ())) != [b"ssl"] or context.peer_identity_key() is None:
        return None
    certificates = list(proved.get("x509_pem_cert", ()))
    try:
        return read_certificate(certificates[0]) if len(certificates) == 1 else None
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def read_certificate(pem: bytes) -> Certificate:
    r"""Read the names of a certificate; remembered, since a client shows the same one with every call.

    They are read from the certificate itself and not from the texts that gRPC makes of them: those end at a NUL
    character, so that ``billing.acme\0.evil.example`` would look like ``billing.acme``.

    Raises:
        ValueError: it cannot be read whole.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = [each.value for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return Certificate(common_name=common[0] if len(common) == 1 and isinstance(common[0], str) else None)
    except (x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(str(error)) from None
    return Certificate(
        tuple(names.get_values_for_type(x509.UniformResourceIdentifier)), tuple(names.get_values_for_type(x509.DNSName))
    )
