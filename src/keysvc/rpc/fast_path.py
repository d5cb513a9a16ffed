"""The hot path of Verify: what can be answered from memory, without the door's ceremony.

It gives the same answers as the door, or none, and then the call comes through the door: whatever would be logged,
looked up or refused with a status. Nothing is waited for from the first look at memory to the answer.

Services ask the same thing of the same key again and again: the same bytes get the same answer until something that is
remembered changes, whatever it is, or one of the two keys comes to its end. They are known again by a keyed hash.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from keysvc.core.errors import InvalidArgument
from keysvc.core.permission import Permission
from keysvc.core.verdict import Record, Verdict
from keysvc.rpc.door import sent_request_id
from keysvc.rpc.translate.verify import Answers, read_verify
from keysvc.service.callers import Callers
from keysvc.service.verifying import Ground, Verifying, basis_of
from keysvc.v1.verify_pb2 import VerifyRequest

REPEATED_MAX: Final = 10_000
"""So many calls are known again; then it begins anew, as with every change."""

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


class Hot:
    """Answers Verify from memory.

    Parameters:
        callers: authenticates them.
        verifying: judges.
        answers: writes answers.
    """

    def __init__(self, callers: Callers, verifying: Verifying, answers: Answers) -> None:
        self._callers = callers
        self._verifying = verifying
        self._answers = answers

    def verify(self, raw: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes | None:
        """The answer to a call of Verify; None: not without asking, or not without a word."""
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
        known = verifying.memory.derived
        mark = verifying.hash(b"%b\0%b" % (authorization.encode(), raw))
        repeated: _Repeated | None = known.get(mark)
        if repeated is None or ground.at >= repeated.ends_at:
            answer = self._judge(authorization, raw, ground, mark)
        else:
            _, at, revision = ground
            verifying.count(_VALID, repeated.caller, at)
            verifying.count(_VALID, repeated.record, at)
            answer = repeated.head + self._answers.end(_VALID, basis_of(ground), revision)
        if answer is not None and sent is not None and (request_id := sent_request_id(sent)):
            context.set_trailing_metadata((("x-request-id", request_id),))
        return answer

    def _judge(self, authorization: str, raw: bytes, ground: Ground, mark: bytes) -> bytes | None:
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
        answer = verifying.recall(presentation, recalled.caller.workspaces, ground)
        if answer is None or (answer.record is not None and answer.verdict is not _VALID):
            return None  # Refusals of proved secrets are logged.
        verifying.count(_VALID, recalled.record, ground.at)
        verifying.count(answer.verdict, answer.record, ground.at)
        known = verifying.memory.derived
        # A call with a trace id of its own does not come again; one that asks for a revision may be refused one day.
        comes_again = not request.request_id and presentation.at_least is None
        if answer.record is not None and comes_again:
            if len(known) >= REPEATED_MAX:
                known.clear()
            head, ends_at = self._answers.head(answer.record), min(recalled.ends_at, answer.record.ends_at)
            known[mark] = _Repeated(head, recalled.record, answer.record, ends_at)
        return self._answers.write(answer)
