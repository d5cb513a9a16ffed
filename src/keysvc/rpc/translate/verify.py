"""Messages of Verify."""

from typing import Final

from keysvc.core.address import parse_address
from keysvc.core.keystring import KeyString
from keysvc.core.revision import Revision
from keysvc.core.scope import SCOPES_MAX, parse_scope
from keysvc.core.usage import LABEL_CHARACTERS_MAX
from keysvc.core.verdict import Presentation, Verdict
from keysvc.core.workspace import parse_workspace_name
from keysvc.rpc.fields import Fields
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
    fields.text("resource", request.resource, characters_max=LABEL_CHARACTERS_MAX)
    fields.text("request_id", request.request_id, characters_max=LABEL_CHARACTERS_MAX)
    return Presentation(
        KeyString(request.key_string),
        workspace=fields.optional("workspace", request.workspace, parse_workspace_name),
        environment=read_environment(fields, request.environment),
        required_scopes=fields.each("required_scopes", request.required_scopes, parse_scope, SCOPES_MAX),
        source_ip=fields.optional("source_ip", request.source_ip, parse_address),
        at_least=_read_at_least(fields, request.consistency),
        strong=request.consistency.WhichOneof("level") == "strong",
    )


def _read_at_least(fields: Fields, consistency: verify_pb2.Consistency) -> Revision | None:
    if consistency.WhichOneof("level") != "at_least":
        return None
    return fields.read("consistency.at_least", consistency.at_least, Revision.parse, None)


def answer_message(answer: Answer) -> verify_pb2.VerifyResponse:
    """An answer. Without a proved secret it says nothing of any key."""
    message = verify_pb2.VerifyResponse(verdict=VERDICTS[answer.verdict], message=_MESSAGES[answer.verdict])
    if answer.revision is not None:
        message.revision = str(answer.revision)
        message.basis = _BASES[answer.basis]
    record = answer.record
    if record is not None:
        message.MergeFrom(
            verify_pb2.VerifyResponse(
                key_id=str(record.key_id),
                secret_id=record.secret_id,
                workspace=record.workspace,
                environment=ENVIRONMENTS[record.environment],
                owner=record.owner,
                scopes=record.effective_scopes,
                role=record.role,
                metadata=record.metadata,
                missing_scopes=answer.missing_scopes,
                expire_time=timestamp(record.expire_time),
                retire_time=timestamp(record.retire_time),
            )
        )
    return message


def batch_message(answers: list[Answer]) -> verify_pb2.VerifyBatchResponse:
    """The answers to a batch."""
    return verify_pb2.VerifyBatchResponse(responses=map(answer_message, answers))
