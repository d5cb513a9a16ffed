"""The page of a run, from its JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.result import Column, Row

_INTRODUCTION: Final = """\
# Performance

`make bench` starts real servers on a real PostgreSQL, with a million keys, and measures what callers see. Everything
that is compared is measured in the same run, in turn, in short rounds in random order: a figure alone says as much of
the machine as of keysvc. Each answer is decoded and looked at, and the calls are counted on both sides; a run in
which one answer was not what its row says fails.

An **empty handler** is a gRPC server of the same grpcio, with the same options and event loop, in one process, that
takes bytes and gives back fixed ones: those that Verify answers for a remembered key. No server in Python on grpcio
can be faster, so the ratio to it says what keysvc costs. A **naive service** is what one writes first: a synchronous
server with a query of SQLAlchemy for each call, without usage, callers or roles.

**Remembered** (hot) keys are answered from memory, under a lease ([consistency.md](consistency.md)); others (cold)
are looked up in the database. Callers send a key of their own that may verify, and ask for one scope."""

_WHOLE: Final = """\
Server, PostgreSQL and the load generator share the processors of this machine, so calls per second are what is left
to the server; **CPU per call** depends least on that. PostgreSQL is durable (fsync and synchronous_commit on). The
generator is a Go program (`bench/load`) that speaks HTTP/2 by itself and needs about as much processor time for a
call as h2load does, which looks at no answer."""

_MEANINGS: Final = {
    "contest": """\
*Of empty* is the ratio to the empty handler, once by throughput (with quartiles over rounds) and once by CPU of the
server. *Hot* requests for a key are all the same; with *all fields asked* each has another request id. Where a
look-up makes PostgreSQL work, that takes processor time from the server here, and would not on a machine of its own.
*Half load* is an open loop at half of what Verify answers at most, the same rate for both.""",
    "rates": """\
Calls come as from many independent callers, and wait in the client if the server is late: that waiting is part of the
latency. *Sent late* is what the generator itself was late by, which is part of it too. Near the capacity any queue
grows, the empty handler's as well where its own limit is near.""",
    "flood": """\
*Of quiet* compares with no flood, *of valid calls* with a load of as many valid calls: what a flood costs more than
its number. *Look-ups* are what the server itself counted. *Revoke* is how long revocations took meanwhile.""",
    "revoke": """\
A Revoke with an `ACK` receipt has heard from every holder that it has forgotten the key; `TIMER` means that it waited
for leases to end. The first Revoke of a process is shown apart.""",
    "leased": """\
A client acknowledges by renewing its lease once more; its server tells the database, for all its clients together.
Clients, servers, PostgreSQL and whoever asks share the processors of this machine: a hundred processes wake up for
each Revoke.""",
    "protect": """\
What reading the clock twice takes is in each figure. An application behind a real server adds its own time, and the
network's.""",
    "usage": """\
A record is durable before its batch is acknowledged. Batches with many different keys write more rows.""",
    "memory": """\
The resident set includes what Python and its allocator keep for themselves; what a key costs is the growth.""",
    "start": """\
Python itself, imports, PostgreSQL, migrations, the first lease and the first call over gRPC are in it.""",
    "records": """\
Lists are of the worst kind on purpose: what only old keys have, conditions that exclude each other.""",
}

_ALT: Final = {
    "throughput": "Calls per second and CPU per call of Verify beside an empty handler and a naive service",
    "rates": "Latency of Verify over the rate of calls",
    "flood": "Latency of Verify during floods and revocations",
    "revoke": "How long Revoke takes, by number of holders",
}
_PICTURES: Final = {"contest": "throughput", "rates": "rates", "flood": "flood", "revoke": "revoke"}

_MANY: Final = 10
"""More targets of one topic than that are told together."""

MICROSECONDS: Final = "microseconds"
"""Name of the fragment, written by hand, that tells where the time goes."""


def page(report: Mapping[str, Any], folder: str, pictures: Sequence[str], fragments: Mapping[str, str]) -> str:
    """A page with the figures of a run.

    Parameters:
        folder: of the pictures, beside the page.
        pictures: file names of those that there are.
        fragments: texts written by hand, by name.
    """
    lines = [_INTRODUCTION, "", "## The promises", "", *_promises(report), "", *_run(report), ""]
    for topic in report["topics"]:
        lines += [f"## {topic['title']}", "", topic["method"], ""]
        name = _PICTURES.get(topic["name"], "")
        if f"{name}.png" in pictures:
            lines += [f"![{_ALT[name]}]({folder}/{name}.png)", ""]
        lines += [*_table(topic), "", _MEANINGS[topic["name"]], "", "Checked while it was measured:", ""]
        lines += [f"- {check};" for check in topic["checks"][:-1]] + [f"- {check}." for check in topic["checks"][-1:]]
        if not topic["checks"]:
            lines = lines[:-2]
        lines.append("")
    if MICROSECONDS in fragments:
        lines += ["## Where the microseconds go", "", fragments[MICROSECONDS].strip(), ""]
    if report["failures"]:
        lines += ["## Not measured", "", *(f"- {name}: {reason}" for name, reason in report["failures"].items()), ""]
    lines += [
        "```sh",
        "make bench                         # all of it",
        "make bench BENCH='--only hot,flood'  # some of it",
    ]
    lines += ["make bench-report                  # this page", "```", ""]
    return "\n".join(lines)


def _promises(report: Mapping[str, Any]) -> list[str]:
    """All rows with a target."""
    lines = ["| what | target | |", "| --- | --- | --- |"]
    for topic in report["topics"]:
        rows = [row for row in topic["rows"] if row["target"]]
        if len(rows) > _MANY:
            held = sum(row["holds"] for row in rows)
            lines.append(f"| {topic['title']} | {len(rows)} targets | {held} hold{_missed(len(rows) - held)} |")
            continue
        lines.extend(f"| {topic['title']}: {row['name']} | {row['target']} | {_judged(row['holds'])} |" for row in rows)
    return lines


def _judged(holds: bool) -> str:  # noqa: FBT001 (a cell of a table)
    return "holds" if holds else "**missed**"


def _missed(number: int) -> str:
    return f", **{number} missed**" if number else ""


def _run(report: Mapping[str, Any]) -> list[str]:
    """What the figures are of."""
    names = ("time", "commit", "machine", "load", "python", "grpcio", "protobuf", "postgresql", "go")
    told = ", ".join(f"{name} {report[name]}" for name in names) + f"; it took {report['seconds'] / 60:.0f} minutes"
    lines = ["## The run", "", f"{told}; {report['keys']:,} keys in {report['workspaces']:,} workspaces.", "", _WHOLE]
    if report["quick"]:
        lines += ["", "**A quick run: it shows that everything is measured, not how fast anything is.**"]
    return lines


def _table(topic: Mapping[str, Any]) -> list[str]:
    """The rows of a topic; columns without a figure are left out."""
    rows = [Row(**row) for row in topic["rows"]]
    columns = [Column(**column) for column in topic["columns"]]
    columns = [column for column in columns if any(column.text(row) for row in rows)]
    has_targets, has_notes = any(row.target for row in rows), any(row.note for row in rows)
    lines = [
        ["", *(column.heading for column in columns), *["target"] * has_targets, *["note"] * has_notes],
        ["---", *("---:" for _ in columns), *["---"] * has_targets, *["---"] * has_notes],
    ]
    for row in rows:
        judgement = f"{row.target}: {_judged(bool(row.holds))}" if row.target else ""
        figures = (column.text(row) for column in columns)
        lines.append([row.name, *figures, *[judgement] * has_targets, *[row.note] * has_notes])
    return [f"| {' | '.join(line)} |" for line in lines]
