"""`keysvc serve` with other parts: an event loop that can be told to block, a clock that runs at another rate.

It is a program: the nemesis starts it in place of `python -m keysvc`. So are the mutants, which use it.
"""

import os
import signal
import sys
import time
from functools import partial
from typing import Final

from keysvc import app
from keysvc.__main__ import main
from keysvc.lease.terms import boottime
from keysvc.leasing import REAL, Parts

BLOCK_SIGNAL: Final = signal.SIGUSR1
BLOCK_VARIABLE: Final = "NEMESIS_BLOCK_SECONDS"
RATE_VARIABLE: Final = "NEMESIS_CLOCK_RATE"


def serve(parts: Parts = REAL) -> None:
    """Be `keysvc`, whose servers answer from memory by means of these parts."""
    app.serve = partial(app.serve, parts=parts)
    sys.exit(main())


def _block(*_: object) -> None:
    """Python runs this in the main thread, and the event loop with all its callbacks is what that thread does."""
    time.sleep(float(os.environ[BLOCK_VARIABLE]))


if __name__ == "__main__":
    signal.signal(BLOCK_SIGNAL, _block)
    rate = float(os.environ.get(RATE_VARIABLE, "1"))
    serve(Parts(clock=lambda: rate * boottime()))
