"""The audit log: who changed what, when, from where and why."""

from collections.abc import AsyncIterator
from datetime import datetime

from keysvc.v1.audit_service_pb2 import AuditEvent, ListAuditEventsRequest
from keysvc_client import methods
from keysvc_client._async.calls import AsyncCalls
from keysvc_client.values import to_timestamp


class AsyncAudit:
    """The calls that read the audit log. What they answer are the messages of the contract, ``keysvc.v1``."""

    def __init__(self, calls: AsyncCalls) -> None:
        self._calls = calls

    def list(
        self,
        *,
        workspace: str | None = None,
        key_id: str = "",
        actor: str = "",
        method: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        page_size: int | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[AuditEvent]:
        """List events, newest first: all of them, page by page as they are asked for.

        Permission `audit.read`. Repeated by itself where keysvc is not available.

        Parameters:
            workspace: only of this one; None: of all that the caller may see.
            key_id: only of this key.
            actor: only by this caller: its key id, `tls:` and the name of its certificate, or `bootstrap`.
            method: only by this RPC, such as `keysvc.v1.KeyService/Revoke`.
            start_time, end_time: only from this time on, and before that one.
            page_size: events in one call, at most 1000; None: 50.
            timeout: of each page.

        Raises:
            InvalidArgument, NotFound: see the contract; with the first page.
        """
        request = ListAuditEventsRequest(
            workspace=workspace or "",
            page_size=page_size or 0,
            filter=ListAuditEventsRequest.Filter(
                key_id=key_id,
                actor=actor,
                method=method,
                start_time=to_timestamp(start_time, "start_time"),
                end_time=to_timestamp(end_time, "end_time"),
            ),
        )
        return self._calls.items(methods.LIST_AUDIT_EVENTS, request, lambda page: page.events, timeout)
