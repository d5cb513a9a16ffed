"""What a command says when it cannot do its work, and the exit codes."""

from collections.abc import Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ends."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    NOT_VALID = 3
    UNAVAILABLE = 4
    INTERRUPTED = 130


class Failure(Exception):  # noqa: N818 (a refusal by the service is no error of this program)
    """Ends a command, or one step of it.

    Parameters:
        code: name of the gRPC status, or `USAGE` or `INPUT` when the service was not asked.
        message: what is wrong, in one sentence or two; may come from the service.
        reason: the service's word for programs.
        metadata: what else the service says for programs.
        violations: bad fields: path in the request, and what is allowed there.
        retry_seconds: after which time the service wants to be asked again.
        advice: what to do now.
        request_id: under which the service's logs know the call.
    """

    def __init__(
        self,
        code: str,
        message: str,
        exit_code: ExitCode = ExitCode.REFUSED,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: tuple[tuple[str, str], ...] = (),
        retry_seconds: float | None = None,
        advice: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.exit_code = exit_code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_seconds = retry_seconds
        self.advice = advice
        self.request_id = request_id

    @classmethod
    def usage(cls, message: str) -> "Failure":
        """What was typed or set makes no sense."""
        return cls("USAGE", message, ExitCode.USAGE)

    @classmethod
    def input(cls, message: str) -> "Failure":
        """What was read makes no sense."""
        return cls("INPUT", message, ExitCode.REFUSED)

    @property
    def local(self) -> bool:
        """The service had no part in it."""
        return self.code in {"USAGE", "INPUT"}
