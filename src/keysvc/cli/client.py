"""Calls over gRPC, and what their errors mean.

Imported when a command calls, not when it is defined: gRPC takes its time to load.
"""

import re
from typing import TypeVar, cast
from uuid import uuid4

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from keysvc.cli.connection import Connection
from keysvc.cli.failure import ExitCode, Failure
from keysvc.v1.audit_service_pb2_grpc import AuditServiceStub
from keysvc.v1.key_service_pb2_grpc import KeyServiceStub
from keysvc.v1.usage_service_pb2_grpc import UsageServiceStub
from keysvc.v1.workspace_service_pb2_grpc import WorkspaceServiceStub

# A page of 1000 keys with everything at its limit would be 12 MiB; gRPC's default is 4.
_ANSWER_BYTES_MAX = 64 * 2**20

_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_LOOK_INTO_LOGS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})

_NOT_CONNECTED = re.compile(r"failed to connect|errors? resolving|resolution failed", re.IGNORECASE)
_LAST_ERROR = re.compile(r".*last error: [A-Z_]+: (?:[a-z0-9]+:\S+: )?(?P<cause>.*)", re.DOTALL)

# How gRPC words what went wrong, and what that means here.
_CAUSES = (
    ("Connection refused", "nothing listens there."),
    ("resolv", "there is no host of this name."),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS."),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted: name the authority that signed it with --tls-ca."),
    ("Hostname Verification", "its certificate is for another name."),
)


Request = TypeVar("Request")
Response = TypeVar("Response")


class Client:
    """The stubs of a connection; ``call`` is the way to use their methods.

    Parameters:
        connection: where to, and as whom.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel = _open(connection)
        self.keys = KeyServiceStub(self._channel)
        self.workspaces = WorkspaceServiceStub(self._channel)
        self.audit = AuditServiceStub(self._channel)
        self.usage = UsageServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        if_unknown: str = "",
    ) -> Response:
        """Call a method of a stub.

        Parameters:
            method: the method.
            request: its request.
            if_unknown: what to do when nobody knows whether a change was made.

        Raises:
            Failure: the service refused, or could not be reached in time.
        """
        request_id = str(uuid4())
        metadata: tuple[tuple[str, str], ...] = (("x-request-id", request_id),)
        if self._connection.api_key is not None:
            metadata += (("authorization", f"Bearer {self._connection.api_key}"),)
        try:
            return method(request, timeout=self._connection.timeout_seconds, metadata=metadata)
        except grpc.RpcError as error:
            # What a stub raises is also the call that failed.
            raise _failure(cast("grpc.Call", error), self._connection, request_id, if_unknown) from None


def _open(connection: Connection) -> grpc.Channel:
    """A channel; nothing is sent yet."""
    # An HTTP proxy may carry TLS. A call to this machine has no business there, least of all in clear.
    options = [
        ("grpc.max_receive_message_length", _ANSWER_BYTES_MAX),
        ("grpc.enable_http_proxy", 0 if connection.loopback else 1),
    ]
    if connection.tls is None:
        return grpc.insecure_channel(connection.address, options)
    credentials = grpc.ssl_channel_credentials(connection.tls.roots, connection.tls.key, connection.tls.certificate)
    return grpc.secure_channel(connection.address, credentials, options)


def _failure(error: grpc.Call, connection: Connection, request_id: str, if_unknown: str) -> Failure:
    """What an RPC's error means for the person who made the call."""
    code, message = error.code(), error.details() or ""
    details = _read_details(error)
    advice = if_unknown if code in _AWAY else ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = f"no answer from {connection.address} within {connection.timeout_seconds:g} s."
    elif code is grpc.StatusCode.UNAVAILABLE and details is None:
        if _NOT_CONNECTED.search(message):
            advice = ""  # the call was never sent
        message = f"{connection.address} cannot be reached: {_cause(message, connection)}"
    failure = Failure(
        code.name,
        message,
        ExitCode.UNAVAILABLE if code in _AWAY else ExitCode.REFUSED,
        advice=advice,
        request_id=request_id if code in _LOOK_INTO_LOGS else "",
    )
    if details is not None:
        _add_details(failure, details)
    return failure


def _cause(message: str, connection: Connection) -> str:
    """Why there is no connection, in words."""
    match = _LAST_ERROR.fullmatch(message)
    cause = match["cause"] if match else message
    for wording, meaning in _CAUSES:
        if wording in cause:
            return meaning
    if "Socket closed" in cause:
        if connection.tls is None:
            return "it closed the connection. If it speaks TLS: --tls-ca or --tls."
        return "it closed the connection. It may want a client certificate: --tls-client-cert."
    return cause


def _read_details(error: grpc.Call) -> Status | None:
    """The `google.rpc.Status` that came with an error."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                return None
    return None


def _add_details(failure: Failure, status: Status) -> None:
    """Put into a failure what the service says about it."""
    for detail in status.details:
        info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
        try:
            if detail.Unpack(info):
                failure.reason, failure.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad_request):
                failure.violations = tuple((each.field, each.description) for each in bad_request.field_violations)
            elif detail.Unpack(retry):
                failure.retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
        except DecodeError:
            continue
