"""Receipts: what the caller of a change gets in its hand."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from keysvc.core.revision import Revision


class Path(StrEnum):
    """How it became certain that a change is true everywhere."""

    ACK = "ack"
    """Everybody who answers from memory has acknowledged it."""
    TIMER = "timer"
    """The leases of those who have not have ended."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Since when, and how surely, a change is true everywhere.

    Parameters:
        path: how that became certain; None: it is not yet.
        waited_seconds: after the commit.
        effective_by: by the database's clock, when it will be true everywhere at the latest, if it is not yet.
        unacknowledged: hosts that did not answer.
    """

    revision: Revision
    path: Path | None
    waited_seconds: float
    effective_by: datetime | None = None
    unacknowledged: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether no Verify that starts now, anywhere, is judged by the state before the change."""
        return self.path is not None
