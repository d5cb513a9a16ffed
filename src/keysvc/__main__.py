"""Run ``keysvc`` as ``python -m keysvc``."""

import sys

from keysvc.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
