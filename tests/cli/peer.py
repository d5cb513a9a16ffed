"""A peer that speaks the contract and answers what a test has prepared."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from keysvc.v1 import audit_service_pb2_grpc, key_service_pb2_grpc, usage_service_pb2_grpc, workspace_service_pb2_grpc


@dataclass
class Refusal:
    """An error that the peer answers, with all the details of the contract."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    violations: dict[str, str] = field(default_factory=dict)
    retry: timedelta | None = None

    def abort(self, context: grpc.ServicerContext) -> None:
        """End a call with it."""
        details: list[Message] = []
        if self.reason:
            details.append(ErrorInfo(domain="keysvc", reason=self.reason))
        if self.violations:
            violations = [
                BadRequest.FieldViolation(field=name, description=text) for name, text in self.violations.items()
            ]
            details.append(BadRequest(field_violations=violations))
        if self.retry is not None:
            delay = Duration()
            delay.FromTimedelta(self.retry)
            details.append(RetryInfo(retry_delay=delay))
        if details:
            status = Status(code=self.code.value[0], message=self.message)
            for detail in details:
                packed = AnyMessage()
                packed.Pack(detail)
                status.details.append(packed)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(self.code, self.message)


Answer = Message | Refusal | Callable[[Any, grpc.ServicerContext], Message]


class Peer:
    """Answers each method with what a test has prepared, one after the other, and remembers what it was asked."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.metadata: list[dict[str, str | bytes]] = []
        self.deadlines: list[float] = []
        self._answers: dict[str, list[Answer]] = defaultdict(list)

    def answers(self, method: str, *answers: Answer) -> None:
        """Prepare answers."""
        self._answers[method] += answers

    def answer(self, method: str, request: Message, context: grpc.ServicerContext) -> Message:
        """Answer one call."""
        self.requests[method].append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())
        if not self._answers[method]:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "the test has no answer for this")
        answer = self._answers[method].pop(0)
        if isinstance(answer, Refusal):
            answer.abort(context)
        if isinstance(answer, Message):
            return answer
        assert callable(answer)
        return answer(request, context)

    def serve(self, servicer: type) -> Any:
        """A servicer of the contract, all of whose methods ask this peer."""
        methods = [name for name in vars(servicer) if not name.startswith("_")]

        def ask(name: str) -> Callable[[Any, Any, Any], Message]:
            return lambda _, request, context: self.answer(name, request, context)

        scripted = type("Scripted" + servicer.__name__, (servicer,), {name: ask(name) for name in methods})
        return scripted()


def add_services(peer: Peer, server: grpc.Server) -> None:
    """Let a server answer by a peer."""
    key_service_pb2_grpc.add_KeyServiceServicer_to_server(peer.serve(key_service_pb2_grpc.KeyServiceServicer), server)
    workspace_service_pb2_grpc.add_WorkspaceServiceServicer_to_server(
        peer.serve(workspace_service_pb2_grpc.WorkspaceServiceServicer), server
    )
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(
        peer.serve(usage_service_pb2_grpc.UsageServiceServicer), server
    )
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(
        peer.serve(audit_service_pb2_grpc.AuditServiceServicer), server
    )
