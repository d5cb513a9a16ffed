"""`keysvc workspaces`: the tenants that keys belong to."""

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from keysvc.cli.command import client_command
from keysvc.cli.contract import to_duration, wait_value
from keysvc.cli.failure import Failure
from keysvc.cli.output import Output
from keysvc.cli.paging import AllOption, PageSizeOption, PageTokenOption, Paging, print_pages
from keysvc.cli.receipt import REPEAT, ReasonOption, WaitOption, receipt_rows, receipt_state
from keysvc.cli.values import Pair, parse_count, parse_duration, parse_pair, to_mapping
from keysvc.cli.workspace_table import workspace_list, workspace_rows, workspace_state_word
from keysvc.v1 import workspace_service_pb2
from keysvc.v1.workspace_service_pb2 import Role, Workspace

if TYPE_CHECKING:
    from keysvc.cli.client import Client

app = typer.Typer(help="Workspaces, the tenants that keys belong to.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", show_default=False, help="Organization and workspace: acme-corp/sales.")
]
DisplayNameOption = Annotated[str | None, typer.Option(metavar="TEXT", help="Name for people.")]
AllowedScopesOption = Annotated[
    list[str] | None,
    typer.Option("--allowed-scope", metavar="SCOPE", help="All that its keys can ever grant. Repeatable."),
]
RolesOption = Annotated[
    list[Pair] | None,
    typer.Option(
        "--role",
        metavar="NAME=SCOPE,…",
        parser=parse_pair,
        help="A role: clerk=pdf.read,pdf.write. Repeatable.",
    ),
]
DefaultTtlOption = Annotated[
    timedelta | None,
    typer.Option(metavar="DURATION", parser=parse_duration, help="Lifetime of keys created without one: 90d."),
]
MaxTtlOption = Annotated[
    timedelta | None,
    typer.Option(metavar="DURATION", parser=parse_duration, help="Longest lifetime of a new key: 365d."),
]
KeyLimitOption = Annotated[
    int | None, typer.Option(metavar="N", parser=parse_count, help="How many keys it may have, revoked ones aside.")
]


Changed = (
    workspace_service_pb2.UpdateWorkspaceResponse
    | workspace_service_pb2.SuspendWorkspaceResponse
    | workspace_service_pb2.ResumeWorkspaceResponse
)

_LOOK = "Nobody knows whether the change was made. Look: keysvc workspaces get {}"


class Clearable(StrEnum):
    """What an update can clear, by its field."""

    DISPLAY_NAME = "display-name"
    ALLOWED_SCOPES = "allowed-scopes"
    ROLES = "roles"
    DEFAULT_TTL = "default-ttl"
    MAX_TTL = "max-ttl"
    KEY_LIMIT = "key-limit"


@client_command(app, "create", quiet="the name")
def create(
    client: "Client",
    output: Output,
    name: NameArgument,
    *,
    display_name: DisplayNameOption = None,
    allowed_scopes: AllowedScopesOption = None,
    roles: RolesOption = None,
    default_ttl: DefaultTtlOption = None,
    max_ttl: MaxTtlOption = None,
    key_limit: KeyLimitOption = None,
    reason: ReasonOption = "",
) -> None:
    """Create a workspace. Without options it allows everything."""
    workspace = _workspace(
        name,
        display_name=display_name,
        allowed_scopes=allowed_scopes,
        roles=roles,
        default_ttl=default_ttl,
        max_ttl=max_ttl,
        key_limit=key_limit,
    )
    request = workspace_service_pb2.CreateWorkspaceRequest(workspace=workspace, reason=reason)
    response = client.call(client.workspaces.CreateWorkspace, request, if_unknown=_LOOK.format(name))
    if output.as_json:
        output.document(response)
    elif output.quiet:
        output.line(response.workspace.name)
    else:
        output.show(
            f"Created workspace {response.workspace.name}", output.details(workspace_rows(response.workspace, output))
        )


@client_command(app, "get", quiet="the state")
def get(client: "Client", output: Output, name: NameArgument) -> None:
    """Show a workspace."""
    request = workspace_service_pb2.GetWorkspaceRequest(name=name)
    response = client.call(client.workspaces.GetWorkspace, request)
    if output.as_json:
        output.document(response)
    elif output.quiet:
        output.line(workspace_state_word(response.workspace))
    else:
        output.show(output.details(workspace_rows(response.workspace, output)))


@client_command(app, "list", quiet="the names, one per line")
def list_(
    client: "Client",
    output: Output,
    *,
    organization: Annotated[
        str, typer.Option(metavar="NAME", show_default=False, help="Only of this organization: acme-corp.")
    ] = "",
    page_size: PageSizeOption = None,
    page_token: PageTokenOption = "",
    all_pages: AllOption = False,
) -> None:
    """List workspaces by name."""
    request = workspace_service_pb2.ListWorkspacesRequest(organization=organization)
    print_pages(
        Paging(page_size, page_token, follow=all_pages).pages(client, client.workspaces.ListWorkspaces, request),
        output,
        items=lambda page: page.workspaces,
        essential=lambda workspace: workspace.name,
        show=lambda workspaces: output.show(workspace_list(workspaces, output)),
    )


@client_command(app, "update", quiet="COMPLETE or PENDING")
def update(
    client: "Client",
    output: Output,
    name: NameArgument,
    *,
    display_name: DisplayNameOption = None,
    allowed_scopes: AllowedScopesOption = None,
    roles: RolesOption = None,
    default_ttl: DefaultTtlOption = None,
    max_ttl: MaxTtlOption = None,
    key_limit: KeyLimitOption = None,
    clear: Annotated[
        list[Clearable] | None,
        typer.Option(
            "--clear",
            metavar="WHAT",
            help="One of display-name, allowed-scopes, roles, default-ttl, max-ttl, key-limit. Repeatable.",
        ),
    ] = None,
    etag: Annotated[
        str, typer.Option(metavar="TEXT", show_default=False, help="Only if it has not changed since: see get.")
    ] = "",
    reason: ReasonOption = "",
    wait: WaitOption = None,
) -> None:
    """Change what is given, and leave the rest.

    Scopes and roles replace all that were there, and cap existing keys at once. A lower lifetime or key limit
    applies to what is created afterwards.
    """
    workspace = _workspace(
        name,
        display_name=display_name,
        allowed_scopes=allowed_scopes,
        roles=roles,
        default_ttl=default_ttl,
        max_ttl=max_ttl,
        key_limit=key_limit,
    )
    workspace.etag = etag
    given = {
        Clearable.DISPLAY_NAME: display_name,
        Clearable.ALLOWED_SCOPES: allowed_scopes,
        Clearable.ROLES: roles,
        Clearable.DEFAULT_TTL: default_ttl,
        Clearable.MAX_TTL: max_ttl,
        Clearable.KEY_LIMIT: key_limit,
    }
    changed = {field for field, value in given.items() if value is not None}
    cleared = set(clear or ())
    if contradiction := sorted(changed & cleared):
        raise Failure.usage(f"{contradiction[0]} cannot be set and cleared at once.")
    if not changed | cleared:
        raise Failure.usage("There is nothing to change: give at least one option.")
    request = workspace_service_pb2.UpdateWorkspaceRequest(
        workspace=workspace,
        update_mask=FieldMask(paths=sorted(field.replace("-", "_") for field in changed | cleared)),
        reason=reason,
        wait=wait_value(wait),
    )
    if_unknown = _LOOK.format(name) if etag else REPEAT
    response = client.call(client.workspaces.UpdateWorkspace, request, if_unknown=if_unknown)
    _print_change("Updated", response, output)


@client_command(app, "suspend", quiet="COMPLETE or PENDING")
def suspend(
    client: "Client", output: Output, name: NameArgument, *, reason: ReasonOption = "", wait: WaitOption = None
) -> None:
    """Suspend a workspace: all its keys are refused.

    Until it is resumed. Its keys keep their own state.
    """
    request = workspace_service_pb2.SuspendWorkspaceRequest(name=name, reason=reason, wait=wait_value(wait))
    response = client.call(client.workspaces.SuspendWorkspace, request, if_unknown=REPEAT)
    _print_change("Suspended", response, output)


@client_command(app, "resume", quiet="COMPLETE or PENDING")
def resume(
    client: "Client", output: Output, name: NameArgument, *, reason: ReasonOption = "", wait: WaitOption = None
) -> None:
    """Resume a workspace.

    Its keys are then judged by their own state again.
    """
    request = workspace_service_pb2.ResumeWorkspaceRequest(name=name, reason=reason, wait=wait_value(wait))
    response = client.call(client.workspaces.ResumeWorkspace, request, if_unknown=REPEAT)
    _print_change("Resumed", response, output)


def _workspace(
    name: str,
    *,
    display_name: str | None,
    allowed_scopes: list[str] | None,
    roles: list[Pair] | None,
    default_ttl: timedelta | None,
    max_ttl: timedelta | None,
    key_limit: int | None,
) -> Workspace:
    """The workspace that the options describe."""
    return Workspace(
        name=name,
        display_name=display_name or "",
        allowed_scopes=allowed_scopes or (),
        roles=[Role(name=role, scopes=scopes.split(",")) for role, scopes in to_mapping(roles or ()).items()],
        default_ttl=to_duration(default_ttl),
        max_ttl=to_duration(max_ttl),
        key_limit=key_limit,
    )


def _print_change(done: str, response: Changed, output: Output) -> None:
    """Print a changed workspace and the receipt."""
    if output.as_json:
        output.document(response)
    elif output.quiet:
        output.line(receipt_state(response.receipt))
    else:
        rows = [*workspace_rows(response.workspace, output)[1:], *receipt_rows(response.receipt, output)]
        output.show(f"{done} workspace {response.workspace.name}", output.details(rows))
