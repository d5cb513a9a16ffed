"""The text that is handed out once: ``{brand}_{env}_{version}{id}{secret}{tag}``, for example ``sk_live_1…``.

After the environment follows one run of base62, so that a double click selects all of it:

======== ========== =====================================================================
part     characters what
======== ========== =====================================================================
version  1          format of this text, ``1``
id       15         public id of the secret (88 bits)
secret   43         256 random bits
tag      6          truncated HMAC-SHA-256 under the deployment's tag key over all before it
======== ========== =====================================================================

The tag lets a server refuse a typo or an invented key without asking the database. It is no proof of anything: proof
is the digest, see ``keysvc.core.pepper``.
"""

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

BRAND: Final = "sk"
VERSION: Final = "1"

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_BYTES, _ID_CHARACTERS = 11, 15
_SECRET_BYTES, _SECRET_CHARACTERS = 32, 43
_TAG_CHARACTERS = 6
_HINT_CHARACTERS = 8

_CHARACTERS_MIN = _ID_CHARACTERS + _SECRET_CHARACTERS + _TAG_CHARACTERS

PATTERN: Final = (
    rf"\b[a-z][a-z0-9_]{{0,15}}_(?:live|test)_{VERSION}"
    rf"[0-9A-Za-z]{{{_ID_CHARACTERS + _SECRET_CHARACTERS + _TAG_CHARACTERS}}}\b"
)
"""The published shape of a key string, for secret scanners: anchored, so that it matches whole words alone."""

_SHAPE = re.compile(PATTERN)
_SOMEWHERE = re.compile(PATTERN.removeprefix(r"\b[a-z][a-z0-9_]{0,15}").removesuffix(r"\b"))
_PIECE = re.compile(rf"((?:live|test)_{VERSION})[0-9A-Za-z]{{20,}}")
_SECRET_ID = re.compile(rf"[0-9A-Za-z]{{{_ID_CHARACTERS}}}")


class Environment(StrEnum):
    """Where a key may be used."""

    LIVE = "live"
    TEST = "test"


class KeyString:
    """A whole key string that repr, str, format, pickle and logs cannot show; ``reveal`` is the one way to the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        """Nothing that helps anybody."""
        return "KeyString(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        """As repr."""
        return repr(self)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied into another process."""
        raise TypeError("a key string is not pickled")


@dataclass(frozen=True, slots=True)
class MintedSecret:
    """A new secret: what may be stored (id, hint) and the text that may not."""

    id: str
    hint: str
    key_string: KeyString


def _base62(number: int, characters: int) -> str:
    """Write ``number`` in base62, padded to ``characters``."""
    digits = []
    for _ in range(characters):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _tag(body: str, tag_key: bytes) -> str:
    """The tag over everything before it."""
    mac = hmac.digest(tag_key, body.encode(), "sha256")
    return _base62(int.from_bytes(mac), _TAG_CHARACTERS)


def mint(environment: Environment, tag_key: bytes, entropy: Callable[[int], bytes]) -> MintedSecret:
    """Make a new key string.

    Parameters:
        environment: becomes part of the text.
        tag_key: the deployment's tag key.
        entropy: gives so many unpredictable bytes, such as ``secrets.token_bytes``.
    """
    secret_id = _base62(int.from_bytes(entropy(_ID_BYTES)), _ID_CHARACTERS)
    secret = _base62(int.from_bytes(entropy(_SECRET_BYTES)), _SECRET_CHARACTERS)
    prefix = f"{BRAND}_{environment}_"
    body = f"{prefix}{VERSION}{secret_id}{secret}"
    return MintedSecret(
        id=secret_id,
        hint=body[: len(prefix) + _HINT_CHARACTERS],
        key_string=KeyString(body + _tag(body, tag_key)),
    )


def parse_secret_id(text: str) -> str:
    """Return ``text`` if it can be the public id of a secret, else raise ``ValueError`` saying what is allowed."""
    if not _SECRET_ID.fullmatch(text):
        raise ValueError(f"must be the id of a secret: {_ID_CHARACTERS} letters and digits")
    return text


def is_key_string_in(text: str) -> bool:
    """Whether a text has a key string in it. What is kept must not: somebody pasted the wrong thing."""
    return len(text) > _CHARACTERS_MIN and _SOMEWHERE.search(text) is not None


def redact(text: str) -> str:
    """Cut all key strings in a text, and large pieces of one: what follows brand, environment and version."""
    return _PIECE.sub(r"\1…", text)


def find_secret_id(text: str, tag_key: bytes) -> str | None:
    """The public id in a presented text; None when it is no key string or this deployment did not mint it.

    Parts have fixed lengths and are counted from the right, since a brand may contain ``_``.
    """
    if not _SHAPE.fullmatch(text):
        return None
    body, tag = text[:-_TAG_CHARACTERS], text[-_TAG_CHARACTERS:]
    if not hmac.compare_digest(tag, _tag(body, tag_key)):
        return None
    return body[-_SECRET_CHARACTERS - _ID_CHARACTERS : -_SECRET_CHARACTERS]
