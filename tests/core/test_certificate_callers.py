import pytest

from keysvc.core.certificate import Certificate
from keysvc.core.certificate_callers import AmbiguousCertificateError, CertificateCaller, CertificateCallers

URI, DNS = CertificateCaller("spiffe://a/b", ("verify",)), CertificateCaller("a.example", ("operator",))
CALLERS = CertificateCallers([URI, DNS])


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (Certificate(uris=("spiffe://a/b",)), URI),
        (Certificate(uris=("spiffe://a/c", "spiffe://a/b", "spiffe://a/b"), dns_names=("b.example",)), URI),
        (Certificate(dns_names=("a.example",)), DNS),
        (Certificate(common_name="a.example"), DNS),
        (Certificate(uris=("a.example",)), None),
        (Certificate(dns_names=("spiffe://a/b",)), None),
        (Certificate(common_name="spiffe://a/b"), None),
        (Certificate(dns_names=("A.example", "a.example.", "a.example\0", "x.a.example")), None),
        (Certificate(), None),
    ],
)
def test_a_name_counts_where_it_belongs(certificate: Certificate, expected: CertificateCaller | None) -> None:
    """A URI among URIs, anything else among DNS names, or as the common name; exactly."""
    assert CALLERS.find(certificate) == expected
    assert CertificateCallers().find(certificate) is None


def test_two_callers_are_none() -> None:
    """Of the same kind or not."""
    with pytest.raises(AmbiguousCertificateError):
        CALLERS.find(Certificate(uris=("spiffe://a/b",), dns_names=("a.example",)))
