"""What a run found: as JSON for machines, and as a page for people."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from tests.nemesis.cluster import LEASE_SECONDS, WAIT_SECONDS
from tests.nemesis.fault import Fault
from tests.nemesis.result import Result
from tests.nemesis.server_faults import Nothing

VIOLATIONS_SHOWN: Final = 20

PAGE: Final = Path("docs/nemesis.md")

_INTRODUCTION = """\
# The nemesis: certain revocation, while things break

`make nemesis` starts several real servers on one real PostgreSQL that survives crashes, revokes keys that all of them
answer from memory, breaks something meanwhile, and asks every server by its address all the time. Everything is
written down with its beginning and its end, on one clock. Then a judge, which knows nothing of how keysvc works,
looks for an answer that the promises do not allow ([consistency.md](consistency.md) has them):

- **(S)** Nobody who asks after a Revoke has returned its complete receipt is told VALID, at any server. After any
  other change the revision of each answer is at least that of the receipt, whichever key is asked about.
- **(A)** Nobody who asks after somebody was told REVOKED, by Verify, Get, List or a change, is told VALID.
- **(E)** What was refused with an error that says that nothing was changed has no audit event.
- Each verdict is what the changes up to the answer's revision give: they are replayed in the order of the audit log,
  which also tells what became of calls that nobody answered. Those count as made at any time, until it tells.
- REVOKING is never VALID again at a later revision; what is revoked becomes REVOKED, also where whoever revoked it has
  died.

Before anything breaks each server has told each key to be VALID, from memory: otherwise a round counts for nothing
and the run fails. The same holds for a fault during which nothing was revoked. That the judge finds what it looks for
is a test of its own, and servers with one mistake each show that the whole finds them too (`tests/nemesis`).
"""

_FACTS: Final = """\
Seed {seed}; {told}. Leases last {lease_seconds:g} s, so that a change waits for at most {wait_seconds:g} s. Everything
shares the machine: the times of Revoke are for comparing, not for promising."""

_LEGEND: Final = """\
*Other changes* are suspensions, resumptions, updates, rotations and their cancellation, revocations of one secret, and
changes of the workspace. ACK, TIMER and PENDING are the receipts of all changes; *unknown* are the changes that nobody
answered, which the audit log settled."""

_COLUMNS: Final = (
    ("revocations", "revocations"),
    ("…while it lasted", "during"),
    ("other changes", "changes"),
    ("faults", "faults"),
    ("answers", "answers"),
    ("from memory", "from_memory"),
    ("ACK", "ack"),
    ("TIMER", "timer"),
    ("PENDING", "pending"),
    ("unknown", "unknown"),
    ("Revoke p50 ms", "p50_ms"),
    ("p99", "p99_ms"),
    ("max", "max_ms"),
    ("violations", "violations"),
)


def shortcomings(fault_type: type[Fault], result: Result) -> list[str]:
    """Why a result would prove nothing, even if nothing was wrong in it."""
    found = {
        "nothing went wrong": not issubclass(fault_type, Nothing) and not result.faults,
        "nothing was revoked while it did": not result.begun_during,
        "no server knew a key before it was revoked": not result.primed,
    }
    return [text for text, applies in found.items() if applies]


def entry(fault_type: type[Fault], result: Result, seconds: float) -> dict[str, Any]:
    """The figures of one kind of fault."""
    times = [1000 * each for each in sorted(result.revoke_seconds)]
    hundredths = quantiles(times, n=100, method="inclusive") if len(times) > 1 else [0.0] * 99
    return {
        "name": fault_type.name,
        "text": (fault_type.__doc__ or "").partition("\n")[0],
        "seconds": round(seconds, 1),
        "rounds": result.rounds,
        "faults": result.faults,
        "revocations": result.revocations,
        "during": result.during,
        "begun_during": result.begun_during,
        "changes": result.changes,
        "answers": result.answers,
        "from_memory": result.from_memory,
        "primed": result.primed,
        "ack": result.paths["ACK"],
        "timer": result.paths["TIMER"],
        "pending": result.paths["PENDING"],
        "unacknowledged": result.unacknowledged,
        "acknowledged": result.outcomes["acknowledged"],
        "refused": result.outcomes["refused"],
        "unknown": result.outcomes["unknown"],
        "unanswered": dict(sorted(result.unanswered.items())),
        "p50_ms": round(hundredths[49], 1),
        "p99_ms": round(hundredths[98], 1),
        "max_ms": round(max(times, default=0.0), 1),
        "violations": len(result.violations),
        "violations_shown": list(starmap("{}: {}".format, result.violations[:VIOLATIONS_SHOWN])),
        "story": result.story,
        "shortcomings": shortcomings(fault_type, result),
    }


def is_good(found: Mapping[str, Any]) -> bool:
    """Whether an entry has figures that prove something, and nothing wrong."""
    return "failure" not in found and not found.get("violations") and not found.get("shortcomings")


def facts(postgres_version: str) -> dict[str, Any]:
    """What the figures are of."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
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
        "postgresql": postgres_version,
        "lease_seconds": LEASE_SECONDS,
        "wait_seconds": WAIT_SECONDS,
    }


def page(report: Mapping[str, Any]) -> str:
    """A page with the figures of a run."""
    names = ("time", "commit", "machine", "load", "python", "grpcio", "postgresql")
    told = ", ".join(f"{name} {report[name]}" for name in names)
    measured = [each for each in report["faults"] if "rounds" in each]
    others = [each for each in report["faults"] if "rounds" not in each]
    lines = [
        _INTRODUCTION,
        "## The last run",
        "",
        _FACTS.format(told=told, **report),
        "",
        *_table(measured),
        "",
        _LEGEND,
        "",
        "## The faults",
        "",
        *(f"- **{each['name']}** ({each['rounds']} rounds): {each['text']}" for each in measured),
        *(f"- **{each['name']}**: {each.get('failure') or 'skipped: ' + each['skipped']}" for each in others),
    ]
    for each in measured:
        if not is_good(each):
            lines += ["", f"## Wrong: {each['name']}", "", *each["shortcomings"], *each["violations_shown"]]
    lines += ["", "```sh", "make nemesis REVOCATIONS=1000", "make nemesis-report", "```"]
    return "\n".join(lines) + "\n"


def _table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each fault, and one for all."""
    rows = [["fault", *(title for title, _ in _COLUMNS)], ["---", *("---:" for _ in _COLUMNS)]]
    rows += [[each["name"], *(f"{each[name]:,}" for _, name in _COLUMNS)] for each in entries]
    sums = ["" if name.endswith("_ms") else f"{sum(each[name] for each in entries):,}" for _, name in _COLUMNS]
    rows.append(["all", *sums])
    return [f"| {' | '.join(row)} |" for row in rows]
