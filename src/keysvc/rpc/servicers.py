"""The services of the contract: translate in, call, translate out. What happens around that is in ``door``."""

from collections.abc import AsyncIterator

from keysvc.rpc.refusals import Refusals, log_refusals
from keysvc.rpc.translate import audit, keys, leases, usage, verify, workspaces
from keysvc.rpc.translate.receipts import receipt_message
from keysvc.service.callers import Call
from keysvc.service.granting import Granting
from keysvc.service.issuing import Issuing
from keysvc.service.lifecycle import Lifecycle
from keysvc.service.reading import Reading
from keysvc.service.recording import Recording
from keysvc.service.rotating import Rotating
from keysvc.service.tenancy import Tenancy
from keysvc.service.updating import Updating
from keysvc.service.verifying import Verifying
from keysvc.v1 import (
    audit_service_pb2,
    key_service_pb2,
    usage_pb2,
    usage_service_pb2,
    verify_pb2,
    workspace_service_pb2,
)


class KeyServicer:
    """``keysvc.v1.KeyService``."""

    def __init__(  # noqa: PLR0913, PLR0917 (one for each role)
        self,
        issuing: Issuing,
        updating: Updating,
        rotating: Rotating,
        lifecycle: Lifecycle,
        reading: Reading,
        verifying: Verifying,
        recording: Recording,
        granting: Granting,
        answers: verify.Answers,
        memos: leases.Memos,
        refusals: Refusals,
    ) -> None:
        self._issuing = issuing
        self._updating = updating
        self._rotating = rotating
        self._lifecycle = lifecycle
        self._reading = reading
        self._verifying = verifying
        self._recording = recording
        self._granting = granting
        self._answers = answers
        self._memos = memos
        self._refusals = refusals

    async def Create(self, request: key_service_pb2.CreateRequest, call: Call) -> key_service_pb2.CreateResponse:
        """Create a key."""
        new = keys.read_create(request)
        key, key_string = await self._issuing.create(call, new)
        return key_service_pb2.CreateResponse(key=keys.key_message(key), key_string=key_string.reveal())

    async def Get(self, request: key_service_pb2.GetRequest, call: Call) -> key_service_pb2.GetResponse:
        """Get a key."""
        key = await self._reading.get_key(call, keys.read_get(request))
        return key_service_pb2.GetResponse(key=keys.key_message(key))

    async def List(self, request: key_service_pb2.ListRequest, call: Call) -> key_service_pb2.ListResponse:
        """List keys."""
        workspace, asked, page = keys.read_list(request)
        return keys.list_message(await self._reading.list_keys(call, workspace, asked, page))

    async def Update(self, request: key_service_pb2.UpdateRequest, call: Call) -> key_service_pb2.UpdateResponse:
        """Change a key."""
        key, receipt = await self._updating.update(call, keys.read_update(request))
        return key_service_pb2.UpdateResponse(key=keys.key_message(key), receipt=receipt_message(receipt))

    async def Rotate(self, request: key_service_pb2.RotateRequest, call: Call) -> key_service_pb2.RotateResponse:
        """Mint a second secret for a key."""
        wanted = keys.read_rotate(request)
        key = await self._reading.get_key(call, wanted.key_id)
        key, key_string, receipt = await self._rotating.rotate(call, key, wanted)
        return key_service_pb2.RotateResponse(
            key=keys.key_message(key), key_string=key_string.reveal(), receipt=receipt_message(receipt)
        )

    async def CancelRotation(
        self, request: key_service_pb2.CancelRotationRequest, call: Call
    ) -> key_service_pb2.CancelRotationResponse:
        """Go back to the old secret."""
        key, receipt = await self._rotating.cancel(call, *keys.read_change(request))
        return key_service_pb2.CancelRotationResponse(key=keys.key_message(key), receipt=receipt_message(receipt))

    async def Suspend(self, request: key_service_pb2.SuspendRequest, call: Call) -> key_service_pb2.SuspendResponse:
        """Suspend a key."""
        key, receipt = await self._lifecycle.suspend(call, *keys.read_change(request))
        return key_service_pb2.SuspendResponse(key=keys.key_message(key), receipt=receipt_message(receipt))

    async def Resume(self, request: key_service_pb2.ResumeRequest, call: Call) -> key_service_pb2.ResumeResponse:
        """Resume a key."""
        key, receipt = await self._lifecycle.resume(call, *keys.read_change(request))
        return key_service_pb2.ResumeResponse(key=keys.key_message(key), receipt=receipt_message(receipt))

    async def Revoke(self, request: key_service_pb2.RevokeRequest, call: Call) -> key_service_pb2.RevokeResponse:
        """Revoke a key or one of its secrets."""
        key, receipt = await self._lifecycle.revoke(call, *keys.read_revoke(request))
        return key_service_pb2.RevokeResponse(key=keys.key_message(key), receipt=receipt_message(receipt))

    async def Verify(self, request: verify_pb2.VerifyRequest, call: Call) -> bytes:
        """Verify a presentation."""
        epoch = self._memos.epoch() if request.memo else ""
        answer = await self._verifying.verify(verify.read_verify(request), call.caller.workspaces)
        log_refusals(self._refusals.find([answer]), call.caller)
        return self._answers.write(answer) + self._memos.write(answer, call.caller, epoch)

    async def VerifyBatch(self, request: verify_pb2.VerifyBatchRequest, call: Call) -> verify_pb2.VerifyBatchResponse:
        """Verify several presentations."""
        epoch = self._memos.epoch()
        answers = await self._verifying.verify_batch(verify.read_verify_batch(request), call.caller.workspaces)
        log_refusals(self._refusals.find(answers), call.caller)
        written = (
            self._answers.write(answer) + self._memos.write(answer, call.caller, epoch if each.memo else "")
            for each, answer in zip(request.requests, answers, strict=True)
        )
        return verify_pb2.VerifyBatchResponse(responses=map(verify_pb2.VerifyResponse.FromString, written))

    async def RecordUsage(self, request: usage_pb2.RecordUsageRequest, call: Call) -> usage_pb2.RecordUsageResponse:
        """Record what was done with keys."""
        return usage.recorded_message(await self._recording.record(call, usage.read_report(request)))

    async def RenewLease(
        self, request: key_service_pb2.RenewLeaseRequest, call: Call
    ) -> key_service_pb2.RenewLeaseResponse:
        """Let a client answer from its own memory."""
        session_id, place, close, stale = leases.read_renewal(request)
        if close:
            self._granting.close(call, session_id)
            return key_service_pb2.RenewLeaseResponse()
        return self._memos.granted_message(await self._granting.renew(call, session_id, place, stale=stale))

    async def WatchWakeUps(
        self,
        request: key_service_pb2.WatchWakeUpsRequest,
        call: Call,
    ) -> AsyncIterator[key_service_pb2.WatchWakeUpsResponse]:
        """Tell a client what has changed, and that it should renew."""
        async for wake_up in self._granting.watch(call, leases.read_session_id(request)):
            yield self._memos.wake_up_message(wake_up)


class WorkspaceServicer:
    """``keysvc.v1.WorkspaceService``."""

    def __init__(self, tenancy: Tenancy, reading: Reading) -> None:
        self._tenancy = tenancy
        self._reading = reading

    async def CreateWorkspace(
        self, request: workspace_service_pb2.CreateWorkspaceRequest, call: Call
    ) -> workspace_service_pb2.CreateWorkspaceResponse:
        """Create a workspace."""
        workspace = await self._tenancy.create(call, *workspaces.read_create(request))
        return workspace_service_pb2.CreateWorkspaceResponse(workspace=workspaces.workspace_message(workspace))

    async def GetWorkspace(
        self, request: workspace_service_pb2.GetWorkspaceRequest, call: Call
    ) -> workspace_service_pb2.GetWorkspaceResponse:
        """Get a workspace."""
        workspace = await self._reading.get_workspace(call, workspaces.read_get(request))
        return workspace_service_pb2.GetWorkspaceResponse(workspace=workspaces.workspace_message(workspace))

    async def ListWorkspaces(
        self, request: workspace_service_pb2.ListWorkspacesRequest, call: Call
    ) -> workspace_service_pb2.ListWorkspacesResponse:
        """List workspaces."""
        organization, page = workspaces.read_list(request)
        return workspaces.list_message(await self._reading.list_workspaces(call, organization, page))

    async def UpdateWorkspace(
        self, request: workspace_service_pb2.UpdateWorkspaceRequest, call: Call
    ) -> workspace_service_pb2.UpdateWorkspaceResponse:
        """Change a workspace."""
        workspace, receipt = await self._tenancy.update(call, *workspaces.read_update(request))
        return workspace_service_pb2.UpdateWorkspaceResponse(
            workspace=workspaces.workspace_message(workspace), receipt=receipt_message(receipt)
        )

    async def SuspendWorkspace(
        self, request: workspace_service_pb2.SuspendWorkspaceRequest, call: Call
    ) -> workspace_service_pb2.SuspendWorkspaceResponse:
        """Suspend a workspace."""
        workspace, receipt = await self._tenancy.suspend(call, *workspaces.read_change(request))
        return workspace_service_pb2.SuspendWorkspaceResponse(
            workspace=workspaces.workspace_message(workspace), receipt=receipt_message(receipt)
        )

    async def ResumeWorkspace(
        self, request: workspace_service_pb2.ResumeWorkspaceRequest, call: Call
    ) -> workspace_service_pb2.ResumeWorkspaceResponse:
        """Resume a workspace."""
        workspace, receipt = await self._tenancy.resume(call, *workspaces.read_change(request))
        return workspace_service_pb2.ResumeWorkspaceResponse(
            workspace=workspaces.workspace_message(workspace), receipt=receipt_message(receipt)
        )


class UsageServicer:
    """``keysvc.v1.UsageService``."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def QueryUsage(
        self, request: usage_service_pb2.QueryUsageRequest, call: Call
    ) -> usage_service_pb2.QueryUsageResponse:
        """List totals of usage."""
        workspace, asked, page = usage.read_query(request)
        return usage.totals_message(*await self._reading.list_usage(call, workspace, asked, page))


class AuditServicer:
    """``keysvc.v1.AuditService``."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def ListAuditEvents(
        self, request: audit_service_pb2.ListAuditEventsRequest, call: Call
    ) -> audit_service_pb2.ListAuditEventsResponse:
        """List audit events."""
        workspace, asked, page = audit.read_list(request)
        return audit.list_message(await self._reading.list_audit_events(call, workspace, asked, page))
