"""Turns what gRPC raises into errors of the library."""

import re
from collections.abc import Iterable
from typing import Final, Protocol

import grpc

from keysvc.core.keystring import redact
from keysvc_client.details import read_details
from keysvc_client.errors import CLASSES, KeysvcError

_LAST_ERROR: Final = re.compile(r".*last error: [A-Z_]+: (?:[a-z0-9]+:\S+: )?(?P<cause>.*)", re.DOTALL)

_CAUSES: Final = (
    ("Connection refused", "nothing listens there"),
    ("resolv", "there is no host of this name"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted: name the authority that signed it, tls_ca"),
    ("Hostname Verification", "its certificate is for another name"),
    ("is not in peer certificate", "its certificate is for another name"),  # as older ones word it
    (
        "Socket closed",
        "it closed the connection; if it always does, it may want TLS (tls, tls_ca) or a certificate (tls_client_cert)",
    ),
)
"""How gRPC words what went wrong, and what that means here."""


class FailedCall(Protocol):
    """What gRPC raises, whichever of its two kinds of channel has made the call."""

    def code(self) -> grpc.StatusCode:
        """The status."""

    def details(self) -> str | None:
        """The message of the status."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """What came with it."""


def error_of(call: FailedCall, *, target: str, timeout: float, request_id: str) -> KeysvcError:
    """The error of a call.

    Parameters:
        call: what gRPC raised.
        target: where it was sent.
        timeout: its deadline, in seconds.
        request_id: of the call.
    """
    code = call.code()
    details = read_details(call.trailing_metadata() or ())
    message = call.details() or ""
    if not details.reason:
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = f"no answer from {target} within {timeout:g} s"
        elif code is grpc.StatusCode.UNAVAILABLE:
            message = f"{target} cannot be reached: {_cause(message)}"
        elif code is grpc.StatusCode.CANCELLED:
            message = f"{target} has ended the call, as a server does that stops"
    return CLASSES.get(code, KeysvcError)(
        redact(message),
        code=code,
        reason=details.reason,
        metadata=details.metadata,
        violations=details.violations,
        retry_after_seconds=details.retry_after_seconds,
        request_id=request_id,
    )


def _cause(message: str) -> str:
    """Why there is no connection, in words."""
    match = _LAST_ERROR.fullmatch(message)
    cause = match["cause"] if match else message
    return next((meaning for wording, meaning in _CAUSES if wording in cause), cause)
