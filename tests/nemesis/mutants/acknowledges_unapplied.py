"""A holder that acknowledges what it has heard of, and keeps what it remembers."""

from keysvc.lease.holder import Holder
from keysvc.lease.news import News
from keysvc.leasing import Parts
from tests.nemesis.serving import serve


class Obliging(Holder):
    """Says yes to everything."""

    def _apply(self, news: News) -> bool:
        """Take note of the revision alone."""
        has_moved = news.log.seq > self.applied.seq
        self._log = news.log
        return has_moved


serve(Parts(holder=Obliging))
