from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.page import PageTokens

KEY = bytes(range(32))
TOKENS = PageTokens(KEY)
LISTING = b"caller\0method\0workspace and filter"
POSITION = "1789646400000000.00000000000000000000000000000001"
REFUSED = r"^must be the next_page_token of a list with the same filter, workspace and caller$"


def opened(token: str) -> bytes:
    """The bytes inside a token."""
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))


def closed(raw: bytes) -> str:
    """Bytes as a token."""
    return urlsafe_b64encode(raw).decode().rstrip("=")


@given(key=st.binary(min_size=1), position=st.text(), listing=st.binary())
def test_a_token_leads_back_to_its_position(key: bytes, position: str, listing: bytes) -> None:
    """Whatever a position and a list are, every server with the same key reads the token of another."""
    token = PageTokens(key).write(position, listing)
    assert PageTokens(key).read(token, listing) == position


@given(position=st.text(min_size=1))
def test_a_token_needs_no_quoting(position: str) -> None:
    """It can be an argument of a command and a part of a URL."""
    token = TOKENS.write(position, LISTING)
    assert token.isascii()
    assert token.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "listing",
    [
        *(b"", LISTING[:-1], LISTING + b"x", LISTING.upper(), b"other\0method\0workspace and filter"),
        *(b"caller\0other\0workspace and filter", b"caller\0method\0workspace and another filter"),
    ],
)
def test_a_token_is_good_for_its_list_only(listing: bytes) -> None:
    """Another caller, method, workspace or filter: refused, or a page would silently leave something out."""
    token = TOKENS.write(POSITION, LISTING)
    with pytest.raises(ValueError, match=REFUSED):
        TOKENS.read(token, listing)


def test_a_token_of_another_deployment_is_refused() -> None:
    """Its key is not ours."""
    token = PageTokens(KEY[::-1]).write(POSITION, LISTING)
    with pytest.raises(ValueError, match=REFUSED):
        TOKENS.read(token, LISTING)


def test_position_and_list_cannot_be_shifted_into_each_other() -> None:
    """What is signed says where the position ends: no second reading of the same bytes has the same signature."""
    raw = opened(TOKENS.write("ab", b"cd"))
    signature = raw[: raw.rindex(b"ab")]
    for position, listing in ((b"a", b"bcd"), (b"abc", b"d"), (b"abcd", b""), (b"", b"abcd")):
        with pytest.raises(ValueError, match=REFUSED):
            TOKENS.read(closed(signature + position), listing)


def test_every_change_of_a_byte_is_refused() -> None:
    """Neither signature nor position can be changed, shortened or extended by anybody without the key."""
    raw = opened(TOKENS.write(POSITION, LISTING))
    changed = [raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :] for at in range(len(raw)) for bit in range(8)]
    shortened = [raw[:end] for end in range(len(raw))] + [raw[begin:] for begin in range(1, len(raw))]
    for other in (*changed, *shortened, raw + b"\0", b"\0" + raw):
        with pytest.raises(ValueError, match=REFUSED):
            TOKENS.read(closed(other), LISTING)


@given(data=st.data())
def test_a_changed_character_never_leads_elsewhere(data: st.DataObject) -> None:
    """A damaged token is refused, or, where base64 does not care, still leads to its own position."""
    token = TOKENS.write(POSITION, LISTING)
    at = data.draw(st.integers(0, len(token)))
    until = data.draw(st.integers(at, min(at + 3, len(token))))
    damaged = token[:at] + data.draw(st.text(max_size=3)) + token[until:]
    try:
        position = TOKENS.read(damaged, LISTING)
    except ValueError:
        return
    assert position == POSITION


@pytest.mark.parametrize(
    "token",
    ["", "=", "====", "A", "AA", "AAAA", "A" * 10**5, "é", "\ud800", "\0", POSITION, "../..", "' OR 1=1", "null"],
    ids=lambda token: f"{len(token)} {token[:9]!a}",
)
def test_garbage_is_refused_without_repeating_it(token: str) -> None:
    """Whatever a caller sends as a token is a bad field, never an accident."""
    with pytest.raises(ValueError, match=REFUSED):
        TOKENS.read(token, LISTING)


@given(token=st.text(), listing=st.binary())
def test_any_text_is_refused(token: str, listing: bytes) -> None:
    """Nobody can make up a token."""
    with pytest.raises(ValueError, match=REFUSED):
        TOKENS.read(token, listing)
