"""The tables between contract and code: nothing is in one and missing in the other."""

import inspect
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.descriptor import EnumDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from keysvc.core import errors
from keysvc.core.errors import InvalidArgument, KeysvcError, Violation
from keysvc.core.key import Key, Revocation, Secret, State
from keysvc.core.keystring import Environment
from keysvc.core.permission import Permission
from keysvc.core.receipt import Path as ReceiptPath
from keysvc.core.receipt import Receipt
from keysvc.core.revision import Revision
from keysvc.core.verdict import Verdict
from keysvc.rpc import servicers
from keysvc.rpc.permissions import PERMISSIONS
from keysvc.rpc.server import CONTRACT
from keysvc.rpc.status import CODES, INTERNAL_MESSAGE, code_of, status_of
from keysvc.rpc.translate.keys import key_message
from keysvc.rpc.translate.receipts import receipt_message
from keysvc.rpc.translate.verify import Answers
from keysvc.service.verifying import Answer, Basis
from keysvc.v1 import key_pb2, receipt_pb2, verify_pb2
from tests.records import record

PROTOS = Path(__file__).parents[2] / "protos" / "keysvc" / "v1"

AT = datetime(2026, 5, 17, 12, 0, tzinfo=UTC)
REVISION = Revision(UUID(int=2), 7)
RECEIPTS = [Receipt(REVISION, path, 0) for path in (None, *ReceiptPath)]

METHODS = {
    f"{method.containing_service.full_name}/{method.name}": method for each in CONTRACT for method in each.methods
}
SERVICERS: dict[str, type] = {
    each.name: getattr(servicers, each.name.replace("Service", "Servicer")) for each in CONTRACT
}

CODE_OF_REASON = {
    "INVALID_ARGUMENT": "INVALID_ARGUMENT",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "NOT_FOUND": "NOT_FOUND",
    "ALREADY_EXISTS": "ALREADY_EXISTS",
    "ETAG_MISMATCH": "ABORTED",
    "FAILED_PRECONDITION": "FAILED_PRECONDITION",
    "LIMIT_REACHED": "RESOURCE_EXHAUSTED",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "UNAVAILABLE": "UNAVAILABLE",
    "NOT_BUILT": "UNIMPLEMENTED",
}
"""As the contract says it."""


def family(parent: type[KeysvcError] = KeysvcError) -> Iterator[type[KeysvcError]]:
    """All errors below one."""
    for child in parent.__subclasses__():
        yield child
        yield from family(child)


def comment_above(path: str, line: str) -> str:
    """The comment above the one line of a .proto file that matches, its lines joined; raises if there is none."""
    found = []
    comment: list[str] = []
    for each in (PROTOS / path).read_text(encoding="utf-8").splitlines():
        text = each.strip()
        if text.startswith("//"):
            comment.append(text.removeprefix("//").strip())
            continue
        if re.match(line, text):
            found.append(" ".join(comment))
        comment = []
    (only,) = found
    return only


def comment_of(method: MethodDescriptor) -> str:
    """What the contract says of a method."""
    return comment_above(Path(method.containing_service.file.name).name, rf"rpc {method.name}\(")


def comment_of_value(enum: EnumDescriptor, name: str) -> str:
    """What the contract says of a value of an enumeration; names are looked for within the enumeration."""
    path = Path(enum.file.name).name
    text = (PROTOS / path).read_text(encoding="utf-8")
    body = re.split(rf"\benum {enum.name} {{", text, maxsplit=1)[1].partition("}")[0]
    lines = body.partition(f"{name} = ")[0].splitlines()[:-1]
    comment: list[str] = []
    while lines and (line := lines.pop().strip()).startswith("//"):
        comment.insert(0, line.removeprefix("//").strip())
    return " ".join(comment)


def is_built(method: MethodDescriptor) -> bool:
    """Whether a servicer answers a method."""
    return hasattr(SERVICERS[method.containing_service.name], method.name)


def details_of(status: status_pb2.Status) -> dict[str, Any]:
    """The details by the name of their message, each of which is there once."""
    types = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    details = {}
    for packed in status.details:
        (message,) = [message for each in types if packed.Unpack(message := each())]
        assert message.DESCRIPTOR.name not in details
        details[message.DESCRIPTOR.name] = message
    return details


def example(error: type[KeysvcError]) -> KeysvcError:
    """An error of a class."""
    if error is InvalidArgument:
        return InvalidArgument([Violation("scopes[1]", "must be a scope"), Violation("ttl", "must be more than 0")])
    return error("a sentence", key_id="a", permission=Permission.VERIFY)


def test_every_method_of_the_contract_has_a_permission() -> None:
    """Deny by default: a method that is forgotten fails here, and a permission without method is a leftover."""
    assert PERMISSIONS.keys() == METHODS.keys()
    assert len(METHODS) == sum(len(service.methods) for service in CONTRACT) >= 26


@pytest.mark.parametrize("name", METHODS)
def test_the_contract_names_the_permission_that_is_checked(name: str) -> None:
    """What the comment of a method promises is what its callers need."""
    assert re.findall(r"Permission `([a-z.]+)`", comment_of(METHODS[name])) == [PERMISSIONS[name]]


def test_every_service_of_the_contract_is_served() -> None:
    """All services of the .proto files are in the server's contract."""
    declared = {
        (path.name, name)
        for path in PROTOS.glob("*.proto")
        for name in re.findall(r"^service (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {(Path(service.file.name).name, service.name) for service in CONTRACT} == declared


@pytest.mark.parametrize("service", SERVICERS)
def test_a_servicer_has_no_method_that_the_contract_lacks(service: str) -> None:
    """A misspelt or removed method would never be called, and nobody would notice."""
    public = {name for name in vars(SERVICERS[service]) if not name.startswith("_")}
    (descriptor,) = [each for each in CONTRACT if each.name == service]
    assert public <= {method.name for method in descriptor.methods}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if is_built(method)])
def test_a_handler_takes_and_answers_the_messages_of_its_method(name: str) -> None:
    """A handler gets what the contract says, and says that it answers what the contract says; Verify, on the wire."""
    method = METHODS[name]
    handler = getattr(SERVICERS[method.containing_service.name], method.name)
    assert not method.client_streaming
    signature = inspect.signature(handler)
    assert signature.parameters["request"].annotation is GetMessageClass(method.input_type)
    on_the_wire = name == "keysvc.v1.KeyService/Verify"
    answers = bytes if on_the_wire else GetMessageClass(method.output_type)
    if method.server_streaming:
        assert inspect.isasyncgenfunction(handler)
        assert signature.return_annotation == AsyncIterator[answers]
    else:
        assert inspect.iscoroutinefunction(handler)
        assert signature.return_annotation is answers


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_built_says_so(name: str) -> None:
    """The comment of a method says "Not built yet" if and only if nothing answers it."""
    assert ("Not built yet: UNIMPLEMENTED." in comment_of(METHODS[name])) == (not is_built(METHODS[name]))


def test_some_methods_are_built_and_the_comments_are_found() -> None:
    """The two tests above look at something."""
    assert is_built(METHODS["keysvc.v1.KeyService/Verify"])
    assert comment_of(METHODS["keysvc.v1.KeyService/Get"]).startswith("Gets one key. Permission")


def test_every_error_has_a_code() -> None:
    """An error that is forgotten would be told as INTERNAL; a code without error is a leftover."""
    assert CODES.keys() == set(family())
    assert {error.reason: code.name for error, code in CODES.items()} == CODE_OF_REASON


@pytest.mark.parametrize("error", [*family()], ids=lambda error: error.__name__)
def test_a_status_has_the_documented_details(error: type[KeysvcError]) -> None:
    """ErrorInfo always; BadRequest naming every bad field, RetryInfo where waiting helps, and nowhere else."""
    status, details = status_of(example(error)), details_of(status_of(example(error)))
    assert code_of(example(error)) is CODES[error]
    assert status.code == CODES[error].value[0]
    info = details.pop("ErrorInfo")
    assert (info.domain, info.reason) == ("keysvc", error.reason)
    assert re.fullmatch(r"[A-Z][A-Z0-9_]*[A-Z0-9]", info.reason)
    if error is InvalidArgument:
        assert status.message == "scopes[1]: must be a scope; ttl: must be more than 0"
        assert [(each.field, each.description) for each in details.pop("BadRequest").field_violations] == [
            ("scopes[1]", "must be a scope"),
            ("ttl", "must be more than 0"),
        ]
    else:
        assert status.message == "a sentence"
        assert dict(info.metadata) == {"key_id": "a", "permission": "verify"}
    if error in {errors.Overloaded, errors.Unavailable}:
        assert details.pop("RetryInfo").retry_delay.ToMilliseconds() == 1000
    assert details == {}


def test_so_many_bad_fields_are_named_as_a_client_takes() -> None:
    """The first ones, in order: a status that gRPC clients refuse would hide all of them, and the code."""
    violations = [Violation(f"requests[{index}].source_ip", "must be an address") for index in range(1000)]
    status = status_of(InvalidArgument(violations))
    named = [(each.field, each.description) for each in details_of(status)["BadRequest"].field_violations]
    assert len(named) > 30
    assert named == [(each.field, each.description) for each in violations[: len(named)]]
    assert len(status.message) + len(b64encode(status.SerializeToString())) < 8192 - 512


@pytest.mark.parametrize(
    "error",
    [
        ValueError("SELECT digest FROM secret"),
        RuntimeError("sk_live_1065eoDiDgza8qaZ"),
        KeyError("secret_pkey"),
        ExceptionGroup("a group", [ValueError("inner")]),
        grpc.RpcError("upstream"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nothing_is_told_of_an_unknown_error(error: Exception) -> None:
    """INTERNAL, one sentence that is always the same, and not a word of the error, its type or its place."""
    status = status_of(error)
    assert code_of(error) is grpc.StatusCode.INTERNAL
    assert (status.code, status.message) == (13, INTERNAL_MESSAGE)
    info = details_of(status).pop("ErrorInfo")
    assert (info.domain, info.reason, dict(info.metadata)) == ("keysvc", "INTERNAL", {})
    assert status.SerializeToString() == status_of(Exception()).SerializeToString()


def keys() -> Iterator[Key]:
    """Keys in every combination of what their state depends on, each with a secret in every combination of its own."""
    revocations, ends = (None, Revocation(AT, ""), Revocation(AT, "", final=False)), (None, AT)
    secrets = tuple(Secret("a", "b", AT, REVISION, end, each) for each, end in product(revocations, ends))
    for revocation, end, suspended in product(revocations, ends, (False, True)):
        yield Key(
            id=UUID(int=1),
            workspace="acme-corp/sales",
            display_name="a key",
            environment=Environment.LIVE,
            creator="bootstrap",
            create_time=AT,
            update_time=AT,
            at=AT,
            revision=REVISION,
            expire_time=end,
            suspended=suspended,
            revocation=revocation,
            secrets=secrets,
        )


def answer_message(answer: Answer) -> verify_pb2.VerifyResponse:
    """An answer as callers read it."""
    return verify_pb2.VerifyResponse.FromString(Answers("host/1").write(answer))


def sent_verdicts() -> set[str]:
    """Every verdict that can be answered."""
    return {verify_pb2.Verdict.Name(answer_message(Answer(verdict)).verdict) for verdict in Verdict}


def sent_bases() -> set[str]:
    """Every basis that can be answered: with a key, without one, without a look."""
    answers = (
        *(Answer(Verdict.VALID, record(), revision=REVISION, basis=basis) for basis in Basis),
        Answer(Verdict.NOT_FOUND, revision=REVISION),
        Answer(Verdict.MALFORMED),
    )
    return {verify_pb2.Basis.Name(answer_message(answer).basis) for answer in answers}


def sent_states() -> set[str]:
    """Every state of a key or secret that can be answered."""
    messages = [message for key in map(key_message, keys()) for message in (key, *key.secrets)]
    return {key_pb2.Key.State.Name(message.state) for message in messages}


def sent_receipt_states() -> set[str]:
    """Every state of a receipt that can be answered."""
    return {receipt_pb2.Receipt.State.Name(receipt_message(receipt).state) for receipt in RECEIPTS}


def sent_receipt_paths() -> set[str]:
    """Every path of a receipt that can be answered."""
    return {receipt_pb2.Receipt.Path.Name(receipt_message(receipt).path) for receipt in RECEIPTS}


@pytest.mark.parametrize(
    ("enum", "sent"),
    [
        (verify_pb2.Verdict.DESCRIPTOR, sent_verdicts),
        (verify_pb2.Basis.DESCRIPTOR, sent_bases),
        (key_pb2.Key.State.DESCRIPTOR, sent_states),
        (receipt_pb2.Receipt.State.DESCRIPTOR, sent_receipt_states),
        (receipt_pb2.Receipt.Path.DESCRIPTOR, sent_receipt_paths),
    ],
    ids=lambda value: value.full_name if isinstance(value, EnumDescriptor) else "",
)
def test_what_is_never_sent_says_so(enum: EnumDescriptor, sent: Callable[[], set[str]]) -> None:
    """A value that no answer can have today is marked "Not sent yet" in the contract, and no other one is."""
    marked = {value.name for value in enum.values if "Not sent yet" in comment_of_value(enum, value.name)}
    named = {value.name for value in enum.values if value.number}
    assert marked == named - sent()


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_told_in_the_contract_s_words(verdict: Verdict) -> None:
    """Each verdict has its value of the same name, a sentence of its own, and an HTTP status in its comment."""
    message = answer_message(Answer(verdict))
    assert verify_pb2.Verdict.Name(message.verdict) == f"VERDICT_{verdict.name}"
    assert message.message
    assert [other for other in Verdict if answer_message(Answer(other)).message == message.message] == [verdict]
    assert re.search(
        r"HTTP (200|401|403|429)\.", comment_of_value(verify_pb2.Verdict.DESCRIPTOR, f"VERDICT_{verdict.name}")
    )


def test_verdicts_of_the_contract_are_in_the_order_of_judgement() -> None:
    """Numbers of the contract and the enumeration of core are in one order."""
    in_contract = [value.name.removeprefix("VERDICT_") for value in verify_pb2.Verdict.DESCRIPTOR.values]
    assert [name for name in in_contract if name in Verdict.__members__] == list(Verdict.__members__)


@pytest.mark.parametrize(
    ("http", "first", "last"),
    [
        (200, "VERDICT_VALID", "VERDICT_VALID"),
        (401, "VERDICT_MALFORMED", "VERDICT_EXPIRED"),
        (403, "VERDICT_IP_NOT_ALLOWED", "VERDICT_INSUFFICIENT_SCOPE"),
        (429, "VERDICT_RATE_LIMITED", "VERDICT_QUOTA_EXCEEDED"),
    ],
)
def test_each_verdict_documents_its_http_status(http: int, first: str, last: str) -> None:
    """401 up to EXPIRED, 403 for address and scope, 429 for limits."""
    enum = verify_pb2.Verdict.DESCRIPTOR
    documented = [value.number for value in enum.values if f"HTTP {http}." in comment_of_value(enum, value.name)]
    assert documented == [*range(verify_pb2.Verdict.Value(first), verify_pb2.Verdict.Value(last) + 1)]


def test_without_proof_nothing_is_told_of_a_key() -> None:
    """To MALFORMED and NOT_FOUND belong verdict, revision, basis, message and holder alone."""
    for answer in (Answer(Verdict.MALFORMED), Answer(Verdict.NOT_FOUND, revision=REVISION)):
        told = {field.name for field, _ in answer_message(answer).ListFields()}
        assert told <= {"verdict", "revision", "basis", "message", "holder"}


def test_every_state_and_environment_of_core_has_its_name_in_the_contract() -> None:
    """What core can say can be told."""
    assert {f"STATE_{state.name}" for state in State} <= set(key_pb2.Key.State.keys())
    environments = {f"ENVIRONMENT_{environment.name}" for environment in Environment}
    assert environments | {"ENVIRONMENT_UNSPECIFIED"} == set(key_pb2.Environment.keys())


def test_a_complete_receipt_tells_how_that_became_certain() -> None:
    """COMPLETE, the path, what was waited, and the revision of the change; no time by which it will be true."""
    receipt = receipt_message(Receipt(REVISION, ReceiptPath.TIMER, 3.65, unacknowledged=("a",)))
    assert receipt_pb2.Receipt.State.Name(receipt.state) == "STATE_COMPLETE"
    assert receipt_pb2.Receipt.Path.Name(receipt.path) == "PATH_TIMER"
    assert receipt.waited.ToMilliseconds() == 3650
    assert receipt.revision == str(REVISION)
    assert not receipt.HasField("effective_by")
    assert receipt.unacknowledged == ["a"]


def test_a_pending_receipt_says_by_when_it_will_be_true() -> None:
    """PENDING, no path, and the time."""
    receipt = receipt_message(Receipt(REVISION, None, 0, effective_by=AT))
    assert receipt_pb2.Receipt.State.Name(receipt.state) == "STATE_PENDING"
    assert receipt_pb2.Receipt.Path.Name(receipt.path) == "PATH_UNSPECIFIED"
    assert receipt.effective_by.ToDatetime(UTC) == AT
