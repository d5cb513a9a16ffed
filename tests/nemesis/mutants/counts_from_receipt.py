"""A holder whose lease begins when the answer to a renewal comes, and not when the renewal was sent."""

from keysvc.lease.holder import Holder, Outcome
from keysvc.lease.news import News
from keysvc.leasing import Parts
from tests.nemesis.serving import serve


class Counting(Holder):
    """Counts from now on."""

    def renewed(self, sent: float, news: News | None) -> Outcome:
        """Forget when it was sent."""
        return super().renewed(self._clock(), news)


serve(Parts(holder=Counting))
