import hashlib

import pytest

from keysvc.core.keystring import KeyString
from keysvc.core.pepper import Peppers, fingerprint

KEY_STRING = KeyString("sk_live_1065eoDiDgza8qaZv7TTGhKGzAOljiCEm5g26rJJm7KCh40M59TlqyxtqLnJ79Yr2")
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
LIST = f"{NEW.hex()},{OLD.hex()}"


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC written out as in RFC 2104."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()


def test_digest_is_the_vector_made_by_hand() -> None:
    """What is stored never changes unseen: HMAC-SHA-256 of the whole key string, worked out with other code."""
    expected = bytes.fromhex("d49708218abfd9e9c88237fb56d9b1935ed8ebdced777051855b0d9b5c2410e5")
    assert hmac_sha256(OLD, KEY_STRING.reveal().encode()) == expected
    assert Peppers([OLD]).digest(KEY_STRING, fingerprint(OLD)) == expected


def test_fingerprint_is_the_vector_made_by_hand() -> None:
    """The name of a pepper in the database never changes: 8 bytes of a hash of its own, told by nothing else."""
    assert fingerprint(OLD) == hashlib.sha256(b"keysvc pepper fingerprint\0" + OLD).digest()[:8]
    assert fingerprint(OLD).hex() == "a831ca13f736f811"


def test_all_peppers_digest_each_by_its_fingerprint() -> None:
    """During a roll-out old and new digests can both be checked, and never under the wrong pepper."""
    peppers = Peppers([NEW, OLD])
    for key in (NEW, OLD):
        digest = peppers.digest(KEY_STRING, fingerprint(key))
        assert digest == hmac_sha256(key, KEY_STRING.reveal().encode())


def test_an_unknown_pepper_gives_no_digest() -> None:
    """A row under a pepper that this server lacks is no judgement, not a wrong one."""
    assert Peppers([NEW]).digest(KEY_STRING, fingerprint(OLD)) is None
    assert Peppers([NEW]).digest(KEY_STRING, b"") is None


@pytest.mark.parametrize(
    "text",
    [LIST, f"  {LIST}\n", f"{NEW.hex()} , {OLD.hex()}", f"{NEW.hex().upper()},\n{OLD.hex()}"],
    ids=["plain", "with line end", "with blanks", "upper case"],
)
def test_peppers_are_read_newest_first(text: str) -> None:
    """The order of the list is kept, and blanks around its parts do not count."""
    assert Peppers.parse(text).fingerprints == (fingerprint(NEW), fingerprint(OLD))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        f"{OLD.hex()},",
        f",{OLD.hex()}",
        OLD.hex()[:-1],
        OLD.hex() + "0",
        OLD.hex()[:-1] + "g",
        f"0x{OLD.hex()[2:]}",
        f"{NEW.hex()};{OLD.hex()}",
        f"{NEW.hex()} {OLD.hex()}",
        f"{OLD.hex()[:32]} {OLD.hex()[32:]}",
        "\uff10" * 64,
        f"{OLD.hex()},{OLD.hex()}",
        f"{OLD.hex()},{OLD.hex().upper()}",
    ],
    ids=ascii,
)
def test_a_bad_list_is_refused_without_repeating_it(text: str) -> None:
    """A start with no, half a or twice the same pepper is refused; the message cannot leak a pepper into a log."""
    with pytest.raises(ValueError, match=r"^must ") as refused:
        Peppers.parse(text)
    said = f"{refused.value} {refused.value.__cause__} {refused.value.__context__}"
    assert not [part for part in (OLD.hex()[:8], NEW.hex()[:8], OLD.hex()[32:40]) if part in said]


@pytest.mark.parametrize("keys", [[], [OLD, OLD]], ids=["none", "twice"])
def test_peppers_without_a_first_or_with_a_second_same_one_cannot_be_made(keys: list[bytes]) -> None:
    """The constructor holds the same rules as the list."""
    with pytest.raises(ValueError, match="must"):
        Peppers(keys)


def test_peppers_are_not_shown() -> None:
    """A repr tells how many there are, and nothing of them."""
    assert repr(Peppers([NEW, OLD])) == str(Peppers([NEW, OLD])) == "Peppers(<2>)"
