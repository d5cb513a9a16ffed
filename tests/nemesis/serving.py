"""`keysvc serve` with other parts: an event loop that can be told to block, a clock that runs at another rate.

It is a program: the nemesis starts it in place of `python -m keysvc`. So are the mutants, which use it. Workers are
the same program again, without arguments, so that they have the same parts.
"""

import os
import signal
import sys
import time
from functools import partial
from typing import Final

from keysvc import app, worker, workers
from keysvc.__main__ import main
from keysvc.lease.terms import boottime
from keysvc.leasing import REAL, Parts

BLOCK_SIGNAL: Final = signal.SIGUSR1
BLOCK_VARIABLE: Final = "NEMESIS_BLOCK_SECONDS"
RATE_VARIABLE: Final = "NEMESIS_CLOCK_RATE"


def serve(parts: Parts = REAL) -> None:
    """Be `keysvc`, or a worker of it, whose servers answer from memory by means of these parts."""
    if not sys.argv[1:]:
        worker.listen = partial(worker.listen, parts=parts)
        sys.exit(worker.main())
    app.serve = partial(app.serve, parts=parts)
    program = sys.modules["__main__"].__spec__
    assert program, "it is started by the name of its module"
    vars(workers).update(_COMMAND=(sys.executable, "-m", program.name))
    sys.exit(main())


def _block(*_: object) -> None:
    """Python runs this in the main thread, and the event loop with all its callbacks is what that thread does."""
    time.sleep(float(os.environ[BLOCK_VARIABLE]))


if __name__ == "__main__":
    signal.signal(BLOCK_SIGNAL, _block)
    rate = float(os.environ.get(RATE_VARIABLE, "1"))
    serve(Parts(clock=lambda: rate * boottime()))
