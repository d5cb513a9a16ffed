"""What comes with an error, as ``google.rpc.Status`` in the trailing metadata.

The package that has these messages, googleapis-common-protos, is not needed for four of them: they are described here,
with the fields that are used. In a pool of their own, so that it does not matter whether that package is loaded too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as Detail
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

TRAILER: Final = "grpc-status-details-bin"
DOMAIN: Final = "keysvc"

_PACKAGE: Final = "google.rpc"
_TEXT: Final = FieldDescriptorProto.TYPE_STRING
_MESSAGE: Final = FieldDescriptorProto.TYPE_BYTES
"""On the wire a message within another is its bytes: they are parsed when they are wanted."""


def _repeated(name: str, number: int) -> FieldDescriptorProto:
    return FieldDescriptorProto(name=name, number=number, type=_MESSAGE, label=FieldDescriptorProto.LABEL_REPEATED)


def _one(name: str, number: int, kind: FieldDescriptorProto.Type.ValueType) -> FieldDescriptorProto:
    return FieldDescriptorProto(name=name, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)


_POOL: Final = DescriptorPool()
_POOL.Add(  # type: ignore[no-untyped-call]
    FileDescriptorProto(
        name="keysvc_client/details.proto",
        package=_PACKAGE,
        syntax="proto3",
        message_type=[
            DescriptorProto(
                name="Status",
                field=[
                    _one("code", 1, FieldDescriptorProto.TYPE_INT32),
                    _one("message", 2, _TEXT),
                    _repeated("details", 3),
                ],
            ),
            DescriptorProto(
                name="ErrorInfo", field=[_one("reason", 1, _TEXT), _one("domain", 2, _TEXT), _repeated("metadata", 3)]
            ),
            DescriptorProto(name="BadRequest", field=[_repeated("field_violations", 1)]),
            DescriptorProto(name="RetryInfo", field=[_one("retry_delay", 1, _MESSAGE)]),
            # An entry of a map and a violation of a field are alike: two texts.
            DescriptorProto(name="Pair", field=[_one("name", 1, _TEXT), _one("text", 2, _TEXT)]),
        ],
    )
)


def _class(name: str) -> Any:  # noqa: ANN401 (made at run time, so no type checker knows its fields)
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))  # type: ignore[no-untyped-call]


_Status, _ErrorInfo, _BadRequest, _RetryInfo, _Pair = map(
    _class, ("Status", "ErrorInfo", "BadRequest", "RetryInfo", "Pair")
)


@dataclass(slots=True)
class Details:
    """What keysvc says about an error besides its status.

    Parameters:
        reason: its word for programs, such as ``ETAG_MISMATCH``; empty: keysvc said nothing.
        metadata: what else a program may want to know.
        violations: bad fields: path in the request, and what is allowed there.
        retry_after_seconds: after how long it may be worth while to try again; None: waiting does not help.
    """

    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Mapping[str, str] = field(default_factory=dict)
    retry_after_seconds: float | None = None


def read_details(trailing_metadata: Iterable[tuple[str, str | bytes]]) -> Details:
    """Read the details of an error; none from bytes that are no such message."""
    details = Details()
    for name, value in trailing_metadata:
        if name == TRAILER and isinstance(value, bytes):
            try:
                for packed in _Status.FromString(value).details:
                    _read(Detail.FromString(packed), details)
            except DecodeError:
                return Details()
    return details


def _read(detail: Detail, details: Details) -> None:
    """Take over one detail, if it is of a kind that is known."""
    kind = detail.type_url.rpartition("/")[2]
    if kind == f"{_PACKAGE}.ErrorInfo":
        info = _ErrorInfo.FromString(detail.value)
        if info.domain == DOMAIN:
            details.reason, details.metadata = info.reason, _pairs(info.metadata)
    elif kind == f"{_PACKAGE}.BadRequest":
        details.violations = _pairs(_BadRequest.FromString(detail.value).field_violations)
    elif kind == f"{_PACKAGE}.RetryInfo":
        delay = Duration.FromString(_RetryInfo.FromString(detail.value).retry_delay)
        details.retry_after_seconds = delay.seconds + delay.nanos / 1e9


def _pairs(packed: Iterable[bytes]) -> dict[str, str]:
    pairs = map(_Pair.FromString, packed)
    return {pair.name: pair.text for pair in pairs}


def retry_details(code: grpc.StatusCode, message: str, seconds: float) -> bytes:
    """The details of an error that says when to try again, for the trailing metadata."""
    delay = Duration()
    delay.FromMilliseconds(ceil(seconds * 1000))
    info = _RetryInfo(retry_delay=delay.SerializeToString())
    detail = Detail(type_url=f"type.googleapis.com/{_PACKAGE}.RetryInfo", value=info.SerializeToString())
    status = _Status(code=code.value[0], message=message, details=[detail.SerializeToString()])
    return status.SerializeToString()  # type: ignore[no-any-return]
