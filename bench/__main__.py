"""`python -m bench`: loads keys, measures, prints a table, writes JSON."""

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from bench.deployment import Served, open_deployment
from bench.load import KEYS_MIN, load
from bench.measures import Effort, Figure, open_measures
from keysvc.core.keystring import KeyString

_METHOD = (
    "One keysvc serve and one durable embedded PostgreSQL (fsync and synchronous_commit on) share the machine with the "
    "client, which calls over one gRPC connection on loopback. Times are the client's. Get and List: one call after "
    "the other, the first few not counted; a target holds if p50 meets it. Create and Verify: many calls in flight. "
    "CPU: what keysvc and PostgreSQL used for one call. Loaded by SQL, vacuumed and analyzed."
)

_WIDTH = 130
"""Of the table, where the output is no terminal."""


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000, help=f"how many are loaded, at least {KEYS_MIN}")
    parser.add_argument("--workspaces", type=int, default=1_000, help="over how many they are spread")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="few calls: whether it runs, not how fast")
    options = parser.parse_args()
    if options.keys < KEYS_MIN:
        parser.error(f"--keys must be at least {KEYS_MIN}")
    if options.workspaces < 1:
        parser.error("--workspaces must be at least 1")
    effort = Effort(gets=20, pages=2, creates=64, verifies=128) if options.quick else Effort()
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    with open_deployment() as deployment:
        operator = deployment.bootstrap()
        console.print(f"loading {options.keys:,} keys …")
        key_strings = load(deployment.url, deployment.peppers, keys=options.keys, workspaces=options.workspaces)
        facts = _facts(deployment.url)
        with deployment.serve() as served:
            console.print("measuring …")
            figures = asyncio.run(
                _measure(served, operator, key_strings, effort, keys=options.keys, workspaces=options.workspaces)
            )
    loaded = {"keys": options.keys, "workspaces": options.workspaces}
    console.print(_table(figures, f"{options.keys:,} keys in {options.workspaces:,} workspaces"))
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), soft_wrap=True)
    if options.json:
        result = {"method": _METHOD, **facts, **loaded, "figures": [asdict(figure) for figure in figures]}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


async def _measure(  # noqa: PLR0913 (all that was prepared)
    served: Served,
    operator: KeyString,
    key_strings: list[KeyString],
    effort: Effort,
    *,
    keys: int,
    workspaces: int,
) -> list[Figure]:
    """All figures, those that write last."""
    async with open_measures(served, operator, keys=keys, workspaces=workspaces) as measures:
        figures = [await measures.get(effort.gets)]
        figures += [figure async for figure in measures.pages(effort.pages)]
        figures.append(await measures.verify(effort.verifies, key_strings))
        if workspaces > 1:
            figures.append(await measures.create(effort.creates, workspaces=workspaces))
        figures.append(await measures.create(effort.creates, workspaces=1))
        return figures


def _facts(url: str) -> dict[str, Any]:
    """What the figures are of."""
    with psycopg.connect(url) as connection:
        version = connection.info.parameter_status("server_version")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607 (whichever git made the checkout)
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "grpcio": importlib.metadata.version("grpcio"),
        "postgresql": version,
    }


def _table(figures: list[Figure], title: str) -> Table:
    """The figures for people."""
    table = Table("", "p50 ms", "p99 ms", "per second", "CPU ms", "target", "", title=title)
    for column in table.columns[1:5]:
        column.justify = "right"
    for figure in figures:
        numbers = (figure.p50_ms, figure.p99_ms)
        table.add_row(
            figure.name,
            *("" if number is None else f"{number:.1f}" for number in numbers),
            "" if figure.per_second is None else f"{figure.per_second:,.0f}",
            "" if figure.cpu_ms is None else f"{figure.cpu_ms:.1f}",
            "" if figure.target is None else f"{figure.target} {'holds' if figure.holds else 'MISSED'}",
            figure.note,
        )
    return table


if __name__ == "__main__":
    main()
