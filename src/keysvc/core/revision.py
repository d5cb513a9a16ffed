"""Revisions: positions in the log of changes."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Revision:
    """A position in the log of changes of one database; to callers an opaque text.

    Parameters:
        epoch: the life of the log; another one after the database was rebuilt or restored.
        seq: counts changes; equal to their commit order.
    """

    epoch: UUID
    seq: int

    def __str__(self) -> str:
        """The text that callers get."""
        return f"{self.epoch.hex}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Revision":
        """Read what ``str`` wrote; raise ``ValueError`` saying what is allowed."""
        epoch, _, seq = text.partition(".")
        try:
            revision = cls(UUID(epoch), int(seq))
            if str(revision) == text and 0 <= revision.seq < 2**63:  # as PostgreSQL counts
                return revision
        except ValueError:
            pass
        raise ValueError("must be a revision from a receipt or an answer of Verify")
