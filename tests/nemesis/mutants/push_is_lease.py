"""A holder that takes each wake-up for a new lease: somebody who knows of it must be alive."""

from keysvc.leasing import Parts
from keysvc.service.renewing import Renewing
from tests.nemesis.serving import serve


class Pushed(Renewing):
    """Extends the lease when it is woken."""

    def wake(self, seq: int) -> None:
        """Extend it."""
        super().wake(seq)
        holder = self._holder
        if holder.member_id is not None:
            holder._deadline = max(holder._deadline, self._clock() + holder.terms.lease_seconds)


serve(Parts(renewing=Pushed))
