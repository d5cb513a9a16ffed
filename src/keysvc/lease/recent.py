"""The changes that a holder has applied last, for clients of its that have applied fewer."""

from collections import deque
from collections.abc import Collection
from typing import Final

from keysvc.lease.news import SUBJECTS_MAX, Change

CHANGES_MAX: Final = 10_000
"""However few subjects they have."""


class Recent:
    """Remembers changes, as many as somebody would rather drop one by one than forget everything."""

    def __init__(self) -> None:
        self._start = 0
        self._subjects = 0
        self._blocks: deque[tuple[int, Collection[Change]]] = deque()

    def begin(self, seq: int) -> None:
        """Nothing is known of what was changed up to here."""
        self._start, self._subjects = seq, 0
        self._blocks.clear()

    def add(self, changes: Collection[Change], seq: int) -> None:
        """These were all changes up to a revision."""
        if not changes:
            return
        self._blocks.append((seq, changes))
        self._subjects += _size(changes)
        while self._subjects > SUBJECTS_MAX or len(self._blocks) > CHANGES_MAX:
            self._start, oldest = self._blocks.popleft()
            self._subjects -= _size(oldest)

    def since(self, seq: int) -> list[Change] | None:
        """All changes after a revision, and perhaps some before; None: too many, or nobody knows."""
        if seq < self._start:
            return None
        return [change for last, changes in self._blocks if last > seq for change in changes]


def _size(changes: Collection[Change]) -> int:
    return sum(len(change.subject_ids) for change in changes)
