"""`python -m tests.lease`: explores every configuration, looks for every mistake, and prints a table."""

import sys
import time

from rich.console import Console
from rich.table import Table

from tests.lease.configurations import FOUND, MORE, USUAL
from tests.lease.exploring import Explorer, Found
from tests.lease.model import Configuration, Mistake

_WIDTH = 130
"""Of the tables, where the output is no terminal."""


def main() -> None:
    """Run; it fails if the protocol is not safe, or a mistake is not found."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    cases = [
        *((configuration, None) for configuration in (*USUAL, *MORE)),
        *((configuration, mistake) for configuration, mistakes in FOUND.items() for mistake in mistakes),
    ]
    table = Table("configuration", "mistake", "states", "CPU s", "result")
    unexpected = 0
    for configuration, mistake in cases:
        before = time.process_time()
        found = Explorer(configuration, mistake).explore()
        seconds = time.process_time() - before
        is_expected = bool(found.wrong) == bool(mistake)
        unexpected += not is_expected
        table.add_row(*_row(configuration, mistake, found), f"{seconds:.1f}", _result(found))
        console.print(f"{configuration.name}: {mistake.value if mistake else 'the protocol'}: {_result(found)}")
        if not is_expected:
            console.print(*found.trace, sep="\n")
    console.print(table)
    sys.exit(1 if unexpected else 0)


def _row(configuration: Configuration, mistake: Mistake | None, found: Found) -> tuple[str, str, str]:
    leases = " and ".join(map(str, configuration.leases))
    return f"{configuration.name} (lease {leases})", mistake.name if mistake else "", f"{found.states:,}"


def _result(found: Found) -> str:
    return f"{found.wrong[:3]} broken after {len(found.trace)} steps" if found.wrong else "safe in all states"


if __name__ == "__main__":
    main()
