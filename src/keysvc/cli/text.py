"""What may reach a terminal: text of the service is data, and no character of it can steer one."""

import contextlib
import json
import os
import re
import unicodedata
from typing import TextIO

# Joiners belong to some scripts and to emoji; every other invisible or steering character is written out.
_JOINERS = "\u200c\u200d"
_STEERING = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})

# Wider than what keysvc mints, so that most of a key string is hidden too.
_KEY_STRING = re.compile(r"((?:[a-z][a-z0-9_]{0,15}_)?(?:live|test)_[0-9A-Za-z]{8})[0-9A-Za-z]{16,}")


def steers(character: str) -> bool:
    """Whether a character could move a cursor, change colours, reverse text or hide."""
    return unicodedata.category(character) in _STEERING and character not in _JOINERS


def clean(text: str) -> str:
    r"""Write out every character that steers: ESC becomes `\x1b`, a line break `\n`."""
    return "".join(each.encode("unicode_escape").decode("ascii") if steers(each) else each for each in text)


def find_key_string_hint(text: str) -> str | None:
    """The beginning of a key string in a text, long enough to find its key by; None: there is none."""
    match = _KEY_STRING.search(text)
    return match[1] if match else None


def hide_key_strings(text: str) -> str:
    """Leave only the beginning of every key string in a text."""
    return _KEY_STRING.sub(r"\1…", text)


def to_json(value: object, stream: TextIO) -> str:
    """JSON with every steering character written out; and all beyond ASCII, where the stream cannot carry it."""
    ascii_only = (stream.encoding or "").lower() not in {"utf-8", "utf8"}
    lines = json.dumps(value, ensure_ascii=ascii_only, indent=2).split("\n")
    return "".join("".join(_escape(each) if steers(each) else each for each in line) + "\n" for line in lines)


def _escape(character: str) -> str:
    """A character as JSON writes it out, in two halves beyond the 16 bits."""
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def write(stream: TextIO, text: str) -> bool:
    """Write and flush; False if nobody reads any more, and then nothing written later is an error either."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # the interpreter flushes once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False
    return True
