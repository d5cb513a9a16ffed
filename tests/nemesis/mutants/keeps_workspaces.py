"""A memory that drops keys when they change, and keeps what it knows of workspaces."""

from collections.abc import Iterable
from uuid import UUID

from keysvc.lease.memory import Memory
from keysvc.leasing import Parts
from tests.nemesis.serving import serve


class Sparing(Memory):
    """Spares workspaces."""

    def drop(self, kind: str, subject_ids: Iterable[UUID]) -> None:
        """Drop the others."""
        if kind != "workspaces":
            super().drop(kind, subject_ids)


serve(Parts(memory=Sparing))
