"""Files that are used again when they have changed, while the server runs."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

LOOK_SECONDS: Final = 1.0
"""How often files are looked at. A change is used at the second look that finds the same."""

_log = structlog.get_logger("keysvc")


class Reloaded:
    """Files that belong together, and have been put to use as they are.

    Parameters:
        paths: all of them.
        use: reads and checks them, and puts them to use. Raises ``ValueError`` with a sentence if they are bad: what
            was used before is then kept.
    """

    def __init__(self, paths: list[Path], use: Callable[[], None]) -> None:
        self._paths = paths
        self._use = use
        self._seen = self._settled = self._read()

    def look(self) -> None:
        """Use the files again if they have changed, and are the same as at the last look.

        They may be several, written one after the other, or one that is not written whole yet.
        """
        before, self._seen = self._seen, self._read()
        if self._seen == self._settled or self._seen != before:
            return
        self._settled = self._seen
        files = ", ".join(map(str, self._paths))
        try:
            self._use()
        except ValueError as error:
            _log.error("changed files not used", files=files, reason=str(error))
        else:
            _log.info("changed files used", files=files)

    def _read(self) -> list[bytes]:
        """What tells one state of the files from another; not the files, among which are keys."""
        return [_fingerprint(path) for path in self._paths]


def _fingerprint(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""


@asynccontextmanager
async def reloading(*files: Reloaded) -> AsyncIterator[None]:
    """Look at files again and again."""
    looking = asyncio.create_task(_look(files))
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _look(files: tuple[Reloaded, ...]) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        for each in files:
            await asyncio.to_thread(each.look)
