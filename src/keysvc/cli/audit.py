"""`keysvc audit`: who changed what, when, from where and why."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from google.protobuf.json_format import MessageToDict
from rich.text import Text

from keysvc.cli.command import client_command
from keysvc.cli.contract import to_datetime, to_timestamp
from keysvc.cli.output import Column, Output
from keysvc.cli.paging import AllOption, PageSizeOption, PageTokenOption, Paging, print_pages
from keysvc.cli.values import When, format_time, parse_when
from keysvc.v1 import audit_service_pb2
from keysvc.v1.audit_service_pb2 import AuditEvent

if TYPE_CHECKING:
    from keysvc.cli.client import Client

app = typer.Typer(help="The record of every change.", no_args_is_help=True)

_PACKAGE = "keysvc.v1."
_COLUMNS = (
    Column("Time"),
    Column("Method"),
    Column("Workspace"),
    Column("Key"),
    Column("Secret"),
    Column("Actor"),
    Column("From"),
    Column("Reason"),
    Column("Request id"),
    Column("Revision"),
    Column("Change"),
)


@client_command(app, "list", quiet="the ids, one per line")
def list_(
    client: "Client",
    output: Output,
    *,
    workspace: Annotated[
        str, typer.Option(metavar="NAME", show_default=False, help="Only of this workspace and its keys.")
    ] = "",
    key_id: Annotated[str, typer.Option(metavar="ID", show_default=False, help="Of this key.")] = "",
    actor: Annotated[
        str, typer.Option(metavar="ID", show_default=False, help="By this caller: a key id, tls:NAME or bootstrap.")
    ] = "",
    method: Annotated[
        str, typer.Option(metavar="NAME", show_default=False, help="By this RPC: KeyService/Revoke.")
    ] = "",
    start_time: Annotated[
        When | None,
        typer.Option(metavar="TIME", parser=parse_when, help="From this time on; 24h: from 24 hours ago on."),
    ] = None,
    end_time: Annotated[
        When | None, typer.Option(metavar="TIME", parser=parse_when, help="Before this time; 1h: until an hour ago.")
    ] = None,
    page_size: PageSizeOption = None,
    page_token: PageTokenOption = "",
    all_pages: AllOption = False,
) -> None:
    """List changes, newest first. All conditions must hold."""
    request = audit_service_pb2.ListAuditEventsRequest(
        workspace=workspace,
        filter=audit_service_pb2.ListAuditEventsRequest.Filter(
            key_id=key_id,
            actor=actor,
            method=method if not method or "." in method else _PACKAGE + method,
            start_time=to_timestamp(start_time.before(output.now) if start_time else None),
            end_time=to_timestamp(end_time.before(output.now) if end_time else None),
        ),
    )
    print_pages(
        Paging(page_size, page_token, follow=all_pages).pages(client, client.audit.ListAuditEvents, request),
        output,
        items=lambda page: page.events,
        essential=lambda event: event.id,
        show=lambda events: _show(events, output),
    )


def _show(events: Iterable[AuditEvent], output: Output) -> None:
    """Print events: on a screen a few lines for each, in a pipe one."""
    if not output.narrow:
        output.show(output.table(_COLUMNS, [_row(event) for event in events]))
        return
    for at, event in enumerate(events):
        time, method, workspace, *rest = _row(event)
        headline = Text.assemble((f"{time}  ", "dim"), (f"{method}  ", "bold"), workspace)
        rows = [(column.header.lower(), value) for column, value in zip(_COLUMNS[3:], rest, strict=True)]
        output.show(*([""] if at else []), headline, output.details(rows))


def _row(event: AuditEvent) -> tuple[str, ...]:
    """An event in the order of the columns."""
    return (
        format_time(to_datetime(event.time)),
        event.method.removeprefix(_PACKAGE),
        event.workspace,
        event.key_id,
        event.secret_id,
        event.actor,
        event.source_ip,
        event.reason,
        event.request_id,
        event.revision,
        "; ".join(_changes(event)),
    )


def _changes(event: AuditEvent) -> list[str]:
    """What changed: `state: active → suspended`; in a creation only what came to be."""
    before, after = MessageToDict(event.before), MessageToDict(event.after)
    changes = []
    for field in sorted({*before, *after}):  # a map has no order of its own
        new = _value(after.get(field))
        changes.append(
            f"{field}: {_value(before.get(field))} → {new}" if event.HasField("before") else f"{field}: {new}"
        )
    return changes


def _value(value: object) -> str:
    """A value of a field, in short; nothing is a dash."""
    if value is None:
        return "-"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a Struct knows no other numbers
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
