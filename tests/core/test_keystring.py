import copy
import hashlib
import json
import logging
import pickle
import pprint
import re
import string
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keysvc.core.keystring import (
    PATTERN,
    Environment,
    KeyString,
    find_secret_id,
    is_key_string_in,
    mint,
    parse_secret_id,
)

TAG_KEY = bytes(range(32))
ID_ENTROPY = bytes.fromhex("0102030405060708090a0b")
SECRET_ENTROPY = bytes.fromhex("f0e1d2c3b4a5968778695a4b3c2d1e0f" * 2)

# Worked out once with other code than ours, from the three values above.
ID = "065eoDiDgza8qaZ"
SECRET = "v7TTGhKGzAOljiCEm5g26rJJm7KCh40M59TlqyxtqLn"
TAGS = {Environment.LIVE: "J79Yr2", Environment.TEST: "mr61ua"}
TEXT = f"sk_live_1{ID}{SECRET}J79Yr2"

DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


def entropy(size: int) -> bytes:
    """Bytes that are known beforehand."""
    return {11: ID_ENTROPY, 32: SECRET_ENTROPY}[size]


def base62(number: int, width: int) -> str:
    """Base62 from the left: the highest digit first, each by its place value."""
    return "".join(DIGITS[number // 62**place % 62] for place in reversed(range(width)))


def tagged(body: str, tag_key: bytes = TAG_KEY) -> str:
    """A text with the tag that belongs to it, HMAC written out as in RFC 2104."""
    block = tag_key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + body.encode()).digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()
    return body + base62(int.from_bytes(outer, "big"), 6)


@pytest.mark.parametrize("environment", Environment)
def test_a_minted_secret_is_the_vector_made_by_hand(environment: Environment) -> None:
    """The format never changes unseen: known entropy and tag key give a known text, id and hint."""
    minted = mint(environment, TAG_KEY, entropy)
    assert minted.id == ID
    assert minted.key_string.reveal() == f"sk_{environment}_1{ID}{SECRET}{TAGS[environment]}"
    assert minted.hint == f"sk_{environment}_1065eoDi"


def test_the_vector_is_what_the_documented_format_says() -> None:
    """Version, id, secret and tag are padded base62 of the entropy and of an HMAC over all before the tag."""
    assert base62(int.from_bytes(ID_ENTROPY, "big"), 15) == ID
    assert base62(int.from_bytes(SECRET_ENTROPY, "big"), 43) == SECRET
    assert tagged(f"sk_live_1{ID}{SECRET}") == TEXT


@given(
    environment=st.sampled_from(Environment),
    tag_key=st.binary(min_size=32, max_size=32),
    id_entropy=st.binary(min_size=11, max_size=11),
    secret_entropy=st.binary(min_size=32, max_size=32),
)
def test_whatever_is_minted_is_found_again(
    environment: Environment, tag_key: bytes, id_entropy: bytes, secret_entropy: bytes
) -> None:
    """All 88 and 256 bits go into the text, which has the published shape, and its id is read back."""
    minted = mint(environment, tag_key, {11: id_entropy, 32: secret_entropy}.__getitem__)
    text = minted.key_string.reveal()
    assert re.fullmatch(PATTERN, text)
    assert text == tagged(
        f"sk_{environment}_1"
        f"{base62(int.from_bytes(id_entropy, 'big'), 15)}{base62(int.from_bytes(secret_entropy, 'big'), 43)}",
        tag_key,
    )
    assert find_secret_id(text, tag_key) == minted.id == parse_secret_id(minted.id)


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_the_smallest_and_the_largest_entropy_keep_their_length(fill: bytes) -> None:
    """No entropy is too small or too large for its part, so parts can be counted from the right."""
    text = mint(Environment.LIVE, TAG_KEY, lambda size: fill * size).key_string.reveal()
    assert len(text) == len("sk_live_") + 1 + 15 + 43 + 6
    assert find_secret_id(text, TAG_KEY) is not None


def test_entropy_is_asked_for_the_id_and_for_the_secret() -> None:
    """88 bits for the id, 256 for the secret, drawn apart: none is used twice."""
    asked: list[int] = []

    def source(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    mint(Environment.LIVE, TAG_KEY, source)
    assert asked == [11, 32]


@pytest.mark.parametrize("environment", Environment)
def test_the_hint_is_a_prefix_that_holds_nothing_of_the_secret(environment: Environment) -> None:
    """People find a key by the beginning of its text, which ends long before the secret begins."""
    minted = mint(environment, TAG_KEY, entropy)
    text = minted.key_string.reveal()
    assert text.startswith(minted.hint)
    assert len(minted.hint) < text.index(SECRET)
    other_secret = mint(environment, TAG_KEY, lambda size: entropy(size) if size == 11 else bytes(size))
    assert other_secret.hint == minted.hint
    assert other_secret.key_string.reveal() != text


def test_every_change_of_one_character_is_refused() -> None:
    """A typo costs no look-up: every other character at every place, every lost and every added one."""
    assert find_secret_id(TEXT, TAG_KEY) == ID
    others = DIGITS + "_- \n\0é"
    for at in range(len(TEXT)):
        before, after = TEXT[:at], TEXT[at + 1 :]
        changed = {before + other + after for other in others} - {TEXT}
        added = {before + other + TEXT[at:] for other in others}
        for text in {before + after, *changed, *added}:
            assert find_secret_id(text, TAG_KEY) is None, text


def test_two_neighbours_that_change_places_are_refused() -> None:
    """The other usual typo."""
    for at in range(len(TEXT) - 1):
        text = TEXT[:at] + TEXT[at + 1] + TEXT[at] + TEXT[at + 2 :]
        assert find_secret_id(text, TAG_KEY) == (ID if text == TEXT else None)


@given(tag_key=st.binary(max_size=64).filter(lambda key: key.ljust(64, b"\0") != TAG_KEY.ljust(64, b"\0")))
def test_another_deployment_refuses_the_text(tag_key: bytes) -> None:
    """Under another tag key nothing is found: a key of one deployment is MALFORMED in another."""
    assert find_secret_id(TEXT, tag_key) is None


@pytest.mark.parametrize(
    "brand", ["k", "acme", "acme_keys", "a_b_c_d", "a__b", "a_", "x9", "sk_live", "live_test", "abcdefghijklmnop"]
)
@pytest.mark.parametrize("environment", Environment)
def test_a_brand_may_contain_underscores(brand: str, environment: Environment) -> None:
    """Parts are counted from the right, so the brand cannot be taken for another part."""
    assert find_secret_id(tagged(f"{brand}_{environment}_1{ID}{SECRET}"), TAG_KEY) == ID


@pytest.mark.parametrize(
    "prefix",
    [
        "sk_prod_1",
        "sk_LIVE_1",
        "sk_live_2",
        "sk_live_0",
        "sk_live1",
        "sk-live-1",
        "sklive_1",
        "_live_1",
        "live_1",
        "1k_live_1",
        "_k_live_1",
        "SK_live_1",
        "s-k_live_1",
        "abcdefghijklmnopq_live_1",
        "",
    ],
)
def test_a_text_of_another_shape_is_refused_even_with_a_right_tag(prefix: str) -> None:
    """Environment, version and brand are checked before the tag is worked out."""
    assert find_secret_id(tagged(f"{prefix}{ID}{SECRET}"), TAG_KEY) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        f" {TEXT}",
        f"{TEXT} ",
        f"{TEXT}\n",
        f"{TEXT}\r\n",
        f"{TEXT}\0",
        f"\n{TEXT}",
        f"Bearer {TEXT}",
        TEXT * 2,
        TEXT.upper(),
        TEXT.replace("0", "\u0660"),
        TEXT.replace("1", "\uff11"),
        TEXT.replace("s", "\u017f"),
        TEXT.replace("k", "\u212a"),
        "\ud800" * 73,
        "sk_live_1" * 8,
    ],
    ids=ascii,
)
def test_what_is_nearly_a_key_string_is_none(text: str) -> None:
    """No blank, line end, case, digit of another script or half of a character is forgiven; nothing raises."""
    assert find_secret_id(text, TAG_KEY) is None


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "text", ["a" * 10**6, "_" * 10**6, "sk_live_" * 10**5, TEXT + "A" * 10**6, "a_" * 10**6 + TEXT]
)
def test_endless_text_is_refused_at_once(text: str) -> None:
    """Whatever a stranger sends, its length buys no work: a thousand times a megabyte within the time limit."""
    assert all(find_secret_id(text, TAG_KEY) is None for _ in range(1000))


@given(text=st.text(max_size=100))
def test_any_text_gets_an_answer(text: str) -> None:
    """Nothing that can be presented raises."""
    assert find_secret_id(text, TAG_KEY) is None


@pytest.mark.parametrize("around", ['"{}"', "key={}&x", "{}\n", "({})", "export KEY='{}';", "a {}, b", "https://h/{}/"])
def test_the_published_pattern_finds_exactly_the_key_string(around: str) -> None:
    """A scanner sees the whole text, and nothing else, wherever a key string was left."""
    assert [match[0] for match in re.finditer(PATTERN, around.format(TEXT))] == [TEXT]


@pytest.mark.parametrize("text", [TEXT[:-1], TEXT[1:].replace("k_", "_"), TEXT.replace("_live_", "_prod_"), ID, SECRET])
def test_the_published_pattern_does_not_find_less(text: str) -> None:
    """A scanner is not alarmed by ids, hints and pieces."""
    assert re.search(PATTERN, text) is None


@pytest.mark.parametrize(
    "around",
    ["{}", "{}{}", "key={}&x", "é{}é", "A{}", "1{}", "_{}", "{}A", "{}_", "\n{}\n", "a" * 5000 + "{}" + "a" * 5000],
)
@pytest.mark.parametrize("brand", ["sk", "acme_keys", "ABC", "", "-"])
def test_a_key_string_is_seen_in_whatever_is_to_be_kept(around: str, brand: str) -> None:
    """Somebody pasted the wrong thing: it is noticed wherever it stands, also under another brand or tag."""
    text = TEXT.replace("sk", brand, 1)
    assert is_key_string_in(around.format(text, text[:-6] + "000000"))


@pytest.mark.parametrize(
    "text", ["", ID, SECRET, "sk_live_1", TEXT[:-1], TEXT.replace("_", "-"), TEXT[3:], "_live_" * 99]
)
def test_what_is_no_whole_key_string_may_be_kept(text: str) -> None:
    """Hints, ids and names of all kinds are nobody's secret."""
    assert not is_key_string_in(text)


@pytest.mark.parametrize("text", ["", ID[:-1], ID + "0", ID[:-1] + "-", ID[:-1] + "é", ID + "\n", f" {ID}"])
def test_a_secret_id_has_15_letters_and_digits(text: str) -> None:
    """What is no secret id is refused with a sentence that does not repeat it."""
    with pytest.raises(ValueError, match="15 letters and digits") as refused:
        parse_secret_id(text)
    assert not text or text not in str(refused.value)


@dataclass(frozen=True, slots=True)
class Holder:
    """Any value that has a key string in it."""

    key_string: KeyString


def logged(key_string: KeyString) -> str:
    """What a plain logger makes of it."""
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s %r", (key_string, [key_string]), None)
    return logging.Formatter().format(record)


def raise_with(key_string: KeyString) -> None:
    """Raise an error that was given a key string."""
    raise RuntimeError(key_string)


def traced(key_string: KeyString) -> str:
    """A traceback that shows local variables and the arguments of errors."""
    try:
        raise_with(key_string)
    except RuntimeError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    raise AssertionError


@pytest.mark.parametrize(
    "show",
    [
        pytest.param(repr, id="repr"),
        pytest.param(str, id="str"),
        pytest.param(ascii, id="ascii"),
        pytest.param(format, id="format"),
        pytest.param(lambda key_string: f"{key_string} {key_string!s} {key_string!r} {key_string:>200}", id="f-string"),
        pytest.param("{0} {0!r:<99}".format, id="str.format"),
        pytest.param(lambda key_string: "%s %r" % (key_string, key_string), id="percent"),  # noqa: UP031 (the point)
        pytest.param(lambda key_string: str([{key_string: (key_string,)}]), id="containers"),
        pytest.param(lambda key_string: repr(Holder(key_string)), id="dataclass"),
        pytest.param(lambda key_string: repr(mint(Environment.LIVE, TAG_KEY, entropy)), id="MintedSecret"),
        pytest.param(pprint.pformat, id="pprint"),
        pytest.param(lambda key_string: json.dumps([key_string], default=repr), id="json"),
        pytest.param(logged, id="logging"),
        pytest.param(traced, id="traceback"),
        pytest.param(lambda key_string: repr(ValueError("bad", key_string)), id="exception"),
    ],
)
def test_a_key_string_is_not_shown(show: Callable[..., str]) -> None:
    """However it is written, nothing of secret and tag comes out; only ``reveal`` gives the text."""
    key_string = KeyString(TEXT)
    assert key_string.reveal() == TEXT
    shown = show(key_string)
    assert "KeyString(" in shown
    hidden = TEXT[TEXT.index(SECRET) :]
    assert not [piece for at in range(len(hidden) - 3) if (piece := hidden[at : at + 4]) in shown]


@pytest.mark.parametrize(
    "take_along",
    [
        *(pytest.param(lambda value, n=n: pickle.dumps(value, n), id=f"pickle {n}") for n in range(6)),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(json.dumps, id="json"),
        pytest.param(bytes, id="bytes"),
        pytest.param(vars, id="vars"),
    ],
)
def test_a_key_string_is_not_taken_along(take_along: Callable[[object], object]) -> None:
    """It cannot be pickled, copied or turned into JSON, alone or in another value, and the error is silent about it."""
    for value in (KeyString(TEXT), Holder(KeyString(TEXT)), [KeyString(TEXT)]):
        if take_along in {copy.copy, bytes} and not isinstance(value, KeyString):
            continue  # a copy of the holder holds the same key string
        with pytest.raises(TypeError) as refused:
            take_along(value)
        assert ID not in str(refused.value)
