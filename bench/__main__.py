"""`python -m bench`: loads keys, measures, prints tables, writes JSON."""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from rich.console import Console

from bench import contest, flood, generator, leased, memory, protect, rates, records, revoke, start, usage
from bench.deployment import open_deployment
from bench.facts import facts
from bench.generator import Generator, GoMissingError
from bench.result import Topic
from bench.seeding import KEYS_MIN, Size, seed, tidy
from bench.session import QUICK, Effort, Pool, Session, create_caller
from bench.table import table

Measure: TypeAlias = Callable[[Session], Coroutine[Any, Any, Topic]]

CONTEST: Final = ("hot", "cold", "mixed", "naive")
OTHERS: Final[dict[str, Measure]] = {
    "rates": rates.measure,
    "flood": flood.measure,
    "revoke": revoke.measure,
    "leased": leased.measure,
    "protect": protect.measure,
    "usage": usage.measure,
    "memory": memory.measure,
    "start": start.measure,
    "records": records.measure,
}
"""Topics of their own, in this order; the last one writes so much that nothing should follow."""

TOPICS: Final = (*CONTEST, *OTHERS)

KEYS: Final = 1_000_000
KEYS_FEW: Final = 20_000
"""Enough for topics that need no look-ups in a large table."""

_LARGE: Final = frozenset({"cold", "mixed", "records"})
_WIDTH: Final = 170
"""Of tables, where the output is no terminal."""


def main() -> int:
    """Run; 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default=",".join(TOPICS), help=f"which topics, with commas: {', '.join(TOPICS)}")
    parser.add_argument("--keys", type=int, help=f"how many are loaded ({KEYS:,}; {KEYS_FEW:,} where more are no use)")
    parser.add_argument("--workspaces", type=int, default=1_000, help="over how many they are spread (1000)")
    parser.add_argument("--rounds", type=int, help="of hot, cold and mixed")
    parser.add_argument("--seed", type=int, default=1, help="what chance does (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="little of everything: whether it runs, not how fast")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # whatever ends the run, nothing of it stays
    names = [each.strip() for each in options.only.split(",")]
    if unknown := set(names) - set(TOPICS):
        parser.error(f"no such topics: {', '.join(sorted(unknown))}")
    keys = options.keys or (KEYS if _LARGE & set(names) and not options.quick else KEYS_FEW)
    if keys < KEYS_MIN:
        parser.error(f"--keys must be at least {KEYS_MIN}")
    if options.workspaces < 1:
        parser.error("--workspaces must be at least 1")
    effort = QUICK if options.quick else Effort()
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    try:
        report = run(names, effort, Size(keys, options.workspaces), options.seed, console, options.json)
    except GoMissingError as error:
        console.print(str(error), soft_wrap=True)
        return 1
    return 1 if report["failures"] else 0


def run(  # noqa: PLR0913, PLR0917 (all that a run depends on)
    names: Sequence[str], effort: Effort, size: Size, chance: int, console: Console, file: Path | None
) -> dict[str, Any]:
    """Measure the topics, and print and write down each as soon as it is known.

    Raises:
        GoMissingError: there is no load generator.
    """
    report: dict[str, Any] = {"topics": [], "failures": {}}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keysvc-bench-load-") as folder, open_deployment() as deployment:
        program = generator.build(Path(folder))
        operator = deployment.bootstrap()
        console.print(f"loading {size.keys:,} keys …")
        minted = seed(deployment.url, deployment.admin_url, deployment.peppers, size)
        report |= facts(deployment.url) | {"keys": size.keys, "workspaces": size.workspaces, "seed": chance}
        report |= {"effort": asdict(effort), "quick": effort is QUICK}
        with deployment.serve() as served:
            caller = asyncio.run(create_caller(served, operator))
        random_ = random.Random(chance)  # noqa: S311 (the same run again)
        session = Session(
            deployment,
            operator,
            Generator(program, caller),
            Pool(minted, random_),
            effort,
            random_,
            lambda text: console.print(text, highlight=False, soft_wrap=True),
            size.keys,
            size.workspaces,
        )
        for name, measure in _topics(names):
            console.print(f"measuring {name} …")
            tidy(deployment.url, deployment.admin_url)
            try:
                topic = asyncio.run(measure(session))
            except Exception as error:  # noqa: BLE001 (the others are measured all the same)
                traceback.print_exc()
                report["failures"][name] = f"{type(error).__name__}: {error}"
            else:
                console.print(table(topic))
                report["topics"].append(asdict(topic))
            report["seconds"] = time.monotonic() - began
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(report, indent=2) + "\n")
    for name, reason in report["failures"].items():
        console.print(f"FAILED: {name}: {reason}", style="bold red", soft_wrap=True)
    return report


def _topics(names: Sequence[str]) -> list[tuple[str, Measure]]:
    """What is measured, in this order."""
    topics: list[tuple[str, Measure]] = []
    if wanted := [name for name in CONTEST if name in names]:
        topics.append((", ".join(wanted), lambda session: contest.measure(session, wanted)))
    return topics + [(name, measure) for name, measure in OTHERS.items() if name in names]


if __name__ == "__main__":
    sys.exit(main())
