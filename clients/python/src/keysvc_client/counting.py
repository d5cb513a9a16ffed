"""Counts of what keysvc is told as usage, which outlive the process if they are kept in files.

A sheet has the counts of one batch of RecordUsage, and that batch's number from the beginning. Once nothing is counted
on it any more it is the batch, and whoever finds it sends the same one: each count is recorded once, whether the
process lives or not. A sheet in a file is shared memory: what was counted is there after a kill, without any write.
"""

import fcntl
import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from errno import EBADMSG
from itertools import groupby
from mmap import mmap
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple, Self
from uuid import uuid4

from keysvc_client.errors import ConfigurationError

SLOTS: Final = 900
"""Of a sheet. A batch may have 1000 records, and one of a large count is several."""

KINDS_MAX: Final = 50_000
"""Of 150 bytes each."""

_MAGIC: Final = b"keysvc usage 1\n"
_HEADER_BYTES: Final = 256
_NAME_BYTES: Final = 128
_BYTES: Final = _HEADER_BYTES + SLOTS * (8 + 8 + _NAME_BYTES)
_SUFFIX: Final = ".usage"

_log = logging.getLogger("keysvc_client")

_ours: Final[set[str]] = set()
"""The sources of this process. The lock of a file does not keep out the process that holds it."""


class Kind(NamedTuple):
    """What is told as one number: answers with a verdict, or requests with an outcome.

    Parameters:
        verdict, outcome: the names that the contract has for them, the other one is empty.
    """

    key_id: str
    secret_id: str
    verdict: str = ""
    outcome: str = ""
    status_code: int = 0


class Count(NamedTuple):
    """How many there were of a kind.

    Parameters:
        last_time: when the last of them was, by the database's clock as far as that is known here.
    """

    kind: Kind
    number: int
    last_time: datetime


class Sheet:
    """The counts of one batch.

    Parameters:
        memory: where they are.
        path: the file that this is; None: none.
        descriptor: of the file, locked for as long as it is open.

    Attributes:
        is_open: something may still be counted on it.
        counts: of each slot.
        times: when the last one was counted, by the database's clock, in seconds since 1970.
    """

    __slots__ = ("_descriptor", "_memory", "_path", "_used", "counts", "is_open", "seq", "source_id", "times")

    def __init__(self, memory: mmap, path: Path | None = None, descriptor: int = -1) -> None:
        self._memory = memory
        self._path = path
        self._descriptor = descriptor
        self._used = 0
        self.is_open = False
        header = bytes(memory[len(_MAGIC) : _HEADER_BYTES]).rstrip(b"\0").decode()
        self.source_id, _, seq = header.partition(" ")
        self.seq = int(seq)
        view = memoryview(memory)
        self.counts = view[_HEADER_BYTES : _HEADER_BYTES + 8 * SLOTS].cast("Q")
        self.times = view[_HEADER_BYTES + 8 * SLOTS : _HEADER_BYTES + 16 * SLOTS].cast("d")

    @classmethod
    def begin(cls, folder: Path | None, source_id: str, seq: int) -> Self:
        """An empty sheet.

        Raises:
            OSError: there can be no file in the folder.
        """
        head = _MAGIC + _label(source_id, seq)
        path, descriptor, memory = None, -1, None
        if folder is None:
            memory = mmap(-1, _BYTES)
            memory[: len(head)] = head
        else:
            path = folder / f"{source_id}-{seq:08}{_SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.posix_fallocate(descriptor, 0, _BYTES)  # else a full disk would end the process, later
                memory = mmap(descriptor, _BYTES)
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise
            memory[: len(head)] = head
        sheet = cls(memory, path, descriptor)
        sheet.is_open = True
        return sheet

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """A sheet of a process that has ended; None: it has not, or this is none."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        with suppress(OSError):
            # Who makes a sheet locks it before it can be told for one.
            if os.pread(descriptor, len(_MAGIC), 0) == _MAGIC:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return cls._read(path, descriptor)
        os.close(descriptor)
        return None

    @classmethod
    def _read(cls, path: Path, descriptor: int) -> Self:
        """A sheet from its file, which is set aside if it cannot be read.

        Raises:
            OSError: it cannot.
        """
        try:
            sheet = cls(mmap(descriptor, _BYTES), path, descriptor)
            deque(sheet, maxlen=0)
        except (ValueError, OverflowError) as error:
            aside = path.rename(path.with_suffix(f"{_SUFFIX}.damaged"))
            _log.error("usage cannot be read, and is set aside in %s (%s)", aside, error)
            raise OSError(EBADMSG, "damaged") from None
        return sheet

    def take(self, kind: Kind) -> int | None:
        """A slot for a kind; None: there is none left."""
        slot, name = self._used, "\n".join(map(str, kind)).encode()
        if slot == SLOTS:
            return None
        start = _HEADER_BYTES + 16 * SLOTS + slot * _NAME_BYTES
        self._memory[start : start + _NAME_BYTES] = name.ljust(_NAME_BYTES, b"\0")
        self._used += 1
        return slot

    def __iter__(self) -> Iterator[Count]:
        """What was counted."""
        for slot, number in enumerate(self.counts):
            if number:
                start = _HEADER_BYTES + 16 * SLOTS + slot * _NAME_BYTES
                name = bytes(self._memory[start : start + _NAME_BYTES]).rstrip(b"\0").decode()
                key_id, secret_id, verdict, outcome, status_code = name.split("\n")
                kind = Kind(key_id, secret_id, verdict, outcome, int(status_code))
                yield Count(kind, number, datetime.fromtimestamp(self.times[slot], UTC))

    def number_anew(self) -> None:
        """Be the first batch of a source of its own: the service does not know, or has forgotten, those before it."""
        self.source_id, self.seq = _new_source(), 1
        self._memory[len(_MAGIC) : _HEADER_BYTES] = _label(self.source_id, self.seq)

    def is_empty(self) -> bool:
        """Whether nothing was counted."""
        return not any(self.counts)

    def discard(self) -> None:
        """Recorded, or empty: it goes."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
        self.close()

    def close(self) -> None:
        """Leave it to others; without a file it is lost."""
        self.is_open = False
        self.counts.release()
        self.times.release()
        self._memory.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)


class Counting:
    """The sheets of this process. Those who count hold a lock of their own meanwhile.

    Parameters:
        folder: where sheets are files; None: they end with the process.
        kinds_max: how many kinds are counted apart while keysvc takes nothing; what is more is lost, and told.
    """

    def __init__(self, folder: Path | None = None, kinds_max: int = KINDS_MAX) -> None:
        self.folder: Final = folder
        self._kinds_max = kinds_max
        self._places: dict[Kind, tuple[Sheet, int]] = {}
        self._open: list[Sheet] = []
        self._drain = Sheet.begin(None, "", 0)
        self._making = Lock()
        self._source_id, self._seq = _new_source(), 0
        self._spare: Sheet | None = self._begin()

    def prepare(self) -> None:
        """Have an empty sheet ready: to make one takes longer than to answer. Without the lock of those who count."""
        with self._making:
            self._spare = self._spare or self._begin()

    def place(self, kind: Kind) -> tuple[Sheet, int]:
        """Where to count a kind, while the sheet is open."""
        if (place := self._places.get(kind)) is not None:
            return place
        if len(self._places) >= self._kinds_max:
            return self._drain, 0
        while not self._open or (slot := self._open[-1].take(kind)) is None:
            with self._making:
                sheet, self._spare = self._spare or self._begin(), None
            self._open.append(sheet)
        place = self._places[kind] = self._open[-1], slot
        return place

    def seal(self) -> list[Sheet]:
        """All sheets with counts, in order, on which nothing is counted any more."""
        sealed, self._open, self._places = self._open, [], {}
        for sheet in sealed:
            sheet.is_open = False
        if lost := self._drain.counts[0]:
            _log.error("usage lost: %d requests, of too many keys while keysvc took no usage", lost)
            self._drain.close()
            self._drain = Sheet.begin(None, "", 0)
        return sealed

    def number_anew(self) -> None:
        """Be a new source from the next sheet on."""
        with self._making:
            if self._spare is not None:
                self._spare.discard()
            self._source_id, self._seq = _new_source(), 0
            self._spare = self._begin()

    def close(self) -> None:
        """Nothing is counted any more."""
        with self._making:
            if self._spare is not None:
                self._spare.discard()
            self._spare = None

    def _begin(self) -> Sheet:
        self._seq += 1
        try:
            return Sheet.begin(self.folder, self._source_id, self._seq)
        except OSError as error:
            _log.error("usage is kept in memory alone: no file in %s (%s)", self.folder, error.strerror)
            return Sheet.begin(None, self._source_id, self._seq)


def _new_source() -> str:
    """The name of a source that nobody knows."""
    source_id = f"client-{uuid4()}"
    _ours.add(source_id)
    return source_id


def _label(source_id: str, seq: int) -> bytes:
    """What a sheet says that it is, after its beginning."""
    return f"{source_id} {seq}".encode().ljust(_HEADER_BYTES - len(_MAGIC), b"\0")


def left_over(folder: Path) -> Iterator[list[Sheet]]:
    """The sheets of processes that have ended, those of each one in order; whoever takes them closes them."""
    names = sorted(path.name for path in folder.glob(f"*{_SUFFIX}"))
    for source_id, some in groupby(names, lambda name: name.rpartition("-")[0]):
        if source_id not in _ours:
            sheets = [sheet for name in some if (sheet := Sheet.find(folder / name)) is not None]
            if sheets:
                yield sheets


def spool(path: Path) -> Path:
    """A folder for sheets that is there; for us alone if we make it.

    Raises:
        ConfigurationError: there can be none.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"usage_spool: no folder {path} ({error.strerror})") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigurationError(f"usage_spool: nothing can be written in {path}")
    return path
