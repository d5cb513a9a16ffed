"""`python -m tests.nemesis`: lets everything go wrong that can, prints what came of it, and writes it down."""

import argparse
import asyncio
import json
import secrets
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from tests.nemesis.cluster import Cluster
from tests.nemesis.fault import Fault, seeded
from tests.nemesis.faults import FAULTS
from tests.nemesis.load import Round
from tests.nemesis.quiet import Quiet, QuietRound
from tests.nemesis.report import PAGE, entry, facts, is_good, page
from tests.nemesis.result import Result, Size

DEFAULT_FILE: Final = Path("build/nemesis.json")

MANY: Final = 500
"""From so many revocations on there are more in each round."""


def main() -> int:
    """Run; 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    names = [each.name for each in FAULTS]
    parser.add_argument("--revocations", type=int, default=60, help="how many there are of each fault, at least (60)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="what chance does")
    parser.add_argument("--faults", default=",".join(names), help=f"which ones, with commas: {', '.join(names)}")
    parser.add_argument("--json", type=Path, default=DEFAULT_FILE, metavar="FILE", help=f"({DEFAULT_FILE})")
    parser.add_argument("--page", action="store_true", help=f"run nothing: write {PAGE} from the FILE")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(page(json.loads(options.json.read_text())))
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # whatever ends the run, nothing of it stays
    wanted = [each.strip() for each in options.faults.split(",")]
    if unknown := set(wanted) - set(names):
        parser.error(f"no such faults: {', '.join(sorted(unknown))}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    report = run([each for each in FAULTS if each.name in wanted], options.seed, options.revocations, options.json)
    return 0 if all(map(is_good, report["faults"])) else 1


def run(fault_types: list[type[Fault]], seed: int, revocations: int, file: Path) -> dict[str, Any]:
    """All kinds of faults, each with a cluster of its own; what is known so far is always in the file."""
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"seed {seed}")
    report: dict[str, Any] = {"seed": seed, "revocations": revocations, "faults": []}
    for fault_type in fault_types:
        found: dict[str, Any] = {"name": fault_type.name}
        if reason := fault_type.why_not():
            found["skipped"] = reason
        else:
            try:
                with Cluster.open(*fault_type.sites) as cluster:
                    report |= facts(cluster.postgres_version)
                    found = _run_fault(cluster, fault_type, seed, revocations)
            except Exception as error:  # noqa: BLE001 (the others are run all the same)
                traceback.print_exc()
                found["failure"] = f"{type(error).__name__}: {error}"
        report["faults"].append(found)
        file.write_text(json.dumps(report, indent=2) + "\n")
        console.print(_line(found))
    return report


def _run_fault(cluster: Cluster, fault_type: type[Fault], seed: int, revocations: int) -> dict[str, Any]:
    """As many rounds as it takes."""
    began = time.monotonic()
    size = Size(revocations=50 if revocations >= MANY else 20)
    result = Result()
    while result.revocations < revocations and not result.violations:
        name = f"{fault_type.__name__.lower()}-{result.rounds}"
        chance = seeded(seed, name)
        if issubclass(fault_type, Quiet):
            one = QuietRound(cluster, chance, size, name).run()
        else:
            one = Round(cluster, fault_type, chance, size, name).run()
        result.add(asyncio.run(one))
    return entry(fault_type, result, time.monotonic() - began)


def _line(found: dict[str, Any]) -> str:
    """What came of one kind of fault."""
    if "rounds" not in found:
        return f"{found['name']}: {found.get('failure') or 'skipped: ' + found['skipped']}"
    wrong = "".join(f"\n  {each}" for each in [*found["shortcomings"], *found["violations_shown"]])
    return (
        f"{found['name']}: {found['revocations']} revocations, {found['during']} while it lasted, "
        f"{found['changes']} other changes, {found['answers']} answers, {found['from_memory']} from memory, "
        f"ACK {found['ack']}, TIMER {found['timer']}, PENDING {found['pending']}, unknown {found['unknown']}, "
        f"Revoke p50 {found['p50_ms']} ms, max {found['max_ms']} ms, {found['seconds']} s: "
        f"{found['violations']} violations{wrong}"
    )


if __name__ == "__main__":
    sys.exit(main())
