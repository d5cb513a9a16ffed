"""Sealed copies open for the one repeat they are for, and for nobody else."""

import pytest
from cryptography.exceptions import InvalidTag

from keysvc.core.errors import Unavailable
from keysvc.core.key import SealedCopy
from keysvc.core.keystring import KeyString
from keysvc.core.pepper import Peppers, fingerprint
from keysvc.service.sealing import Sealing

OLD, NEW = b"o" * 32, b"n" * 32
KEY_STRING = KeyString("sk_live_1" + "a" * 64)
REQUEST = b"caller\0method\0id"


@pytest.fixture
def sealing() -> Sealing:
    """A server with two peppers, the newer one signing."""
    return Sealing(Peppers([NEW, OLD]))


def test_the_same_request_opens_it(sealing: Sealing) -> None:
    """Also at a server that has had another pepper since."""
    sealed = sealing.seal(KEY_STRING, REQUEST, "secret")
    later = Sealing(Peppers([b"x" * 32, NEW]))
    for each in (sealing, later):
        assert each.open(sealed, REQUEST, "secret").reveal() == KEY_STRING.reveal()


def test_nothing_of_the_text_is_in_it(sealing: Sealing) -> None:
    """Neither the key string nor a piece of it can be read."""
    sealed = sealing.seal(KEY_STRING, REQUEST, "secret")
    assert b"sk_live" not in sealed.text
    assert b"aaaa" not in sealed.text


@pytest.mark.parametrize(
    ("request_", "secret_id"),
    [(b"caller\0method\0other", "secret"), (b"", "secret"), (b"other\0method\0id", "secret"), (REQUEST, "other")],
)
def test_with_all_the_server_s_keys_another_request_does_not_open_it(
    sealing: Sealing, request_: bytes, secret_id: str
) -> None:
    """The request id is needed, of the same caller and method, for the same secret."""
    sealed = sealing.seal(KEY_STRING, REQUEST, "secret")
    with pytest.raises(InvalidTag):
        sealing.open(sealed, request_, secret_id)


def test_with_the_request_id_alone_it_does_not_open(sealing: Sealing) -> None:
    """The pepper is needed: another server key is no help, and a missing one is no judgement."""
    sealed = sealing.seal(KEY_STRING, REQUEST, "secret")
    with pytest.raises(InvalidTag):
        sealing.open(SealedCopy(fingerprint(OLD), sealed.text), REQUEST, "secret")
    with pytest.raises(Unavailable):
        Sealing(Peppers([OLD])).open(sealed, REQUEST, "secret")


def test_a_tampered_copy_does_not_open(sealing: Sealing) -> None:
    """Not one bit of it may differ."""
    sealed = sealing.seal(KEY_STRING, REQUEST, "secret")
    for place in range(len(sealed.text)):
        text = bytearray(sealed.text)
        text[place] ^= 1
        with pytest.raises(InvalidTag):
            sealing.open(SealedCopy(sealed.pepper, bytes(text)), REQUEST, "secret")
