"""What Verify answers, and what it is asked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from google.protobuf.empty_pb2 import Empty

from keysvc.v1 import key_pb2, verify_pb2
from keysvc_client.values import Environment, EnvironmentWord, environment_value, several, to_datetime

KEY_STRING_CHARACTERS_MAX: Final = 65_536
"""Of what is sent: more would be refused as a message, without a verdict. No key string is nearly as long."""


class Verdict(StrEnum):
    """The answer to one presentation, in the order of judgement: the first that applies is given.

    Only `VALID` means: serve the request. An end user should see `http_status` alone; the verdict is for logs.
    """

    VALID = auto()
    MALFORMED = auto()
    NOT_FOUND = auto()
    WORKSPACE_MISMATCH = auto()
    ENVIRONMENT_MISMATCH = auto()
    REVOKING = auto()
    REVOKED = auto()
    SUSPENDED = auto()
    WORKSPACE_SUSPENDED = auto()
    EXPIRED = auto()
    IP_NOT_ALLOWED = auto()
    INSUFFICIENT_SCOPE = auto()
    RATE_LIMITED = auto()
    QUOTA_EXCEEDED = auto()
    UNKNOWN = auto()
    """A refusal for a reason that is newer than this library."""

    @property
    def http_status(self) -> int:
        """What a service should answer its own user: 200, 401, 403 or 429."""
        return _HTTP_STATUS[self]


_HTTP_STATUS: Final[Mapping[Verdict, int]] = {
    Verdict.VALID: 200,
    Verdict.MALFORMED: 401,
    Verdict.NOT_FOUND: 401,
    Verdict.WORKSPACE_MISMATCH: 401,
    Verdict.ENVIRONMENT_MISMATCH: 401,
    Verdict.REVOKING: 401,
    Verdict.REVOKED: 401,
    Verdict.SUSPENDED: 401,
    Verdict.WORKSPACE_SUSPENDED: 401,
    Verdict.EXPIRED: 401,
    Verdict.UNKNOWN: 401,
    Verdict.IP_NOT_ALLOWED: 403,
    Verdict.INSUFFICIENT_SCOPE: 403,
    Verdict.RATE_LIMITED: 429,
    Verdict.QUOTA_EXCEEDED: 429,
}


class Basis(StrEnum):
    """Where an answer came from."""

    MEMORY = auto()
    """From memory, under a valid lease."""
    DATABASE = auto()
    """Read from the database during the call."""
    STALE = auto()
    """From memory after the lease, within the bound that the operator allowed for an outage."""


class Consistency(StrEnum):
    """How fresh the state must be that an answer is judged on; see also `AtLeast`."""

    LEASED = auto()
    """Includes every change that returned a complete receipt before the call began; the default."""
    STRONG = auto()
    """Read from the database during the call."""


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Includes at least the change with this revision, of a receipt or an earlier answer."""

    revision: str


Freshness: TypeAlias = Consistency | Literal["leased", "strong"] | AtLeast


@dataclass(frozen=True, slots=True)
class Presentation:
    """A key string, and what is asked about it; the arguments are those of `verify`."""

    key_string: str = field(repr=False)
    workspace: str | None = None
    environment: EnvironmentWord | None = None
    required_scopes: Iterable[str] = ()
    source_ip: str | None = None
    resource: str | None = None
    request_id: str | None = None
    consistency: Freshness | None = None

    def to_request(self) -> verify_pb2.VerifyRequest:
        """The request that asks this.

        Raises:
            TypeError, ValueError: an argument cannot be sent; the key string is not in the message.
        """
        return verify_pb2.VerifyRequest(
            key_string=_sendable(self.key_string),
            workspace=self.workspace or "",
            environment=environment_value(self.environment),
            required_scopes=several("required_scopes", self.required_scopes),
            source_ip=self.source_ip or "",
            resource=self.resource or "",
            request_id=self.request_id or "",
            consistency=_consistency(self.consistency),
        )


def _sendable(key_string: str) -> str:
    """A presented text, as a message can carry it. What has to be changed for that was no key string, and is none."""
    if not isinstance(key_string, str):
        raise TypeError("key_string must be a str")
    return key_string[:KEY_STRING_CHARACTERS_MAX].encode("utf-8", "replace").decode()


def _consistency(choice: Freshness | None) -> verify_pb2.Consistency | None:
    if choice is None:
        return None
    if isinstance(choice, AtLeast):
        return verify_pb2.Consistency(at_least=choice.revision)
    try:
        is_strong = Consistency(choice) is Consistency.STRONG
    except ValueError:
        raise ValueError("consistency must be leased, strong or AtLeast(revision)") from None
    return verify_pb2.Consistency(strong=Empty()) if is_strong else verify_pb2.Consistency(leased=Empty())


@dataclass(frozen=True, slots=True)
class Verification:
    """The verdict on one presentation, and whom the key stands for.

    True if and only if it is valid. Nothing but verdict, basis, revision, message and holder is told to somebody who
    has not proved the secret (`MALFORMED`, `NOT_FOUND`); everything else is empty then.

    Parameters:
        verdict: serve the request if and only if this is `VALID`.
        basis: where the answer came from; None: no record of a key was needed.
        key_id, secret_id: the key, and which secret of it was presented.
        workspace, environment, owner: of the key.
        scopes: what is granted in effect: plain ones and patterns such as `pdf.*`.
        role: of the key.
        metadata: of the key; it cannot be changed.
        missing_scopes: with `INSUFFICIENT_SCOPE`, the required scopes that are not granted.
        expire_time: when the key expires; None: never.
        retire_time: when the presented secret retires, so that its holder should move on before; None: it does not.
        revision: that the answer is true at; opaque.
        message: one sentence for the log. Its wording may change.
        holder: the process that answered, for operators.
    """

    verdict: Verdict
    basis: Basis | None = None
    key_id: str = ""
    secret_id: str = ""
    workspace: str = ""
    environment: Environment | None = None
    owner: str = ""
    scopes: tuple[str, ...] = ()
    role: str = ""
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    missing_scopes: tuple[str, ...] = ()
    expire_time: datetime | None = None
    retire_time: datetime | None = None
    revision: str = ""
    message: str = ""
    holder: str = ""

    @property
    def valid(self) -> bool:
        """Serve the request."""
        return self.verdict is Verdict.VALID

    def __bool__(self) -> bool:
        """The same as `valid`, so that `if client.verify(…)` does not serve everybody."""
        return self.valid

    @classmethod
    def of(cls, answer: verify_pb2.VerifyResponse) -> "Verification":
        """Read an answer. What this library does not know of it is no reason to serve a request."""
        return cls(
            verdict=_VERDICTS.get(answer.verdict, Verdict.UNKNOWN),
            basis=_BASES.get(answer.basis),
            key_id=answer.key_id,
            secret_id=answer.secret_id,
            workspace=answer.workspace,
            environment=_ENVIRONMENTS.get(answer.environment),
            owner=answer.owner,
            scopes=tuple(answer.scopes),
            role=answer.role,
            metadata=MappingProxyType(dict(answer.metadata)),
            missing_scopes=tuple(answer.missing_scopes),
            expire_time=to_datetime(answer.expire_time) if answer.HasField("expire_time") else None,
            retire_time=to_datetime(answer.retire_time) if answer.HasField("retire_time") else None,
            revision=answer.revision,
            message=answer.message,
            holder=answer.holder,
        )


# The members of the contract that the library knows, by number.
_VERDICTS: Final[Mapping[int, Verdict]] = {
    verify_pb2.Verdict.Value(f"VERDICT_{each.name}"): each for each in Verdict if each is not Verdict.UNKNOWN
}
_BASES: Final[Mapping[int, Basis]] = {verify_pb2.Basis.Value(f"BASIS_{each.name}"): each for each in Basis}
_ENVIRONMENTS: Final[Mapping[int, Environment]] = {
    key_pb2.Environment.Value(f"ENVIRONMENT_{each.name}"): each for each in Environment
}
