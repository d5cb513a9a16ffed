"""Messages of AuditService."""

from keysvc.core.audit import AuditEvent
from keysvc.core.certificate_callers import CERTIFICATE_NAME_CHARACTERS_MAX
from keysvc.core.listing import AuditFilter
from keysvc.core.revision import Revision
from keysvc.core.workspace import parse_workspace_name
from keysvc.rpc.fields import Fields
from keysvc.rpc.translate.pages import read_page
from keysvc.rpc.translate.times import timestamp
from keysvc.service.callers import CERTIFICATE_PREFIX
from keysvc.service.reading import Page, PageRequest
from keysvc.v1 import audit_service_pb2

_NAME_CHARACTERS_MAX = 128
_ACTOR_CHARACTERS_MAX = len(CERTIFICATE_PREFIX) + CERTIFICATE_NAME_CHARACTERS_MAX


def read_list(
    request: audit_service_pb2.ListAuditEventsRequest,
) -> tuple[str | None, AuditFilter, PageRequest]:
    """Workspace, filter and page."""
    fields = Fields()
    asked = Fields("filter.", fields.violations)
    workspace = fields.optional("workspace", request.workspace, parse_workspace_name)
    audit_filter = AuditFilter(
        key_id=asked.uuid("key_id", request.filter.key_id) if request.filter.key_id else None,
        actor=asked.text("actor", request.filter.actor, characters_max=_ACTOR_CHARACTERS_MAX) or None,
        method=asked.text("method", request.filter.method, characters_max=_NAME_CHARACTERS_MAX) or None,
        start_time=asked.time("start_time", request.filter),
        end_time=asked.time("end_time", request.filter),
    )
    page = read_page(fields, request)
    fields.done()
    return workspace, audit_filter, page


def list_message(
    page: Page[tuple[AuditEvent, Revision | None]],
) -> audit_service_pb2.ListAuditEventsResponse:
    """A page of events."""
    return audit_service_pb2.ListAuditEventsResponse(
        events=[_event_message(event, revision) for event, revision in page.items], next_page_token=page.next_token
    )


def _event_message(event: AuditEvent, revision: Revision | None) -> audit_service_pb2.AuditEvent:
    message = audit_service_pb2.AuditEvent(
        id=str(event.stamp.event_id),
        time=timestamp(event.time),
        actor=event.stamp.actor,
        method=event.stamp.method,
        workspace=event.workspace,
        key_id="" if event.key_id is None else str(event.key_id),
        secret_id=event.secret_id or "",
        reason=event.stamp.reason,
        request_id=event.stamp.request_id,
        revision="" if revision is None else str(revision),
        source_ip=event.stamp.source_ip,
    )
    if event.before is not None:
        message.before.update(event.before)
    message.after.update(event.after)
    return message
