"""The one table method -> permission. A method of the contract that is missing here fails a test, and the start."""

from typing import Final

from keysvc.core.permission import Permission

PERMISSIONS: Final[dict[str, Permission]] = {
    "keysvc.v1.KeyService/Create": Permission.KEYS_WRITE,
    "keysvc.v1.KeyService/Get": Permission.KEYS_READ,
    "keysvc.v1.KeyService/List": Permission.KEYS_READ,
    "keysvc.v1.KeyService/Update": Permission.KEYS_WRITE,
    "keysvc.v1.KeyService/Rotate": Permission.KEYS_WRITE,
    "keysvc.v1.KeyService/CancelRotation": Permission.KEYS_WRITE,
    "keysvc.v1.KeyService/Suspend": Permission.KEYS_WRITE,
    "keysvc.v1.KeyService/Resume": Permission.KEYS_WRITE,
    "keysvc.v1.KeyService/Revoke": Permission.KEYS_REVOKE,
    "keysvc.v1.KeyService/Verify": Permission.VERIFY,
    "keysvc.v1.KeyService/VerifyBatch": Permission.VERIFY,
    "keysvc.v1.KeyService/RecordUsage": Permission.USAGE_WRITE,
    "keysvc.v1.KeyService/RenewLease": Permission.VERIFY,
    "keysvc.v1.KeyService/WatchWakeUps": Permission.VERIFY,
    "keysvc.v1.WorkspaceService/CreateWorkspace": Permission.WORKSPACES_WRITE,
    "keysvc.v1.WorkspaceService/GetWorkspace": Permission.KEYS_READ,
    "keysvc.v1.WorkspaceService/ListWorkspaces": Permission.KEYS_READ,
    "keysvc.v1.WorkspaceService/UpdateWorkspace": Permission.WORKSPACES_WRITE,
    "keysvc.v1.WorkspaceService/SuspendWorkspace": Permission.WORKSPACES_WRITE,
    "keysvc.v1.WorkspaceService/ResumeWorkspace": Permission.WORKSPACES_WRITE,
    "keysvc.v1.UsageService/QueryUsage": Permission.USAGE_READ,
    "keysvc.v1.UsageService/ListAnomalies": Permission.USAGE_READ,
    "keysvc.v1.UsageService/ListUnusedScopes": Permission.USAGE_READ,
    "keysvc.v1.AuditService/ListAuditEvents": Permission.AUDIT_READ,
    "keysvc.v1.AuditService/VerifyAuditChain": Permission.AUDIT_READ,
    "keysvc.v1.AuditService/ExportAuditEvents": Permission.AUDIT_READ,
}
