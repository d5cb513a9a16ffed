"""What a run found: as JSON for machines, and as a page for people."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from tests.nemesis.cluster import LEASE_SECONDS, WAIT_SECONDS
from tests.nemesis.fault import Fault
from tests.nemesis.result import Result
from tests.nemesis.server_faults import Nothing
from tests.nemesis.worker_report import worker_lines

VIOLATIONS_SHOWN: Final = 20

PAGE: Final = Path("docs/nemesis.md")
DATA: Final = Path("docs/nemesis.json")
"""The same as it was written down by the run."""

_INTRODUCTION = """\
# The nemesis: certain revocation, while things break

`make nemesis` starts several real servers on one real PostgreSQL that survives crashes, revokes keys that all of them
answer from memory, breaks something meanwhile, and asks every server by its address all the time; in some rounds two
processes that verify by themselves, under leases of the client library, are asked like servers. Everything is written
down with its beginning and its end, on one clock. Then a judge, which knows nothing of how keysvc works,
looks for an answer that the promises do not allow ([consistency.md](consistency.md) has them):

- **(S)** Nobody who asks after a Revoke has returned its complete receipt is told VALID, at any server. After any
  other change the revision of each answer is at least that of the receipt, whichever key is asked about.
- **(A)** Nobody who asks after somebody was told REVOKED, by Verify, Get, List or a change, is told VALID.
- **(E)** What was refused with an error that says that nothing was changed has no audit event.
- Each verdict is what the changes up to the answer's revision give: they are replayed in the order of the audit log,
  which also tells what became of calls that nobody answered. Those count as made at any time, until it tells.
- REVOKING is never VALID again at a later revision; what is revoked becomes REVOKED, also where whoever revoked it has
  died.

Before anything breaks each server has told each key to be VALID, from memory: otherwise the run fails. It fails too if
there was a fault during which nothing was revoked, if nobody had to wait for a server that could not acknowledge, or
if a server was not asked about a key after its Revoke had returned. That the judge finds what it looks for is a test
of its own, and servers with one mistake each show that the whole finds them too (`tests/nemesis`).
"""

_FACTS: Final = """\
{told}. Leases last {lease_seconds:g} s, so that a change waits for at most {wait_seconds:g} s."""

_LEGEND: Final = """\
*Revocations* are those for which somebody has a receipt: without one nothing is promised. *Other changes* are
suspensions, resumptions, updates, rotations and their cancellation, revocations of one secret, and changes of the
workspace. ACK, TIMER and PENDING are the receipts of all changes; *unknown* are the changes that nobody
answered, which the audit log settled. *Known* are pairs of a key and a server that said VALID, from memory, before;
*asked after* are pairs of a revoked key and a server that was asked when Revoke had returned, and so much later (one
that was started again could only be asked then).

Revoke's times are those of many at once (at most so many as *at once* tells), beside all questions and other changes,
with servers, database and those who ask on one machine: they tell what waits and what does not, and are no promise.
How long one after the other takes is told by `make bench`."""

_TOLD: Final = (
    "- **{name}**: {text} {rounds} rounds in {seconds:.0f} s, from {time} on, at a load of {load}, commit {commit}."
)

_COLUMNS: Final = (
    ("revocations", "revocations"),
    ("…while it lasted", "during"),
    ("other changes", "changes"),
    ("faults", "faults"),
    ("answers", "answers"),
    ("from memory", "from_memory"),
    ("known", "primed"),
    ("asked after", "probed"),
    ("p50 ms", "probe_p50_ms"),
    ("p99 ms", "probe_p99_ms"),
    ("ACK", "ack"),
    ("TIMER", "timer"),
    ("PENDING", "pending"),
    ("unknown", "unknown"),
    ("at once", "at_once"),
    ("Revoke p50 ms", "p50_ms"),
    ("p99 ms", "p99_ms"),
    ("max ms", "max_ms"),
    ("violations", "violations"),
)


def shortcomings(fault_type: type[Fault], result: Result) -> list[str]:
    """Why a result would prove nothing, even if nothing was wrong in it."""
    found = {
        "nothing went wrong": not issubclass(fault_type, Nothing) and not result.faults,
        f"nothing was revoked while it did in {result.rounds - result.met} rounds": result.met < result.rounds,
        "nobody was waited for": fault_type.is_waited_for and not (result.paths["TIMER"] and result.unacknowledged),
        "a server did not know a key before it was revoked": result.primed < fault_type.holders_min * result.keys,
        f"{result.unprobed} questions after a revocation are missing": result.unprobed or not result.probed,
    }
    if fault_type.workers:
        wanted, asked = fault_type.workers + result.faults, {name for name, _ in result.probes}
        found[f"{len(result.workers)} workers had leases, not {wanted}"] = len(result.workers) < wanted
        for name in sorted(result.workers.keys() | asked | result.known.keys()):
            found[f"{name} was never asked after a revocation"] = name not in asked
            found[f"{name} knew no key"] = not result.known[name]
            found[f"{name} had no lease"] = name not in result.workers
    return [text for text, applies in found.items() if applies]


def entry(fault_type: type[Fault], result: Result, seconds: float) -> dict[str, Any]:
    """The figures of one kind of fault."""
    revoked, probed = _hundredths(result.revoke_seconds), _hundredths(result.probe_seconds)
    return {
        "name": fault_type.name,
        "text": (fault_type.__doc__ or "").partition("\n")[0],
        "seconds": round(seconds, 1),
        "rounds": result.rounds,
        "faults": result.faults,
        "keys": result.keys,
        "revocations": result.revocations,
        "during": result.during,
        "begun_during": result.begun_during,
        "changes": result.changes,
        "answers": result.answers,
        "from_memory": result.from_memory,
        "primed": result.primed,
        "probed": result.probed,
        "probe_p50_ms": probed[49],
        "probe_p99_ms": probed[98],
        "ack": result.paths["ACK"],
        "timer": result.paths["TIMER"],
        "pending": result.paths["PENDING"],
        "unacknowledged": result.unacknowledged,
        "acknowledged": result.outcomes["acknowledged"],
        "refused": result.outcomes["refused"],
        "unknown": result.outcomes["unknown"],
        "unanswered": dict(sorted(result.unanswered.items())),
        "at_once": result.at_once,
        "p50_ms": revoked[49],
        "p99_ms": revoked[98],
        "max_ms": round(1000 * max(result.revoke_seconds, default=0.0), 1),
        "workers": {
            name: {"known": count, "probes": {basis: n for (who, basis), n in result.probes.items() if who == name}}
            for name, count in result.known.items()
        },
        "gone_max_ms": round(1000 * max(result.gone_seconds, default=0.0), 1),
        "away": dict(sorted(result.away_paths.items())),
        "violations": len(result.violations),
        "violations_shown": list(starmap("{}: {}".format, result.violations[:VIOLATIONS_SHOWN])),
        "story": result.story,
        "shortcomings": shortcomings(fault_type, result),
    }


def _hundredths(seconds: Sequence[float]) -> list[float]:
    """The 99 percentiles, in milliseconds."""
    if len(seconds) < 2:
        return [0.0] * 99
    return [round(1000 * each, 1) for each in quantiles(seconds, n=100, method="inclusive")]


def is_good(found: Mapping[str, Any]) -> bool:
    """Whether an entry has figures that prove something, or says why there are none, and nothing wrong."""
    return "failure" not in found and not found.get("violations") and not found.get("shortcomings")


def good_ones(entries: Iterable[Mapping[str, Any]], seed: int) -> dict[str, Mapping[str, Any]]:
    """Entries of an earlier run that need not be found again, by name: good, of this commit, and by the same chance."""
    same = {"seed": seed, "commit": facts()["commit"]}
    return {each["name"]: each for each in entries if same.items() <= each.items() and is_good(each)}


def facts() -> dict[str, Any]:
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
    }


def page(report: Mapping[str, Any]) -> str:
    """A page with the figures of a run."""
    measured = [each for each in report["faults"] if "rounds" in each]
    others = [each for each in report["faults"] if "rounds" not in each]
    told = "; ".join(
        f"{name} {' and '.join(sorted({str(each[name]) for each in measured if name in each}))}"
        for name in ("seed", "machine", "python", "grpcio", "postgresql")
    )
    lines = [
        _INTRODUCTION,
        "## The last run",
        "",
        _FACTS.format(told=told, lease_seconds=LEASE_SECONDS, wait_seconds=WAIT_SECONDS),
        "",
        *_table(measured),
        "",
        _LEGEND,
        "",
        "## The faults",
        "",
        *map(_TOLD.format_map, measured),
        *(f"- **{each['name']}**: {each.get('failure') or 'skipped: ' + each['skipped']}" for each in others),
    ]
    lines += worker_lines(measured)
    for each in measured:
        if not is_good(each):
            lines += ["", f"## Wrong: {each['name']}", "", *each["shortcomings"], *each["violations_shown"]]
    lines += [
        "",
        "```sh",
        "make nemesis-promised   # hours; goes on where it was interrupted",
        "make nemesis-report",
        "```",
    ]
    return "\n".join(lines) + "\n"


def _table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each fault, and one for all."""
    rows = [["fault", *(title for title, _ in _COLUMNS)], ["---", *("---:" for _ in _COLUMNS)]]
    rows += [[each["name"], *(f"{each[name]:,}" for _, name in _COLUMNS)] for each in entries]
    unsummed = ("_ms", "at_once")
    sums = ["" if name.endswith(unsummed) else f"{sum(each[name] for each in entries):,}" for _, name in _COLUMNS]
    rows.append(["all", *sums])
    return [f"| {' | '.join(row)} |" for row in rows]
