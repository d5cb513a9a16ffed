"""The one error family: raised where no judgement or no change was made, turned into a gRPC status in one place.

A refusal of a key is not an error: see ``keysvc.core.verdict``.
"""

from dataclasses import dataclass
from typing import ClassVar


class KeysvcError(Exception):
    """A call that could not be carried out, in words that its caller may read.

    Parameters:
        message: one sentence for people; never SQL, key material or a name that the caller may not see.
        metadata: what a program may want to read of it (``google.rpc.ErrorInfo.metadata``).
    """

    reason: ClassVar[str]
    retry_after_seconds: ClassVar[float | None] = None
    """After how long it may be worth while to try again; None: waiting does not help."""

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path in the request, and what is allowed there."""

    field: str
    description: str


class Violations(list[Violation]):
    """Collects bad fields, so that a caller hears of all of them at once."""

    def add(self, field: str, description: str) -> None:
        """Remember that ``field`` is bad; ``description`` says what is allowed."""
        self.append(Violation(field, description))

    def raise_if_any(self) -> None:
        """Raise ``InvalidArgument`` with everything that was added."""
        if self:
            raise InvalidArgument(self)


class InvalidArgument(KeysvcError):
    """The request has bad fields."""

    reason = "INVALID_ARGUMENT"
    _told_max = 10

    def __init__(self, violations: list[Violation], message: str | None = None) -> None:
        told = [f"{each.field}: {each.description}" for each in violations[: self._told_max]]
        if len(violations) > self._told_max:
            told.append(f"and {len(violations) - self._told_max} more")
        super().__init__(message or "; ".join(told))
        self.violations = tuple(violations)


class Unauthenticated(KeysvcError):
    """The caller did not prove who it is."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(KeysvcError):
    """The caller lacks a permission, or would grant what it does not hold."""

    reason = "PERMISSION_DENIED"


class NotFound(KeysvcError):
    """There is no such thing, or the caller may not know of it."""

    reason = "NOT_FOUND"


class AlreadyExists(KeysvcError):
    """The name is taken."""

    reason = "ALREADY_EXISTS"


class EtagMismatch(KeysvcError):
    """The resource has changed since the caller read it."""

    reason = "ETAG_MISMATCH"


class FailedPrecondition(KeysvcError):
    """The state of the resource does not allow the change."""

    reason = "FAILED_PRECONDITION"


class LimitReached(KeysvcError):
    """A limit does not allow more: keys of a workspace."""

    reason = "LIMIT_REACHED"


class Overloaded(KeysvcError):
    """Too much work is waiting in this server; nothing was done."""

    reason = "OVERLOADED"
    retry_after_seconds = 1.0


class Unavailable(KeysvcError):
    """Nothing could be judged or decided for now.

    Of a change it is then unknown whether it happened; repeating the call settles that.
    """

    reason = "UNAVAILABLE"
    retry_after_seconds = 1.0


class NotBuilt(KeysvcError):
    """The contract has it, this version does not."""

    reason = "NOT_BUILT"
