"""The RPCs that the library calls, and which of them may be sent again."""

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message

from keysvc.v1 import audit_service_pb2 as audit
from keysvc.v1 import key_service_pb2 as keys
from keysvc.v1 import usage_pb2, usage_service_pb2, verify_pb2
from keysvc.v1 import workspace_service_pb2 as workspaces

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
PageRequest = TypeVar(
    "PageRequest",
    keys.ListRequest,
    workspaces.ListWorkspacesRequest,
    usage_service_pb2.QueryUsageRequest,
    audit.ListAuditEventsRequest,
)
Page = TypeVar(
    "Page",
    keys.ListResponse,
    workspaces.ListWorkspacesResponse,
    usage_service_pb2.QueryUsageResponse,
    audit.ListAuditEventsResponse,
)


@dataclass(frozen=True, slots=True, eq=False)
class Method(Generic[Request, Response]):
    """One RPC.

    Parameters:
        service, name: as in the contract.
        request, response: classes of its messages.
        repeatable: the contract says that it is safe to retry as it is sent here.
    """

    service: str
    name: str
    request: type[Request]
    response: type[Response]
    repeatable: bool

    @property
    def path(self) -> str:
        """How gRPC names it."""
        return f"/{self.service}/{self.name}"


_KEYS: Final = "keysvc.v1.KeyService"
_WORKSPACES: Final = "keysvc.v1.WorkspaceService"
_USAGE: Final = "keysvc.v1.UsageService"
_AUDIT: Final = "keysvc.v1.AuditService"

VERIFY: Final = Method(_KEYS, "Verify", verify_pb2.VerifyRequest, verify_pb2.VerifyResponse, repeatable=True)
VERIFY_BATCH: Final = Method(
    _KEYS, "VerifyBatch", verify_pb2.VerifyBatchRequest, verify_pb2.VerifyBatchResponse, repeatable=True
)
RECORD_USAGE: Final = Method(
    _KEYS, "RecordUsage", usage_pb2.RecordUsageRequest, usage_pb2.RecordUsageResponse, repeatable=True
)

# With the request_id that the library always sends.
CREATE: Final = Method(_KEYS, "Create", keys.CreateRequest, keys.CreateResponse, repeatable=True)
ROTATE: Final = Method(_KEYS, "Rotate", keys.RotateRequest, keys.RotateResponse, repeatable=True)

GET: Final = Method(_KEYS, "Get", keys.GetRequest, keys.GetResponse, repeatable=True)
LIST: Final = Method(_KEYS, "List", keys.ListRequest, keys.ListResponse, repeatable=True)
CANCEL_ROTATION: Final = Method(
    _KEYS, "CancelRotation", keys.CancelRotationRequest, keys.CancelRotationResponse, repeatable=True
)
SUSPEND: Final = Method(_KEYS, "Suspend", keys.SuspendRequest, keys.SuspendResponse, repeatable=True)
RESUME: Final = Method(_KEYS, "Resume", keys.ResumeRequest, keys.ResumeResponse, repeatable=True)
REVOKE: Final = Method(_KEYS, "Revoke", keys.RevokeRequest, keys.RevokeResponse, repeatable=True)

# With an etag a repeat of a success would be ABORTED; without one it could undo what somebody else did in between.
UPDATE: Final = Method(_KEYS, "Update", keys.UpdateRequest, keys.UpdateResponse, repeatable=False)

# A repeat of a success would be ALREADY_EXISTS.
CREATE_WORKSPACE: Final = Method(
    _WORKSPACES,
    "CreateWorkspace",
    workspaces.CreateWorkspaceRequest,
    workspaces.CreateWorkspaceResponse,
    repeatable=False,
)
GET_WORKSPACE: Final = Method(
    _WORKSPACES, "GetWorkspace", workspaces.GetWorkspaceRequest, workspaces.GetWorkspaceResponse, repeatable=True
)
LIST_WORKSPACES: Final = Method(
    _WORKSPACES, "ListWorkspaces", workspaces.ListWorkspacesRequest, workspaces.ListWorkspacesResponse, repeatable=True
)
UPDATE_WORKSPACE: Final = Method(
    _WORKSPACES,
    "UpdateWorkspace",
    workspaces.UpdateWorkspaceRequest,
    workspaces.UpdateWorkspaceResponse,
    repeatable=False,
)
SUSPEND_WORKSPACE: Final = Method(
    _WORKSPACES,
    "SuspendWorkspace",
    workspaces.SuspendWorkspaceRequest,
    workspaces.SuspendWorkspaceResponse,
    repeatable=True,
)
RESUME_WORKSPACE: Final = Method(
    _WORKSPACES,
    "ResumeWorkspace",
    workspaces.ResumeWorkspaceRequest,
    workspaces.ResumeWorkspaceResponse,
    repeatable=True,
)

QUERY_USAGE: Final = Method(
    _USAGE, "QueryUsage", usage_service_pb2.QueryUsageRequest, usage_service_pb2.QueryUsageResponse, repeatable=True
)
LIST_AUDIT_EVENTS: Final = Method(
    _AUDIT, "ListAuditEvents", audit.ListAuditEventsRequest, audit.ListAuditEventsResponse, repeatable=True
)

METHODS: Final[tuple[Method[Any, Any], ...]] = tuple(each for each in globals().values() if isinstance(each, Method))
"""All of them."""
