"""Answers as a service gives them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from keysvc.v1.audit_service_pb2 import AuditEvent
from keysvc.v1.key_pb2 import ENVIRONMENT_LIVE, Key, Secret
from keysvc.v1.receipt_pb2 import Receipt
from keysvc.v1.workspace_service_pb2 import Workspace

KEY_STRING = "sk_live_11A2b3C4d5E6f7G8" + "x" * 49
KEY_ID = "0198a6c2-7b3e-7c4d-9a1e-000000000001"
OTHER_KEY_ID = "0198a6c2-7b3e-7c4d-9a1e-000000000002"
SECRET_ID = "1A2b3C4d5E6f7G8"
REVISION = "7f3a9c02-1842"


def from_now(**distance: float) -> Timestamp:
    """A time so far ahead, or with negative numbers so long ago."""
    time = Timestamp()
    time.FromDatetime(datetime.now(UTC) + timedelta(**distance))
    return time


def duration(**parts: float) -> Duration:
    """A duration."""
    message = Duration()
    message.FromTimedelta(timedelta(**parts))
    return message


def key(**fields: Any) -> Key:
    """A key."""
    message = Key(
        id=KEY_ID,
        workspace="acme-corp/sales",
        display_name="PDF export",
        environment=ENVIRONMENT_LIVE,
        scopes=["pdf.read"],
        state=Key.STATE_ACTIVE,
        create_time=from_now(days=-3),
        creator="bootstrap",
        secrets=[Secret(id=SECRET_ID, hint="sk_live_11A2b3C4", create_time=from_now(days=-3), state=Key.STATE_ACTIVE)],
    )
    message.MergeFrom(Key(**fields))
    return message


def receipt(**fields: Any) -> Receipt:
    """A receipt: complete, unless the fields say something else."""
    message = Receipt(
        revision=REVISION, state=Receipt.STATE_COMPLETE, path=Receipt.PATH_ACK, waited=duration(milliseconds=3)
    )
    message.MergeFrom(Receipt(**fields))
    return message


def workspace(**fields: Any) -> Workspace:
    """A workspace."""
    message = Workspace(name="acme-corp/sales", state=Workspace.STATE_ACTIVE, create_time=from_now(days=-30))
    message.MergeFrom(Workspace(**fields))
    return message


def event(**fields: Any) -> AuditEvent:
    """An audit event."""
    message = AuditEvent(
        id="0198a6c2-7b3e-7c4d-9a1e-00000000ffff",
        time=from_now(minutes=-5),
        actor=OTHER_KEY_ID,
        method="keysvc.v1.KeyService/Suspend",
        workspace="acme-corp/sales",
        key_id=KEY_ID,
        revision=REVISION,
        source_ip="10.1.2.3",
    )
    message.before.update({"state": "active"})
    message.after.update({"state": "suspended"})
    message.MergeFrom(AuditEvent(**fields))
    return message
