"""`keysvc status`, `pepper`, `bump` and `lease-limit`: looking after a deployment, from where its database is."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer
from rich.table import Table

from keysvc.cli.command import SectionedCommand
from keysvc.cli.contract import Wait
from keysvc.cli.failure import Failure
from keysvc.cli.output import Column, Output
from keysvc.cli.receipt import ReasonOption, WaitOption, receipt_rows
from keysvc.cli.server import run_here, server_settings
from keysvc.cli.server_options import (
    CLOCK_RATE,
    LEASE_MARGIN_SECONDS,
    ClockRateOption,
    DatabaseUrlOption,
    DataDirOption,
    LeaseMarginSecondsOption,
)
from keysvc.cli.text import to_json, write
from keysvc.cli.values import format_distance, format_duration, format_wait
from keysvc.core.errors import KeysvcError
from keysvc.stopping import interruptible

if TYPE_CHECKING:
    from keysvc.core.receipt import Receipt
    from keysvc.service.upkeep import Upkeep
    from keysvc.storage import OpenDatabase
    from keysvc.store.status import HolderStatus, Status

T = TypeVar("T")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FingerprintArgument = Annotated[
    str, typer.Argument(metavar="FINGERPRINT", show_default=False, help="As `keysvc pepper list` shows it.")
]

_FINGERPRINT_BYTES = 8
_PATHS = {"ack": "acknowledged", "timer": "leases ran out"}

pepper = typer.Typer(no_args_is_help=True, help="Look after the peppers that key strings are digested under.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status", cls=SectionedCommand)(status)
    app.command("bump", cls=SectionedCommand)(bump)
    app.command("lease-limit", cls=SectionedCommand)(lease_limit)
    pepper.command("list", cls=SectionedCommand)(list_peppers)
    pepper.command("activate", cls=SectionedCommand)(activate)
    pepper.command("retire", cls=SectionedCommand)(retire)
    app.add_typer(pepper, name="pepper")


def status(
    *, data_dir: DataDirOption = None, database_url: DatabaseUrlOption = None, as_json: JsonOption = False
) -> None:
    """Show which servers answer from memory, how far they are, and what waits for them.

    Reads the database, so it also works when servers do not answer.
    """
    from keysvc.store.status import read_status  # noqa: PLC0415 (takes its time to load)

    found = _at_database(data_dir, database_url, lambda tools: read_status(tools.opened.database))
    if as_json:
        write(sys.stdout, to_json(_status_document(found), sys.stdout))
        return
    output = _output(found.at)
    output.show(
        output.details(
            [
                ("revision", str(found.revision)),
                ("longest lease", format_wait(timedelta(milliseconds=found.lease_ms_max))),
                ("servers", str(len(found.holders))),
                ("open barriers", str(len(found.open_barriers))),
            ]
        )
    )
    if found.holders:
        output.show("", _holder_table(found, output))
    if any(told["count"] for each in found.holders for told in each.report.get("barriers", {}).values()):
        output.show("", _barrier_table(found, output))
    if found.open_barriers:
        output.show("", _open_table(found, output))


def bump(
    *,
    new_epoch: Annotated[
        bool,
        typer.Option(
            "--new-epoch", help="After a backup was restored: no revision from before means anything any more."
        ),
    ] = False,
    reason: ReasonOption = "",
    wait: WaitOption = None,
    data_dir: DataDirOption = None,
    database_url: DatabaseUrlOption = None,
    clock_rate: ClockRateOption = CLOCK_RATE,
    lease_margin_seconds: LeaseMarginSecondsOption = LEASE_MARGIN_SECONDS,
) -> None:
    """Let every server forget what it remembers, after rows of the database were changed by hand.

    Returns when no server can answer any more by what was there before.
    """

    async def work(tools: _Tools) -> "Receipt":
        return await tools.upkeep.bump(tools.call("keysvc bump"), _asked(reason, wait), new_epoch=new_epoch)

    terms = {"clock_rate": clock_rate, "margin_seconds": lease_margin_seconds}
    _show_receipt(_at_database(data_dir, database_url, work, terms))


def lease_limit(
    *,
    seconds: Annotated[
        float, typer.Argument(metavar="SECONDS", min=0.2, max=100_000, show_default=False, help="The new limit.")
    ],
    reason: ReasonOption = "",
    data_dir: DataDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Set how long the leases of servers may be: --lease-seconds and --stale-seconds together.

    After a promotion of the database, or when it is away at the wrong moment, revocations wait for a lease of this
    length. It cannot become shorter than that of a server that runs.
    """
    lease_ms_max = round(seconds * 1000)

    async def work(tools: _Tools) -> None:
        await tools.upkeep.limit_leases(tools.call("keysvc lease-limit"), _asked(reason, None), lease_ms_max)

    _at_database(data_dir, database_url, work)
    typer.echo(f"Leases may be up to {format_wait(timedelta(milliseconds=lease_ms_max))} long.")


def list_peppers(
    *, data_dir: DataDirOption = None, database_url: DatabaseUrlOption = None, as_json: JsonOption = False
) -> None:
    """Show the fingerprints of peppers: which one signs, how many secrets need each, which servers have it."""
    from keysvc.store.status import read_peppers, read_status  # noqa: PLC0415 (takes its time to load)

    async def work(tools: _Tools) -> tuple[Any, "Status"]:
        return await read_peppers(tools.opened.database), await read_status(tools.opened.database)

    known, found = _at_database(data_dir, database_url, work)
    held = _held_by(found.holders)
    rows = [
        {
            "fingerprint": each.fingerprint.hex(),
            "signing": each.signing,
            "create_time": each.create_time.isoformat(),
            "retire_time": each.retire_time and each.retire_time.isoformat(),
            "secrets": each.living,
            "servers": sum(each.fingerprint in peppers for peppers in held.values()),
        }
        for each in known
    ]
    unknown = {each for peppers in held.values() for each in peppers} - {each.fingerprint for each in known}
    rows += [
        {
            "fingerprint": each.hex(),
            "signing": False,
            "create_time": None,
            "retire_time": None,
            "secrets": 0,
            "servers": sum(each in peppers for peppers in held.values()),
        }
        for each in sorted(unknown)
    ]
    if as_json:
        write(sys.stdout, to_json({"peppers": rows, "servers": len(held)}, sys.stdout))
        return
    output = _output(found.at)
    columns = [Column("FINGERPRINT"), Column("STATE"), Column("SECRETS", right=True), Column("SERVERS", right=True)]
    states = ["retired" if row["retire_time"] else "signing" if row["signing"] else "verifying" for row in rows]
    output.show(
        output.table(
            columns,
            [
                (str(row["fingerprint"]), state, output.count(int(row["secrets"])), f"{row['servers']} of {len(held)}")
                for row, state in zip(rows, states, strict=True)
            ],
        )
    )


def activate(
    fingerprint: FingerprintArgument,
    *,
    reason: ReasonOption = "",
    data_dir: DataDirOption = None,
    database_url: DatabaseUrlOption = None,
) -> None:
    """Let another pepper sign: new secrets are digested under it, and old ones move to it when they are used.

    Every server that runs must have it; give it to them first, beside the one that signs now.
    """
    from keysvc.store.status import read_status  # noqa: PLC0415 (takes its time to load)

    async def work(tools: _Tools) -> None:
        found = await read_status(tools.opened.database)
        call, asked = tools.call("keysvc pepper activate"), _asked(reason, None)
        await tools.upkeep.activate_pepper(call, asked, _fingerprint(fingerprint), _held_by(found.holders))

    _at_database(data_dir, database_url, work)
    typer.echo(f"Pepper {fingerprint} signs from now on.")


def retire(
    fingerprint: FingerprintArgument,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also if keys that are not revoked are lost with it, for ever.")
    ] = False,
    reason: ReasonOption = "",
    wait: WaitOption = None,
    data_dir: DataDirOption = None,
    database_url: DatabaseUrlOption = None,
    clock_rate: ClockRateOption = CLOCK_RATE,
    lease_margin_seconds: LeaseMarginSecondsOption = LEASE_MARGIN_SECONDS,
) -> None:
    """Accept no secret under a pepper any more, for ever. Then servers may do without it.

    Returns when no server accepts one of them any more.
    """

    async def work(tools: _Tools) -> "Receipt":
        call = tools.call("keysvc pepper retire")
        return await tools.upkeep.retire_pepper(call, _asked(reason, wait), _fingerprint(fingerprint), force=force)

    terms = {"clock_rate": clock_rate, "margin_seconds": lease_margin_seconds}
    _show_receipt(_at_database(data_dir, database_url, work, terms))


class _Tools(NamedTuple):
    """What a command works with."""

    opened: "OpenDatabase"
    upkeep: "Upkeep"
    call: Callable[[str], Any]


def _at_database(
    data_dir: Path | None,
    database_url: str | None,
    work: Callable[[_Tools], Awaitable[T]],
    terms: dict[str, float] | None = None,
) -> T:
    """Do something with the database; what it refuses is a sentence.

    Parameters:
        terms: of the leases that are waited for.
    """
    settings = server_settings("127.0.0.1:0", data_dir, database_url, needs_peppers=False, lease=terms)

    async def with_tools() -> T:
        async with _open_tools(settings) as tools:
            try:
                return await work(tools)
            except KeysvcError as error:
                raise Failure(error.reason, f"{error.message}.", metadata=error.metadata) from None

    return run_here(interruptible(with_tools()))


@asynccontextmanager
async def _open_tools(settings: Any) -> AsyncIterator[_Tools]:  # noqa: ANN401 (loaded late)
    from keysvc.app import open_upkeep  # noqa: PLC0415 (takes its time to load)
    from keysvc.service.upkeep import command_call  # noqa: PLC0415 (as above)

    async with open_upkeep(settings) as (opened, upkeep):
        yield _Tools(opened, upkeep, command_call)


def _asked(reason: str, wait: Wait | None) -> Any:  # noqa: ANN401 (loaded late)
    from keysvc.service import confirming  # noqa: PLC0415 (takes its time to load)

    wanted = confirming.Wait.COMMIT if wait is Wait.COMMIT else confirming.Wait.BARRIER
    return confirming.ChangeRequest(reason, wanted)


def _fingerprint(text: str) -> bytes:
    try:
        fingerprint = bytes.fromhex(text)
    except ValueError:
        fingerprint = b""
    if len(fingerprint) != _FINGERPRINT_BYTES:
        raise Failure.usage(f"{text!r} is no fingerprint: write 16 hex digits, as keysvc pepper list shows them.")
    return fingerprint


def _output(now: datetime) -> Output:
    return Output(as_json=False, quiet=False, now=now)


def _show_receipt(receipt: "Receipt") -> None:
    from keysvc.rpc.translate.receipts import receipt_message  # noqa: PLC0415 (takes its time to load)

    output = _output(datetime.now(UTC))
    output.show(output.details(receipt_rows(receipt_message(receipt), output)))


def _held_by(holders: "tuple[HolderStatus, ...]") -> dict[str, set[bytes]]:
    """The peppers of each server, as far as it has told."""
    return {each.host: {bytes.fromhex(text) for text in each.report.get("peppers", ())} for each in holders}


def _status_document(found: "Status") -> dict[str, Any]:
    return {
        "time": found.at.isoformat(),
        "revision": str(found.revision),
        "log_start": found.log_start,
        "lease_ms_max": found.lease_ms_max,
        "holders": [
            {
                "host": each.host,
                "member_id": str(each.member_id),
                "applied": each.applied,
                "behind": found.revision.seq - each.applied,
                "start_time": each.start_time.isoformat(),
                "lease_ms": each.lease_ms,
                "renewals": each.renewals,
                **each.report,
            }
            for each in found.holders
        ],
        "open_barriers": [
            {
                "seq": each.seq,
                "kind": each.kind,
                "subject_ids": [str(subject) for subject in each.subject_ids],
                "age_seconds": round(each.age.total_seconds(), 3),
                "kept_open_by": list(each.kept_open_by),
            }
            for each in found.open_barriers
        ],
    }


def _holder_table(found: "Status", output: Output) -> Table:
    are_several = any("worker" in each.report for each in found.holders)
    columns = [
        Column("SERVER"),
        *([Column("WORKER", right=True)] if are_several else []),
        Column("BEHIND", right=True),
        Column("STARTED", rank=2),
        Column("HEARD", rank=1),
        Column("LEASE", right=True, rank=3),
        Column("KEYS", right=True),
        Column("HITS", right=True),
        Column("MISSES", right=True),
        Column("RENEWALS", right=True, rank=4),
    ]
    return output.table(
        columns,
        [
            (
                each.host,
                *([str(each.report.get("worker", ""))] if are_several else []),
                str(found.revision.seq - each.applied),
                format_distance(each.start_time, found.at),
                format_distance(datetime.fromisoformat(each.report["time"]), found.at) if each.report else "",
                format_wait(timedelta(milliseconds=each.lease_ms)),
                *(output.count(each.report.get(name, 0)) for name in ("remembered", "hits", "misses")),
                output.count(each.renewals),
            )
            for each in found.holders
        ],
    )


def _barrier_table(found: "Status", output: Output) -> Table:
    """How long the barriers of each server took, by how they ended."""
    columns = [Column("SERVER"), Column("BARRIERS"), *(Column(name, right=True) for name in _TIMES)]
    rows = []
    for each in found.holders:
        for path, told in each.report.get("barriers", {}).items():
            if told["count"]:
                times = [f"{told[f'{name.lower()}_ms']:g} ms" for name in _TIMES[1:]]
                rows.append((each.host, _PATHS[path], output.count(told["count"]), *times))
    return output.table(columns, rows)


_TIMES = ("COUNT", "P50", "P99", "MAX")


def _open_table(found: "Status", output: Output) -> Table:
    columns = [
        Column("REVISION", right=True),
        Column("OPEN FOR"),
        Column("OF", folds=True),
        Column("KEPT OPEN BY", folds=True),
    ]
    return output.table(
        columns,
        [
            (
                str(each.seq),
                format_wait(each.age) if each.age < timedelta(minutes=1) else format_duration(each.age),
                " ".join((each.kind, *map(str, each.subject_ids))),
                ", ".join(each.kept_open_by),
            )
            for each in found.open_barriers
        ],
    )
