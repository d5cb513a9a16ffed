"""The errors of the library: no judgement was made, or no change.

A refusal of a key is not among them: see ``Verdict``.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import grpc

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class ConfigurationError(ValueError):
    """A client cannot be made of the arguments and environment variables that it was given; names the one to change."""


class KeysvcError(Exception):
    """A call that was not carried out. No message and no attribute holds a key string.

    Parameters:
        message: one sentence for people, most often the service's. Its wording may change.
        code: the gRPC status.
        reason: the service's word for programs, such as ``ETAG_MISMATCH``; empty: the service was not reached.
        metadata: what else the service says for programs, such as ``key_id``.
        violations: with `InvalidArgument`, every bad field: its path in the request, and what is allowed there.
        retry_after_seconds: after how long it may be worth while to try again; None: waiting does not help.
        request_id: under which the service's log knows the call (``x-request-id``).
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: Mapping[str, str] = NOTHING,
        violations: Mapping[str, str] = NOTHING,
        retry_after_seconds: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata)
        self.violations = dict(violations)
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id

    def __str__(self) -> str:
        """Status, message and request id: all that is worth while in a log."""
        return f"{self.code.name}: {self.message} (request {self.request_id})"

    def __repr__(self) -> str:
        """The same, with the name of the class."""
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Make it possible to hand the error to another process, as pools of processes do."""
        fields = {name: value for name, value in vars(self).items() if name != "message"}
        return partial(type(self), self.message, **fields), ()


class InvalidArgument(KeysvcError):
    """The request has bad fields: see ``violations``."""


class Unauthenticated(KeysvcError):
    """The service does not know the caller: its own API key or certificate is not good."""


class PermissionDenied(KeysvcError):
    """The caller lacks a permission, or would grant what it does not hold."""


class NotFound(KeysvcError):
    """There is no such thing, or the caller may not know of it."""


class AlreadyExists(KeysvcError):
    """The name is taken."""


class Aborted(KeysvcError):
    """Somebody else has changed it since the etag was read: read it again."""


class FailedPrecondition(KeysvcError):
    """The state of the thing does not allow the change."""


class ResourceExhausted(KeysvcError):
    """The key limit of a workspace is reached, a message is too large, or the service has too much to do."""


class Unimplemented(KeysvcError):
    """The contract has it, this version of the service does not."""


class Unavailable(KeysvcError):
    """The service cannot be reached, or cannot answer for now. Of a change nobody knows then whether it happened."""


class DeadlineExceeded(Unavailable):
    """There was no answer in time."""


class Internal(KeysvcError):
    """A fault of the service: its log knows more, under the request id."""


CLASSES: Final[Mapping[grpc.StatusCode, type[KeysvcError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,  # by a server that stops: whoever cancels a call here gets no error of ours
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: Internal,
    grpc.StatusCode.UNKNOWN: Internal,
}
"""The error of each status; of any other ``KeysvcError`` itself."""
