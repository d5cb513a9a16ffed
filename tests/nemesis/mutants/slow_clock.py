"""A holder whose clock is slower than the others believe that clocks can be: they take them all for equal here."""

from keysvc.lease.terms import boottime
from keysvc.leasing import Parts
from tests.nemesis.serving import serve

serve(Parts(clock=lambda: boottime() / 1.15))
