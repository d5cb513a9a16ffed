"""Messages of WorkspaceService."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from keysvc.core.errors import NotBuilt
from keysvc.core.key import DISPLAY_NAME_CHARACTERS_MAX
from keysvc.core.scope import SCOPES_MAX, parse_grant
from keysvc.core.workspace import (
    KEY_LIMIT_MAX,
    ROLES_MAX,
    Workspace,
    parse_new_role,
    parse_new_workspace_name,
    parse_organization,
    parse_workspace_name,
)
from keysvc.rpc.fields import Fields
from keysvc.rpc.translate.pages import read_page
from keysvc.rpc.translate.receipts import read_asked, read_reason
from keysvc.rpc.translate.times import duration, timestamp
from keysvc.service.confirming import ChangeRequest
from keysvc.service.reading import Page, PageRequest
from keysvc.service.tenancy import WorkspaceSettings
from keysvc.v1 import workspace_service_pb2


def _read_key_limit(fields: Fields, message: workspace_service_pb2.Workspace) -> int | None:
    if not message.HasField("key_limit"):
        return None
    if not 0 <= message.key_limit <= KEY_LIMIT_MAX:
        fields.bad("key_limit", f"must be 0 to {KEY_LIMIT_MAX}; absent means unlimited")
    return message.key_limit


def _read_roles(fields: Fields, message: workspace_service_pb2.Workspace) -> dict[str, tuple[str, ...]]:
    if len(message.roles) > ROLES_MAX:
        fields.bad("roles", f"must have at most {ROLES_MAX} items")
        return {}
    roles: dict[str, tuple[str, ...]] = {}
    for index, role in enumerate(message.roles):
        name = fields.read(f"roles[{index}].name", role.name, parse_new_role, "")
        if name in roles:
            fields.bad(f"roles[{index}].name", "must not repeat a role")
        if not role.scopes:
            fields.bad(f"roles[{index}].scopes", f"must have 1 to {SCOPES_MAX} items")
        roles[name] = fields.each(f"roles[{index}].scopes", role.scopes, parse_grant, SCOPES_MAX)
    return roles


_SETTABLE: Final[Mapping[str, Callable[[Fields, workspace_service_pb2.Workspace], Any]]] = {
    "display_name": lambda fields, message: fields.text(
        "display_name", message.display_name, characters_max=DISPLAY_NAME_CHARACTERS_MAX
    ),
    "allowed_scopes": lambda fields, message: fields.each(
        "allowed_scopes", message.allowed_scopes, parse_grant, SCOPES_MAX
    ),
    "roles": _read_roles,
    "default_ttl": lambda fields, message: fields.span("default_ttl", message),
    "max_ttl": lambda fields, message: fields.span("max_ttl", message),
    "key_limit": _read_key_limit,
}
"""How each field that callers may set is read."""


def read_create(
    request: workspace_service_pb2.CreateWorkspaceRequest,
) -> tuple[str, WorkspaceSettings, str]:
    """Name, what to set and reason. Raises nothing but for the name: the rest is told with what is found out later."""
    if request.workspace.HasField("rotation_policy"):
        raise NotBuilt("workspace.rotation_policy is not built yet")
    fields = Fields("workspace.")
    name = fields.read("name", request.workspace.name, parse_new_workspace_name, "")
    values = {field: read(fields, request.workspace) for field, read in _SETTABLE.items()}
    reason = read_reason(Fields(violations=fields.violations), request.reason)
    if not name:
        fields.done()
    return name, WorkspaceSettings(values, violations=fields.violations), reason


def read_update(
    request: workspace_service_pb2.UpdateWorkspaceRequest,
) -> tuple[str, WorkspaceSettings, ChangeRequest]:
    """Name, what to set, and what is said of every change. Raises nothing but for name and mask, as above."""
    if "rotation_policy" in request.update_mask.paths:
        raise NotBuilt("workspace.rotation_policy is not built yet")
    whole = Fields()
    fields = Fields("workspace.", whole.violations)
    name = fields.read("name", request.workspace.name, parse_workspace_name, "")
    values = whole.masked(request.update_mask, _SETTABLE, lambda read: read(fields, request.workspace))
    asked = read_asked(whole, request)
    if not name or any(each.field == "update_mask" for each in whole.violations):
        fields.done()
    return name, WorkspaceSettings(values, request.workspace.etag, whole.violations), asked


def read_get(request: workspace_service_pb2.GetWorkspaceRequest) -> str:
    """The name."""
    fields = Fields()
    name = fields.read("name", request.name, parse_workspace_name, "")
    fields.done()
    return name


def read_list(request: workspace_service_pb2.ListWorkspacesRequest) -> tuple[str | None, PageRequest]:
    """Organization and page."""
    fields = Fields()
    organization = fields.optional("organization", request.organization, parse_organization)
    page = read_page(fields, request)
    fields.done()
    return organization, page


def read_change(
    request: workspace_service_pb2.SuspendWorkspaceRequest | workspace_service_pb2.ResumeWorkspaceRequest,
) -> tuple[str, ChangeRequest]:
    """Name, and what is said of every change."""
    fields = Fields()
    name = fields.read("name", request.name, parse_workspace_name, "")
    asked = read_asked(fields, request)
    fields.done()
    return name, asked


def workspace_message(workspace: Workspace) -> workspace_service_pb2.Workspace:
    """A workspace."""
    states = workspace_service_pb2.Workspace
    return workspace_service_pb2.Workspace(
        name=workspace.name,
        display_name=workspace.display_name,
        state=states.STATE_SUSPENDED if workspace.suspended else states.STATE_ACTIVE,
        allowed_scopes=workspace.allowed_scopes,
        roles=[
            workspace_service_pb2.Role(name=name, scopes=scopes) for name, scopes in sorted(workspace.roles.items())
        ],
        default_ttl=duration(workspace.default_ttl),
        max_ttl=duration(workspace.max_ttl),
        key_limit=workspace.key_limit,
        create_time=timestamp(workspace.create_time),
        update_time=timestamp(workspace.update_time),
        etag=str(workspace.version),
    )


def list_message(page: Page[Workspace]) -> workspace_service_pb2.ListWorkspacesResponse:
    """A page of workspaces."""
    return workspace_service_pb2.ListWorkspacesResponse(
        workspaces=map(workspace_message, page.items), next_page_token=page.next_token
    )
