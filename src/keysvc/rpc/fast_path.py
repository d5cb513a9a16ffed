"""The fast path of Verify: what a known caller asks in good order, without the door's ceremony.

It gives the same answers as the door, or none: a caller that memory does not know, and a request that cannot be read,
come through the door. From the first look at memory to an answer from it nothing is waited for.

Services ask the same thing of the same key again and again: the same bytes get the same answer until something that is
remembered changes, whatever it is, or one of the two keys comes to its end. They are known again by a keyed hash.
"""

import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from structlog.contextvars import bound_contextvars

from keysvc.core.errors import InvalidArgument
from keysvc.core.permission import Permission
from keysvc.core.verdict import Record, Verdict
from keysvc.rpc.door import log_call, new_request_id, refuse, sent_request_id
from keysvc.rpc.refusals import Refusals, log_refusals
from keysvc.rpc.translate.leases import Memos
from keysvc.rpc.translate.verify import Answers, read_verify
from keysvc.service.callers import Caller, Callers, Recalled
from keysvc.service.verifying import Answer, Ground, Unknown, Verifying, basis_of
from keysvc.v1.verify_pb2 import VerifyRequest

REPEATED_MAX: Final = 10_000
"""So many calls are known again; then it begins anew, as with every change."""

_METHOD: Final = "keysvc.v1.KeyService/Verify"
_VALID: Final = Verdict.VALID


class _Repeated(NamedTuple):
    """A call that is answered VALID as long as nothing changes.

    Parameters:
        head: of the answer; its end is of the moment.
        caller, record: of the caller's key, and of the key that was presented.
        ends_at: until then.
    """

    head: bytes
    caller: Record
    record: Record
    ends_at: datetime


class FastPath:
    """Answers Verify.

    Parameters:
        callers: authenticates them.
        verifying: judges.
        answers: writes answers.
        memos: writes what clients need that remember answers.
        refusals: knows which ones to log.
    """

    def __init__(
        self, callers: Callers, verifying: Verifying, answers: Answers, memos: Memos, refusals: Refusals
    ) -> None:
        self._callers = callers
        self._verifying = verifying
        self._answers = answers
        self._memos = memos
        self._refusals = refusals

    def verify(self, raw: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes | Awaitable[bytes] | None:
        """The answer to a call of Verify, or whoever looks it up; None: it must come through the door."""
        authorization = sent = None
        for name, value in context.invocation_metadata() or ():
            if name == "authorization":
                if authorization is not None or not isinstance(value, str):
                    return None
                authorization = value
            elif name == "x-request-id":
                sent = value
        verifying = self._verifying
        ground = verifying.ground()
        if authorization is None or ground is None:
            return None
        mark = verifying.hash(b"%b\0%b" % (authorization.encode(), raw))
        repeated: _Repeated | None = verifying.memory.derived.get(mark)
        if repeated is None or ground.at >= repeated.ends_at:
            return self._judge(raw, authorization, mark, ground, _Reply(context, sent))
        _, at, revision = ground
        verifying.count(_VALID, repeated.caller, at)
        verifying.count(_VALID, repeated.record, at)
        if sent is not None:
            _Reply(context, sent).tell_request_id()
        return repeated.head + self._answers.end(_VALID, basis_of(ground), revision)

    def _judge(
        self, raw: bytes, authorization: str, mark: bytes, ground: Ground, reply: "_Reply"
    ) -> bytes | Awaitable[bytes] | None:
        """The answer to a call that is not known yet."""
        verifying = self._verifying
        recalled = self._callers.recall(authorization, ground)
        if recalled is None or not recalled.caller.may(Permission.VERIFY):
            return None
        try:
            request = VerifyRequest.FromString(raw)
            presentation = read_verify(request)
        except (DecodeError, InvalidArgument):
            return None
        caller = recalled.caller
        answer = verifying.recall(presentation, caller.workspaces, ground)
        verifying.count(_VALID, recalled.record, ground.at)
        epoch = self._memos.epoch() if request.memo else ""
        if isinstance(answer, Unknown):
            return self._look_up(answer, caller, epoch, reply)
        verifying.count(answer.verdict, answer.record, ground.at)
        memo = self._memos.write(answer, caller, epoch)
        # A call with a trace id of its own does not come again; one that asks for a revision may be refused one day.
        is_whole = bool(memo) or not request.memo  # there is none while we have no lease
        if answer.verdict is _VALID and is_whole and not request.request_id and presentation.at_least is None:
            self._keep(mark, answer, memo, recalled)
        return self._give(answer, memo, caller, reply)

    def _keep(self, mark: bytes, answer: Answer, memo: bytes, recalled: Recalled) -> None:
        """Know a call again that was answered VALID. What is forgotten with the lease is forgotten before its epoch."""
        known, record = self._verifying.memory.derived, answer.record
        if record is not None:
            if len(known) >= REPEATED_MAX:
                known.clear()
            ends_at = min(recalled.ends_at, record.ends_at)
            known[mark] = _Repeated(self._answers.head(record) + memo, recalled.record, record, ends_at)

    async def _look_up(self, unknown: Unknown, caller: Caller, epoch: str, reply: "_Reply") -> bytes:
        """The answer to a call that memory has no answer to."""
        began = time.monotonic()
        try:
            answer = await self._verifying.look_up(unknown, caller.workspaces)
        except Exception as error:  # noqa: BLE001 (as at the door)
            with reply.logging() as request_id:
                log_call(_METHOD, caller, error, time.monotonic() - began, quiet=True)
            return await refuse(reply.context, error, request_id)
        return self._give(answer, self._memos.write(answer, caller, epoch), caller, reply)

    def _give(self, answer: Answer, memo: bytes, caller: Caller, reply: "_Reply") -> bytes:
        """An answer on the wire."""
        if answer.verdict is not _VALID and (refusals := self._refusals.find((answer,))):
            with reply.logging():
                log_refusals(refusals, caller)
        else:
            reply.tell_request_id()
        return self._answers.write(answer) + memo


class _Reply(NamedTuple):
    """What a call is answered by.

    Parameters:
        sent: as its ``x-request-id``.
    """

    context: "grpc.aio.ServicerContext[Any, Any]"
    sent: str | bytes | None

    def tell_request_id(self) -> None:
        """Tell the caller the request id that it has sent, if it has."""
        if self.sent is not None and (request_id := sent_request_id(self.sent)):
            self.context.set_trailing_metadata((("x-request-id", request_id),))

    @contextmanager
    def logging(self) -> Iterator[str]:
        """Have the call's request id in the log, and tell its caller: it gets one if its caller has sent none."""
        request_id = sent_request_id(self.sent) or new_request_id()
        self.context.set_trailing_metadata((("x-request-id", request_id),))
        with bound_contextvars(request_id=request_id):
            yield request_id
