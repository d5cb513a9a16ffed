"""The hot path of Verify: what can be answered from memory, without the door's ceremony.

It gives the same answers as the door, or none, and then the call comes through the door: whatever would be logged,
looked up or refused with a status. Nothing is waited for from the first look at memory to the answer.
"""

from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from keysvc.core.errors import InvalidArgument
from keysvc.core.permission import Permission
from keysvc.core.verdict import Verdict
from keysvc.rpc.door import sent_request_id
from keysvc.rpc.translate.verify import Answers, read_verify
from keysvc.service.callers import Callers
from keysvc.service.verifying import Verifying
from keysvc.v1.verify_pb2 import VerifyRequest

_parse: Final = VerifyRequest.FromString
_VALID: Final = Verdict.VALID


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
        footing = verifying.footing()
        if authorization is None or footing is None:
            return None
        recalled = self._callers.recall(authorization, footing)
        if recalled is None or not recalled.caller.may(Permission.VERIFY):
            return None
        try:
            presentation = read_verify(_parse(raw))
        except (DecodeError, InvalidArgument):
            return None
        answer = verifying.recall(presentation, recalled.caller.workspaces, footing)
        if answer is None or (answer.record is not None and answer.verdict is not _VALID):
            # Refusals of proved secrets are logged.
            return None
        if sent is not None and (request_id := sent_request_id(sent)):
            context.set_trailing_metadata((("x-request-id", request_id),))
        verifying.count(_VALID, recalled.record, footing.at)
        verifying.count(answer.verdict, answer.record, footing.at)
        return self._answers.write(answer)
