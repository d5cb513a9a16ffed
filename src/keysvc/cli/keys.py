"""`keysvc keys`: create, get and list API keys; the rest is in ``key_update`` and ``key_changes``."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer
from rich.table import Table

from keysvc.cli import key_changes, key_update
from keysvc.cli.command import client_command
from keysvc.cli.contract import (
    Environment,
    KeyState,
    environment_value,
    key_state_value,
    key_state_word,
    to_datetime,
    to_duration,
    to_timestamp,
)
from keysvc.cli.failure import Failure
from keysvc.cli.key_table import LAST_USED, key_list, key_rows, secret_list
from keysvc.cli.output import Output
from keysvc.cli.paging import AllOption, PageSizeOption, PageTokenOption, Paging, print_pages
from keysvc.cli.receipt import ReasonOption, RequestIdOption, repeat_as
from keysvc.cli.usage_table import freshness, usage_rows
from keysvc.cli.values import Pair, When, not_empty, parse_duration, parse_pair, parse_time, parse_when, to_mapping
from keysvc.v1 import key_service_pb2
from keysvc.v1.key_pb2 import Key

if TYPE_CHECKING:
    from keysvc.cli.client import Client


def _condition(metavar: str, text: str) -> Any:  # noqa: ANN401 (what typer says that it is)
    """An option that narrows a list."""
    return typer.Option(metavar=metavar, show_default=False, callback=not_empty, help=text)


app = typer.Typer(help="API keys: create, look at, update, rotate, suspend, resume, revoke.", no_args_is_help=True)


@client_command(
    app,
    "create",
    quiet="the key string",
    epilog='\b\nExample\n  keysvc keys create --workspace acme-corp/sales --name "PDF export" \\\n'
    "      --env live --scope pdf.read --ttl 90d",
)
def create(
    client: "Client",
    output: Output,
    *,
    workspace: Annotated[str, typer.Option(metavar="NAME", help="Workspace it is bound to, such as acme-corp/sales.")],
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="Name for people.")],
    env: Annotated[
        Environment,
        typer.Option("--env", metavar="live|test", help="Where it may be used; visible in the key."),
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="What it grants: pdf.read, pdf.*, *.read or *. Repeatable."),
    ] = None,
    role: Annotated[
        str, typer.Option(metavar="ROLE", show_default=False, help="A named set of grants: viewer, editor, admin.")
    ] = "",
    ip: Annotated[
        list[str] | None,
        typer.Option("--ip", metavar="RANGE", help="Address or CIDR range it may be used from. Repeatable."),
    ] = None,
    ttl: Annotated[
        timedelta | None,
        typer.Option(metavar="DURATION", parser=parse_duration, help="How long it lives: 90d, 12h, 1d12h."),
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(metavar="TIME", parser=parse_time, help="When it ends instead: 2027-01-31T00:00:00Z."),
    ] = None,
    owner: Annotated[
        str, typer.Option(metavar="TEXT", show_default=False, help="Person, team or service account.")
    ] = "",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="WORD", help="Word to list keys by. Repeatable.")
    ] = None,
    metadata: Annotated[
        list[Pair] | None,
        typer.Option(metavar="NAME=VALUE", parser=parse_pair, help="For your systems; verify answers it. Repeatable."),
    ] = None,
    limit_to: Annotated[
        list[str] | None,
        typer.Option(
            "--limit-to", metavar="NAME", help="Keys of keysvc/system: a workspace the caller may work in. Repeatable."
        ),
    ] = None,
    request_id: RequestIdOption = "",
    reason: ReasonOption = "",
) -> None:
    """Create a key and show its key string, this once.

    The key string goes to the key's user. It is kept nowhere: whoever loses it needs a new one.
    """
    if ttl is not None and expires is not None:
        raise Failure.usage("--ttl and --expires say the same thing twice: give one of them.")
    request = key_service_pb2.CreateRequest(
        workspace=workspace,
        display_name=name,
        environment=environment_value(env),
        owner=owner,
        scopes=scope or (),
        role=role,
        ip_allowlist=ip or (),
        expire_time=to_timestamp(expires),
        ttl=to_duration(ttl),
        metadata=to_mapping(metadata or ()),
        tags=tag or (),
        request_id=request_id or str(uuid4()),
        workspaces=limit_to or (),
        reason=reason,
    )
    response = client.call(client.keys.Create, request, if_unknown=repeat_as(request.request_id))
    if output.as_json:
        output.document(response)
    elif output.quiet:
        output.line(response.key_string)
    else:
        output.show("The key string, shown only now:", "")
        output.line(f"  {response.key_string}")
        output.show("", output.details(key_rows(response.key, output)), "", secret_list(response.key, output))


@client_command(app, "get", quiet="the state")
def get(client: "Client", output: Output, key_id: key_changes.KeyArgument) -> None:
    """Show a key and its secrets, but no key string."""
    response = client.call(client.keys.Get, key_service_pb2.GetRequest(key_id=key_id))
    if output.as_json:
        output.document(response)
    elif output.quiet:
        output.line(key_state_word(response.key.state))
    else:
        rows = [*key_rows(response.key, output), *usage_rows(response.key, output)]
        output.show(output.details(rows), "", secret_list(response.key, output))


@client_command(app, "list", quiet="the ids, one per line")
def list_(
    client: "Client",
    output: Output,
    *,
    workspace: Annotated[str, _condition("NAME", "Only of this workspace.")] = "",
    state: Annotated[
        KeyState | None, typer.Option(metavar="STATE", help="active, suspended, revoked or expired.")
    ] = None,
    env: Annotated[Environment | None, typer.Option("--env", metavar="live|test", help="Of this environment.")] = None,
    owner: Annotated[str, _condition("TEXT", "Of exactly this owner.")] = "",
    tag: Annotated[str, _condition("WORD", "With this tag.")] = "",
    role: Annotated[str, _condition("ROLE", "With this role.")] = "",
    hint_prefix: Annotated[
        str,
        typer.Option(
            metavar="TEXT", show_default=False, callback=not_empty, help="Whose key string begins so: sk_live_1a1b2c3d."
        ),
    ] = "",
    name_prefix: Annotated[
        str,
        _condition("TEXT", "Whose name begins so; case counts."),
    ] = "",
    expire_before: Annotated[
        When | None,
        typer.Option(metavar="TIME", parser=parse_when, help="That expire before this time; 7d: within 7 days."),
    ] = None,
    idle_since: Annotated[
        When | None,
        typer.Option(
            metavar="TIME", parser=parse_when, help="Neither used nor created since this time; 30d: for 30 days."
        ),
    ] = None,
    page_size: PageSizeOption = None,
    page_token: PageTokenOption = "",
    all_pages: AllOption = False,
) -> None:
    """List keys, newest first. All conditions must hold."""
    request = key_service_pb2.ListRequest(
        workspace=workspace,
        filter=key_service_pb2.ListRequest.Filter(
            state=key_state_value(state),
            environment=environment_value(env),
            owner=owner,
            tag=tag,
            role=role,
            hint_prefix=hint_prefix,
            display_name_prefix=name_prefix,
            expire_before=to_timestamp(expire_before.ahead_of(output.now) if expire_before else None),
            idle_since=to_timestamp(idle_since.before(output.now) if idle_since else None),
        ),
    )
    print_pages(
        Paging(page_size, page_token, follow=all_pages).pages(client, client.keys.List, request),
        output,
        items=lambda page: page.keys,
        essential=lambda key: key.id,
        show=lambda keys: _show_list(
            keys, key_list(keys, output, one_workspace=bool(workspace), idle=idle_since is not None), output
        ),
    )


def _show_list(keys: Iterable[Key], table: Table, output: Output) -> None:
    """Print a list; where it tells of usage, also how fresh that is: as fresh as the oldest of it."""
    output.show(table)
    times = [key.usage_time for key in keys if key.HasField("usage_time")]
    if times and LAST_USED in {column.header for column in table.columns}:
        output.note(freshness(min(times, key=to_datetime), output))


key_update.register(app)
key_changes.register(app)
