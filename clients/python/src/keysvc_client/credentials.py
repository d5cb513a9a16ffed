"""The caller's own API key, and where it comes from."""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from keysvc.core.keystring import KeyString
from keysvc_client.errors import ConfigurationError

LOOK_SECONDS: Final = 1.0
"""How often a file is looked at, at most: so long after a change the new key is used."""

KeySource: TypeAlias = Callable[[], KeyString]
"""Gives the key to call with now."""

_WORD: Final = re.compile(r"[!-~]+")
_log = logging.getLogger("keysvc_client")


def fixed_key(text: str, origin: str) -> KeySource:
    """A key that stays the same.

    Parameters:
        text: the key string.
        origin: the argument or variable that it comes from.

    Raises:
        ConfigurationError: the text cannot be a key string.
    """
    key = _checked(text, origin)
    return lambda: key


class KeyFile:
    """A file that holds a key, and may be replaced while it is used.

    Parameters:
        path: of the file.
        origin: the argument or variable that names it.
        clock: seconds since some moment.

    Raises:
        ConfigurationError: the file cannot be read, or holds no key string.
    """

    def __init__(self, path: Path, origin: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._origin = origin
        self._clock = clock
        self._looked = clock()
        self._key = self._read()
        self._is_bad = False

    def __call__(self) -> KeyString:
        """The key in the file. What cannot be read or is no key, such as half of a file, changes nothing."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            try:
                self._key = self._read()
                self._is_bad = False
            except ConfigurationError as error:
                if not self._is_bad:
                    _log.warning("the API key of before is used on: %s", error)
                self._is_bad = True
        return self._key

    def _read(self) -> KeyString:
        origin = f"{self._path} ({self._origin})"
        try:
            text = self._path.read_bytes().decode("ascii", "replace")
        except OSError as error:
            raise ConfigurationError(f"{origin} cannot be read: {error.strerror}") from None
        return _checked(text, origin)


def _checked(text: str, origin: str) -> KeyString:
    """A key string that can be sent; what is none is not shown, since it may be another secret."""
    text = text.strip()
    if not _WORD.fullmatch(text):
        raise ConfigurationError(f"{origin} holds no key string: it must be one word of ASCII characters")
    return KeyString(text)
