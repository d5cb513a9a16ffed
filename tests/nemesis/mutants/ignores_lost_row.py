"""A holder that does not mind when a renewal finds no row of it."""

from keysvc.lease.holder import Holder, Outcome
from keysvc.lease.news import News
from keysvc.leasing import Parts
from tests.nemesis.serving import serve


class Indifferent(Holder):
    """Goes on."""

    def renewed(self, sent: float, news: News | None) -> Outcome:
        """Extend the lease in any case."""
        if news is not None:
            return super().renewed(sent, news)
        self._deadline = max(self._deadline, sent + self.terms.lease_seconds)
        return Outcome.EXTENDED


serve(Parts(holder=Indifferent))
