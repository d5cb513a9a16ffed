"""A holder that acknowledges what it has applied, whatever its clients have."""

from keysvc.lease.sessions import Sessions
from keysvc.leasing import Parts
from tests.nemesis.serving import serve


class Heedless(Sessions):
    """Asks nobody."""

    def acknowledged(self) -> int:
        """All that the holder has applied."""
        return self._holder.applied.seq


serve(Parts(sessions=Heedless))
