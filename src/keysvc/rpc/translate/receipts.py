"""What callers say of every change, and the receipts that they get for it."""

from datetime import timedelta
from typing import Final, Protocol

from keysvc.core.key import REASON_CHARACTERS_MAX
from keysvc.core.receipt import Path, Receipt
from keysvc.rpc.fields import Fields
from keysvc.rpc.translate.times import duration, timestamp
from keysvc.service.confirming import ChangeRequest, Wait
from keysvc.v1 import receipt_pb2

_WAITS: Final = {
    receipt_pb2.WAIT_UNSPECIFIED: Wait.BARRIER,
    receipt_pb2.WAIT_BARRIER: Wait.BARRIER,
    receipt_pb2.WAIT_COMMIT: Wait.COMMIT,
}
_PATHS: Final = {
    None: receipt_pb2.Receipt.PATH_UNSPECIFIED,
    Path.ACK: receipt_pb2.Receipt.PATH_ACK,
    Path.TIMER: receipt_pb2.Receipt.PATH_TIMER,
}


class _Changing(Protocol):
    """A request for a change."""

    reason: str
    wait: receipt_pb2.Wait.ValueType


def read_reason(fields: Fields, reason: str) -> str:
    """A reason for the audit event."""
    return fields.text("reason", reason, characters_max=REASON_CHARACTERS_MAX)


def read_asked(fields: Fields, request: _Changing) -> ChangeRequest:
    """The reason, and what to wait for."""
    reason = read_reason(fields, request.reason)
    if request.wait not in _WAITS:
        fields.bad("wait", "must be WAIT_BARRIER or WAIT_COMMIT")
    return ChangeRequest(reason, _WAITS.get(request.wait, Wait.BARRIER))


def receipt_message(receipt: Receipt) -> receipt_pb2.Receipt:
    """A receipt."""
    states = receipt_pb2.Receipt
    return receipt_pb2.Receipt(
        revision=str(receipt.revision),
        state=states.STATE_COMPLETE if receipt.is_complete else states.STATE_PENDING,
        path=_PATHS[receipt.path],
        waited=duration(timedelta(seconds=receipt.waited_seconds)),
        effective_by=timestamp(receipt.effective_by),
        unacknowledged=receipt.unacknowledged,
    )
