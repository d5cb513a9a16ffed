"""Workspaces, the tenants that keys belong to."""

from collections.abc import Iterator
from typing import Unpack

from keysvc.v1.workspace_service_pb2 import (
    CreateWorkspaceRequest,
    GetWorkspaceRequest,
    ListWorkspacesRequest,
    ResumeWorkspaceRequest,
    ResumeWorkspaceResponse,
    SuspendWorkspaceRequest,
    SuspendWorkspaceResponse,
    UpdateWorkspaceResponse,
    Workspace,
)
from keysvc_client import methods
from keysvc_client._sync.calls import Calls
from keysvc_client.changes import WorkspaceChanges, update_workspace, workspace_message
from keysvc_client.values import WaitWord, wait_value


class Workspaces:
    """The calls that manage workspaces. What they answer are the messages of the contract, ``keysvc.v1``.

    `reason`, `wait` and `timeout` are as in the calls that manage keys, and so is what they raise.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(
        self, name: str, *, reason: str = "", timeout: float | None = None, **values: Unpack[WorkspaceChanges]
    ) -> Workspace:
        """Create a workspace; see `WorkspaceChanges` for what else can be given.

        Permission `workspaces.write`. Never repeated by itself: a repeat of a success would be `AlreadyExists`.

        Parameters:
            name: organization and workspace, such as `acme-corp/sales`.

        Raises:
            InvalidArgument, AlreadyExists, NotFound, PermissionDenied: see the contract.
        """
        request = CreateWorkspaceRequest(workspace=workspace_message(name, "", values), reason=reason)
        return (self._calls.call(methods.CREATE_WORKSPACE, request, timeout)).workspace

    def get(self, name: str, *, timeout: float | None = None) -> Workspace:
        """Get a workspace.

        Permission `keys.read`. Repeated by itself where keysvc is not available.

        Raises:
            NotFound: there is none, or the caller may not know of it.
        """
        return (self._calls.call(methods.GET_WORKSPACE, GetWorkspaceRequest(name=name), timeout)).workspace

    def list(
        self, *, organization: str = "", page_size: int | None = None, timeout: float | None = None
    ) -> Iterator[Workspace]:
        """List workspaces by name: all of them, page by page as they are asked for.

        Permission `keys.read`. Repeated by itself where keysvc is not available.

        Parameters:
            organization: only of this one, the part of the name before `/`; empty: of all.
            page_size: workspaces in one call, at most 1000; None: 50.
            timeout: of each page.
        """
        request = ListWorkspacesRequest(organization=organization, page_size=page_size or 0)
        return self._calls.items(methods.LIST_WORKSPACES, request, lambda page: page.workspaces, timeout)

    def update(
        self,
        name: str,
        *,
        etag: str = "",
        reason: str = "",
        wait: WaitWord | None = None,
        timeout: float | None = None,
        **changes: Unpack[WorkspaceChanges],
    ) -> UpdateWorkspaceResponse:
        """Change what is given, and nothing else: see `WorkspaceChanges` for what can be.

        Permission `workspaces.write`. Never repeated by itself.

        Parameters:
            etag: of the workspace as it was read: only if it has not changed since.

        Raises:
            Aborted: it has changed since: read it again.
            InvalidArgument, NotFound, PermissionDenied, FailedPrecondition: see the contract.
        """
        request = update_workspace(name, etag, changes)
        request.reason, request.wait = reason, wait_value(wait)
        return self._calls.call(methods.UPDATE_WORKSPACE, request, timeout)

    def suspend(
        self, name: str, *, reason: str = "", wait: WaitWord | None = None, timeout: float | None = None
    ) -> SuspendWorkspaceResponse:
        """Refuse all keys of the workspace until `resume`.

        Permission `workspaces.write`. Repeated by itself where keysvc is not available.

        Raises:
            NotFound, FailedPrecondition: see the contract.
        """
        request = SuspendWorkspaceRequest(name=name, reason=reason, wait=wait_value(wait))
        return self._calls.call(methods.SUSPEND_WORKSPACE, request, timeout)

    def resume(
        self, name: str, *, reason: str = "", wait: WaitWord | None = None, timeout: float | None = None
    ) -> ResumeWorkspaceResponse:
        """End a suspension: the keys of the workspace are judged by their own state again.

        Permission `workspaces.write`. Repeated by itself where keysvc is not available.

        Raises:
            NotFound: see the contract.
        """
        request = ResumeWorkspaceRequest(name=name, reason=reason, wait=wait_value(wait))
        return self._calls.call(methods.RESUME_WORKSPACE, request, timeout)
