"""Messages of Verify."""

from functools import lru_cache
from typing import Final

from keysvc.core.address import parse_address
from keysvc.core.keystring import KeyString
from keysvc.core.revision import Revision
from keysvc.core.scope import SCOPES_MAX, parse_scope
from keysvc.core.usage import LABEL_CHARACTERS_MAX
from keysvc.core.verdict import About, Presentation, Profile, Record, Verdict
from keysvc.core.workspace import parse_workspace_name
from keysvc.rpc.fields import GOOD, Fields
from keysvc.rpc.translate.keys import ENVIRONMENTS, read_environment
from keysvc.rpc.translate.times import timestamp
from keysvc.service.verifying import Answer, Basis
from keysvc.v1 import verify_pb2

BATCH_MAX: Final = 1000
BATCH_SCOPES_MAX: Final = 10_000

VERDICTS: Final = {verdict: verify_pb2.Verdict.Value(f"VERDICT_{verdict.name}") for verdict in Verdict}
_BASES: Final = {
    Basis.MEMORY: verify_pb2.BASIS_MEMORY,
    Basis.DATABASE: verify_pb2.BASIS_DATABASE,
    Basis.STALE: verify_pb2.BASIS_STALE,
}
_MESSAGES: Final = {
    Verdict.VALID: "the key is valid",
    Verdict.MALFORMED: "the text is no key string of this deployment",
    Verdict.NOT_FOUND: "there is no such key",
    Verdict.WORKSPACE_MISMATCH: "the key is of another workspace",
    Verdict.ENVIRONMENT_MISMATCH: "the key is of the other environment",
    Verdict.REVOKING: "the key or its secret is revoked, which not everybody may know yet",
    Verdict.REVOKED: "the key or its secret is revoked",
    Verdict.SUSPENDED: "the key is suspended",
    Verdict.WORKSPACE_SUSPENDED: "the workspace is suspended",
    Verdict.EXPIRED: "the key has expired or its secret has retired",
    Verdict.IP_NOT_ALLOWED: "the key may not be used from this address, or no address was told",
    Verdict.INSUFFICIENT_SCOPE: "the key does not grant all required scopes",
}


def read_verify(request: verify_pb2.VerifyRequest) -> Presentation:
    """What was presented and what is asked for."""
    try:
        return _read_presentation(GOOD, request)
    except ValueError:
        fields = Fields()
        presentation = _read_presentation(fields, request)
        fields.done()
        return presentation


def read_verify_batch(request: verify_pb2.VerifyBatchRequest) -> list[Presentation]:
    """As ``read_verify``, for each."""
    fields = Fields()
    if not 1 <= len(request.requests) <= BATCH_MAX:
        fields.bad("requests", f"must have 1 to {BATCH_MAX} items")
        fields.done()
    if sum(len(each.required_scopes) for each in request.requests) > BATCH_SCOPES_MAX:
        fields.bad("requests", f"must have at most {BATCH_SCOPES_MAX} required_scopes together")
        fields.done()
    presentations = [
        _read_presentation(Fields(f"requests[{index}].", fields.violations), each)
        for index, each in enumerate(request.requests)
    ]
    fields.done()
    return presentations


def _read_presentation(fields: Fields, request: verify_pb2.VerifyRequest) -> Presentation:
    # Not used before usage is counted, but a bad value should not lie in wait until then.
    if request.resource:
        fields.text("resource", request.resource, characters_max=LABEL_CHARACTERS_MAX)
    if request.request_id:
        fields.text("request_id", request.request_id, characters_max=LABEL_CHARACTERS_MAX)
    scopes = request.required_scopes
    level = request.consistency.WhichOneof("level") if request.HasField("consistency") else None
    return Presentation(
        KeyString(request.key_string),
        fields.optional("workspace", request.workspace, _parse_workspace_name),
        read_environment(fields, request.environment),
        fields.each("required_scopes", scopes, _parse_scope, SCOPES_MAX) if scopes else (),
        fields.optional("source_ip", request.source_ip, _parse_address),
        _read_at_least(fields, request.consistency) if level == "at_least" else None,
        level == "strong",
    )


# Remembered, since the same few come with every request.
_parse_workspace_name = lru_cache(maxsize=4096)(parse_workspace_name)
_parse_scope = lru_cache(maxsize=4096)(parse_scope)
_parse_address = lru_cache(maxsize=4096)(parse_address)


def _read_at_least(fields: Fields, consistency: verify_pb2.Consistency) -> Revision | None:
    return fields.read("consistency.at_least", consistency.at_least, Revision.parse, None)


def describe(about: About) -> bytes:
    """What answers tell of a key and a secret, on the wire."""
    return verify_pb2.VerifyResponse(
        key_id=about.key_id,
        secret_id=about.secret_id,
        workspace=about.workspace,
        environment=ENVIRONMENTS[about.environment],
        owner=about.owner,
        role=about.role,
        metadata=about.metadata,
        expire_time=timestamp(about.expire_time),
        retire_time=timestamp(about.retire_time),
    ).SerializeToString()


class Answers:
    """Writes answers, from pieces that are ready.

    Messages that are written one behind the other are one message to whoever reads them. So what answers tell of a key
    is written when it is read, and what is the same in all answers once for each revision.

    Parameters:
        holder: that answers, as operators know it.
    """

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._revision: Revision | None = None
        self._ends: dict[tuple[Verdict, Basis], bytes] = {}

    def write(self, answer: Answer) -> bytes:
        """An answer, on the wire. Without a proved secret it says nothing of any key."""
        verdict, record, missing_scopes, revision, basis, _ = answer
        end = self.end(verdict, basis, revision)
        if record is None:
            return end
        if missing_scopes:
            end += verify_pb2.VerifyResponse(missing_scopes=missing_scopes).SerializeToString()
        return self.head(record) + end

    def head(self, record: Record) -> bytes:
        """What an answer tells of a key."""
        return record.about + _scopes(record.profile)

    def end(self, verdict: Verdict, basis: Basis, revision: Revision | None) -> bytes:
        """What follows that, and is the same for all keys."""
        if revision is not self._revision:
            if basis is Basis.DATABASE:
                return self._end(verdict, basis, revision)
            self._revision, self._ends = revision, {}
        end = self._ends.get((verdict, basis))
        if end is None:
            end = self._ends[verdict, basis] = self._end(verdict, basis, revision)
        return end

    def _end(self, verdict: Verdict, basis: Basis, revision: Revision | None) -> bytes:
        message = verify_pb2.VerifyResponse(verdict=VERDICTS[verdict], message=_MESSAGES[verdict], holder=self._holder)
        if revision is not None:
            message.revision = str(revision)
            message.basis = _BASES[basis]
        return message.SerializeToString()


@lru_cache(maxsize=4096)
def _scopes(profile: Profile) -> bytes:
    """The effective scopes, on the wire."""
    return verify_pb2.VerifyResponse(scopes=profile.effective_scopes).SerializeToString()
