"""A holder that remembers what a look-up has found, however old that is."""

from uuid import UUID

from keysvc.core.revision import Revision
from keysvc.core.verdict import Record
from keysvc.lease.holder import Holder
from keysvc.leasing import Parts
from tests.nemesis.serving import serve


class Trusting(Holder):
    """Compares no revisions."""

    def remember(self, mark: bytes, record: Record | None, revision: Revision, asked_as: UUID | None) -> None:
        """Remember it."""
        if record is not None:
            self.memory.remember(mark, record)

    def is_behind(self, revision: Revision) -> bool:
        """Take it as it is."""
        return False


serve(Parts(holder=Trusting))
