"""The names in certificates, by certificates that no tool makes by accident."""

import base64
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.certificate import Certificate
from keysvc.rpc.tls import read_certificate

# Of localhost, signed by itself.
PEM = (Path(__file__).parents[1] / "cli" / "tls" / "certificate.pem").read_bytes()
DER = ssl.PEM_cert_to_DER_cert(PEM.decode())
KEY = ec.generate_private_key(ec.SECP256R1())
URI, DNS = x509.UniformResourceIdentifier, x509.DNSName


def certificate(*names: x509.GeneralName, common: Sequence[str] = ("someone",)) -> bytes:
    """A certificate with these names."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in common])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(KEY.public_key())
    now = datetime.now(UTC)
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def pem(der: bytes) -> bytes:
    """The same in PEM."""
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def test_names_are_told_by_their_kind() -> None:
    """URIs and DNS names in their order; addresses and others are none of them, and silence the common name."""
    assert read_certificate(PEM) == Certificate(dns_names=("localhost",))
    address, mail = x509.IPAddress(ip_address("10.0.0.1")), x509.RFC822Name("a@b.example")
    names = (DNS("b.example"), URI("spiffe://a/b"), address, DNS("a.example"), DNS("a.example\0.evil"))
    assert read_certificate(certificate(*names)) == Certificate(
        ("spiffe://a/b",), ("b.example", "a.example", "a.example\0.evil")
    )
    assert read_certificate(certificate(address, mail)) == Certificate()


def test_the_common_name_counts_alone() -> None:
    """Without alternative names; one of several is none."""
    assert read_certificate(certificate(common=["Night Shift"])) == Certificate(common_name="Night Shift")
    for common in ((), ("a", "b")):
        assert read_certificate(certificate(common=common)) == Certificate()


# Said of what is not allowed in a certificate but is often seen, such as a negative serial number.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(0, len(DER) - 1), st.binary(max_size=4))
def test_a_spoiled_certificate_is_read_or_refused(at: int, spoiled: bytes) -> None:
    """Never anything else, and no second name comes of nothing."""
    try:
        names = read_certificate(pem(DER[:at] + spoiled + DER[at + len(spoiled) :]))
    except ValueError:
        return
    assert len(names.uris) + len(names.dns_names) <= 1


@pytest.mark.parametrize("text", [b"", b"x", PEM[:-30], pem(b""), pem(b"\x30"), pem(DER[:-1])])
def test_what_is_no_certificate_is_refused(text: bytes) -> None:
    """Nothing of it is believed."""
    with pytest.raises(ValueError):  # noqa: PT011 (the words are for nobody)
        read_certificate(text)
