"""`keysvc`, with an event loop that can be told to block, and with a clock that can run at another rate.

It is a program: the nemesis starts it in place of `python -m keysvc`.
"""

import os
import signal
import sys
import time

from keysvc.__main__ import main

BLOCK_SIGNAL = signal.SIGUSR1
BLOCK_VARIABLE = "NEMESIS_BLOCK_SECONDS"
RATE_VARIABLE = "NEMESIS_CLOCK_RATE"


def _block(*_: object) -> None:
    """Python runs this in the main thread, and the event loop with all its callbacks is what that thread does."""
    time.sleep(float(os.environ[BLOCK_VARIABLE]))


if __name__ == "__main__":
    signal.signal(BLOCK_SIGNAL, _block)
    sys.exit(main())
