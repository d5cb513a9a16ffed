"""Which page of a list a request asks for."""

from typing import TypeAlias

from keysvc.rpc.fields import Fields
from keysvc.service.reading import PageRequest
from keysvc.v1 import audit_service_pb2, key_service_pb2, usage_service_pb2, workspace_service_pb2

ListMessage: TypeAlias = (
    audit_service_pb2.ListAuditEventsRequest
    | key_service_pb2.ListRequest
    | usage_service_pb2.QueryUsageRequest
    | workspace_service_pb2.ListWorkspacesRequest
)


def read_page(fields: Fields, request: ListMessage) -> PageRequest:
    """Which page; all the rest of the request says of which list."""
    listing = type(request)()
    listing.CopyFrom(request)  # type: ignore[arg-type] # of its own type
    listing.ClearField("page_size")
    listing.ClearField("page_token")
    return PageRequest(
        fields.page_size(request.page_size), request.page_token, listing.SerializeToString(deterministic=True)
    )
