"""`python -m tests.nemesis`: lets everything go wrong that can, prints what came of it, and writes it down."""

import argparse
import asyncio
import json
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from tests.nemesis import workers
from tests.nemesis.cluster import Cluster
from tests.nemesis.fault import Fault, seeded
from tests.nemesis.faults import FAULTS
from tests.nemesis.load import LEAD_SECONDS, TAIL_SECONDS, Round
from tests.nemesis.quiet import Quiet, QuietRound
from tests.nemesis.report import DATA, PAGE, entry, facts, good_ones, is_good, page
from tests.nemesis.result import Result, Size

DEFAULT_FILE: Final = Path("build/nemesis.json")

ROUNDS_MIN: Final = 3
"""A fault happens at least so often."""

ROUND_MIN: Final = 20
REVOCATIONS_PER_SECOND: Final = 25
"""In a round, at most: what two cores do beside everything else. With more the servers have no time to be quick."""

QUIET_ROUND: Final = 500

ROUNDS: Final[Mapping[type[Fault], type[QuietRound]]] = {
    Quiet: QuietRound,
    **workers.ROUNDS,
}
"""Those in which nothing but revocations happens; in the others there are other changes too."""

CLUSTER_REVOCATIONS_MAX: Final = 20_000
"""Then servers and their database are new ones, so that a long run does not grow."""


def main() -> int:
    """Run; 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    names = [each.name for each in FAULTS]
    parser.add_argument("--revocations", type=int, default=60, help="how many there are of each fault, at least (60)")
    parser.add_argument("--quiet", type=int, metavar="REVOCATIONS", help="how many there are without any (as many)")
    parser.add_argument("--seed", type=int, help="what chance does")
    parser.add_argument("--faults", default=",".join(names), help=f"which ones, with commas: {', '.join(names)}")
    parser.add_argument("--json", type=Path, default=DEFAULT_FILE, metavar="FILE", help=f"({DEFAULT_FILE})")
    parser.add_argument("--resume", action="store_true", help="keep what the FILE has, of this commit and large enough")
    parser.add_argument("--page", action="store_true", help=f"run nothing: write {PAGE} and {DATA} from the FILE")
    options = parser.parse_args()
    if options.page:
        report = json.loads(options.json.read_text())
        PAGE.write_text(page(report))
        _write(DATA, report)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # whatever ends the run, nothing of it stays
    wanted = [each.strip() for each in options.faults.split(",")]
    if unknown := set(wanted) - set(names):
        parser.error(f"no such faults: {', '.join(sorted(unknown))}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(options.json.read_text()) if options.resume and options.json.exists() else {}
    seed = next(each for each in (options.seed, kept.get("seed"), secrets.randbelow(10**6)) if each is not None)
    counts = {each: options.revocations for each in FAULTS if each.name in wanted}
    if options.quiet and Quiet in counts:
        counts[Quiet] = options.quiet
    report = run(counts, seed, options.json, kept.get("faults", []))
    return 0 if all(map(is_good, report["faults"])) else 1


def run(
    counts: Mapping[type[Fault], int], seed: int, file: Path, kept: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Faults, each with a cluster of its own; what is known so far is always in the file.

    Parameters:
        counts: how many revocations there shall be of each, at least.
        kept: entries of an earlier run, which need not be found again where they are good enough.
    """
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"seed {seed}")
    found = good_ones(kept, seed)
    report: dict[str, Any] = {"seed": seed, "faults": [*found.values()]}
    for fault_type, revocations in counts.items():
        name = fault_type.name
        if found.get(name, {}).get("revocations", 0) >= revocations:
            console.print(f"{name}: kept")
            continue
        found[name] = {"name": name, "seed": seed, **facts(), **_attempt(fault_type, seed, revocations)}
        console.print(_line(found[name]))
        report["faults"] = [found[each.name] for each in FAULTS if each.name in found]
        _write(file, report)
    return report


def _write(file: Path, report: Mapping[str, Any]) -> None:
    """Replace the file; whatever ends the run, there is a whole one."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(report, indent=2) + "\n")
    new.replace(file)


def _attempt(fault_type: type[Fault], seed: int, revocations: int) -> dict[str, Any]:
    """What came of one kind of fault, whatever it was."""
    if reason := fault_type.why_not():
        return {"skipped": reason}
    try:
        return _run_fault(fault_type, seed, revocations)
    except Exception as error:  # noqa: BLE001 (the others are run all the same)
        traceback.print_exc()
        return {"failure": f"{type(error).__name__}: {error}"}


def _run_fault(fault_type: type[Fault], seed: int, revocations: int) -> dict[str, Any]:
    """As many rounds as it takes."""
    began = time.monotonic()
    result = Result()
    quiet = ROUNDS.get(fault_type)
    seconds = LEAD_SECONDS + fault_type.seconds + TAIL_SECONDS
    most = QUIET_ROUND if quiet else round(REVOCATIONS_PER_SECOND * seconds)
    size = Size(revocations=max(ROUND_MIN, min(most, -(-revocations // ROUNDS_MIN))))
    while result.revocations < revocations and _is_sound(result):
        enough = min(revocations, result.revocations + CLUSTER_REVOCATIONS_MAX)
        with Cluster.open(*fault_type.sites) as cluster:
            version = cluster.postgres_version
            while result.revocations < enough and _is_sound(result):
                name = f"{fault_type.__name__.lower()}-{result.rounds}"
                chance = seeded(seed, name)
                if quiet:
                    one = quiet(cluster, chance, size, name).run()
                else:
                    one = Round(cluster, fault_type, chance, size, name).run()
                result.add(asyncio.run(one))
    return {"postgresql": version, **entry(fault_type, result, time.monotonic() - began)}


def _is_sound(result: Result) -> bool:
    """Whether more rounds make sense: nothing is wrong, and each has met its fault."""
    return not result.violations and result.met == result.rounds


def _line(found: dict[str, Any]) -> str:
    """What came of one kind of fault."""
    if "rounds" not in found:
        return f"{found['name']}: {found.get('failure') or 'skipped: ' + found['skipped']}"
    wrong = "".join(f"\n  {each}" for each in [*found["shortcomings"], *found["violations_shown"]])
    return (
        f"{found['name']}: {found['revocations']} revocations, {found['during']} while it lasted, "
        f"{found['changes']} other changes, {found['answers']} answers, {found['from_memory']} from memory, "
        f"ACK {found['ack']}, TIMER {found['timer']}, PENDING {found['pending']}, unknown {found['unknown']}, "
        f"Revoke p50 {found['p50_ms']} ms, max {found['max_ms']} ms, asked after p50 {found['probe_p50_ms']} ms, "
        f"p99 {found['probe_p99_ms']} ms, {found['seconds']} s, {found['revocations'] / found['seconds']:.1f}/s: "
        f"{found['violations']} violations{wrong}"
    )


if __name__ == "__main__":
    sys.exit(main())
