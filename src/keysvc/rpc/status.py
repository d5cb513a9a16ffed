"""The one table error -> gRPC status, and the details that go with it."""

from typing import Final

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from keysvc.core import errors

DOMAIN: Final = "keysvc"
VIOLATIONS_BYTES_MAX: Final = 3000
INTERNAL_MESSAGE: Final = "an error of keysvc itself; the server's log has the details under the call's x-request-id"

CODES: Final[dict[type[errors.KeysvcError], grpc.StatusCode]] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.EtagMismatch: grpc.StatusCode.ABORTED,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.NotBuilt: grpc.StatusCode.UNIMPLEMENTED,
}


def code_of(error: Exception) -> grpc.StatusCode:
    """The status code of an error; INTERNAL for whatever is not one of ours."""
    return CODES.get(type(error), grpc.StatusCode.INTERNAL)  # type: ignore[arg-type]


def status_of(error: Exception) -> status_pb2.Status:
    """The whole status. Of an error that is not one of ours nothing is told but that it happened."""
    if not isinstance(error, errors.KeysvcError):
        return _status(grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE, "INTERNAL", {})
    status = _status(code_of(error), error.message, error.reason, error.metadata)
    if isinstance(error, errors.InvalidArgument):
        status.details.append(_packed(_bad_request(error)))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after_seconds * 1000))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def _bad_request(error: errors.InvalidArgument) -> error_details_pb2.BadRequest:
    """The bad fields, as many as fit: gRPC clients refuse more than 8 KiB of metadata, and with it the whole error."""
    detail = error_details_pb2.BadRequest()
    for each in error.violations:
        detail.field_violations.add(field=each.field, description=each.description)
        if detail.ByteSize() > VIOLATIONS_BYTES_MAX:
            del detail.field_violations[-1]
            break
    return detail


def _status(code: grpc.StatusCode, message: str, reason: str, metadata: dict[str, str]) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    return status_pb2.Status(code=code.value[0], message=message, details=[_packed(info)])


def _packed(detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
