"""Verifies API keys with keysvc, and manages them.

`KeysvcClient` and `AsyncKeysvcClient` have the same methods. A refusal of a key is an answer, a `Verification`; every
exception that a call raises is a `KeysvcError`: nothing was judged or changed, or nobody knows.
"""

from keysvc_client._async.client import AsyncKeysvcClient
from keysvc_client._async.watch import AsyncWatch
from keysvc_client._sync.client import KeysvcClient
from keysvc_client._sync.watch import Watch
from keysvc_client.changes import KeyChanges, WorkspaceChanges
from keysvc_client.errors import (
    Aborted,
    AlreadyExists,
    ConfigurationError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    KeysvcError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from keysvc_client.middleware.policy import Policy
from keysvc_client.middleware.principal import Principal, current_principal
from keysvc_client.records import UsageRecord
from keysvc_client.values import Environment, KeyState, Outcome, UsageGroup, Wait
from keysvc_client.verification import AtLeast, Basis, Consistency, Presentation, Verdict, Verification

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncKeysvcClient",
    "AsyncWatch",
    "AtLeast",
    "Basis",
    "ConfigurationError",
    "Consistency",
    "DeadlineExceeded",
    "Environment",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "KeyChanges",
    "KeyState",
    "KeysvcClient",
    "KeysvcError",
    "NotFound",
    "Outcome",
    "PermissionDenied",
    "Policy",
    "Presentation",
    "Principal",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UsageGroup",
    "UsageRecord",
    "Verdict",
    "Verification",
    "Wait",
    "Watch",
    "WorkspaceChanges",
    "current_principal",
]
