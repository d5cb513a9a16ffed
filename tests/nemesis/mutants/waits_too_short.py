"""A revoker that waits for half of a lease."""

from keysvc.lease.barrier import Promotions
from keysvc.lease.terms import Clock, Terms
from keysvc.leasing import Parts
from keysvc.service.waiting import Registry, Waiting
from tests.nemesis.serving import serve


def impatient(registry: Registry, promotions: Promotions, terms: Terms, clock: Clock) -> Waiting:
    """Waits by a clock that is twice as fast."""
    return Waiting(registry, promotions, terms, lambda: 2 * clock())


serve(Parts(waiting=impatient))
