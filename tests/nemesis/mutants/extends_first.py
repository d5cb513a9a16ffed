"""A holder that extends its lease before it has applied what the renewal brings: it gets round to that later."""

import asyncio
from typing import Final

from keysvc.lease.holder import Holder, Outcome
from keysvc.lease.news import News
from keysvc.leasing import Parts
from tests.nemesis.serving import serve

LATER_SECONDS: Final = 2.5


class Extending(Holder):
    """Applies later."""

    def renewed(self, sent: float, news: News | None) -> Outcome:
        """Extend."""
        if news is None or not news.changes:
            return super().renewed(sent, news)
        self._deadline = max(self._deadline, sent + self.terms.lease_seconds)
        asyncio.get_running_loop().call_later(LATER_SECONDS, super().renewed, sent, news)
        return Outcome.EXTENDED

    def fetched(self, news: News) -> Outcome:
        """Put that off too."""
        return Outcome.EXTENDED


serve(Parts(holder=Extending))
