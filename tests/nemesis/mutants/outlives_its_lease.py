"""A holder that does not look whether its lease has ended."""

from keysvc.lease.holder import Holder, Standing
from keysvc.leasing import Parts
from tests.nemesis.serving import serve


class Timeless(Holder):
    """Answers from memory as soon as it is a member."""

    def _standing(self, now: float) -> Standing:
        """Always on a lease."""
        return Standing.NOTHING if self.member_id is None else Standing.LEASE


serve(Parts(holder=Timeless))
