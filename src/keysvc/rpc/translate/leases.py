"""Messages of clients' leases."""

import re
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from keysvc.core.revision import Revision
from keysvc.core.subject import subject_id
from keysvc.core.verdict import NEVER, Record, Verdict
from keysvc.rpc.fields import Fields
from keysvc.rpc.translate.times import duration, timestamp
from keysvc.service.callers import CERTIFICATE_PREFIX, Caller
from keysvc.service.granting import Change, Grant, Place, WakeUp
from keysvc.service.verifying import Answer
from keysvc.v1 import key_service_pb2, verify_pb2

SESSION_ID_CHARACTERS_MAX: Final = 128

_TIMELINE: Final = re.compile("(?:[0-9A-F]{8})?")
"""As PostgreSQL writes it; empty where it does not tell."""

_DROPPED: Final = frozenset({"keys", "workspaces"})
_UNREMEMBERED: Final = frozenset({"refusals"})
"""Texts that are no keys, which clients do not remember."""


class Renewal(NamedTuple):
    """What a client asks for.

    Parameters:
        place: up to where it has applied changes; None: it remembers nothing.
        close: its session is over.
        stale: see ``Sessions.renew``.
    """

    session_id: str
    place: Place | None
    close: bool
    stale: bool


def read_renewal(request: key_service_pb2.RenewLeaseRequest) -> Renewal:
    """What a client asks for."""
    fields = Fields()
    session_id = fields.text("session_id", request.session_id, characters_max=SESSION_ID_CHARACTERS_MAX, required=True)
    place = None
    if request.epoch or request.applied:
        epoch = fields.read("epoch", request.epoch, _parse_epoch, (UUID(int=0), ""))
        applied = fields.read("applied", request.applied, Revision.parse, Revision(UUID(int=0), 0))
        if not fields.violations and applied.epoch != epoch[0]:
            fields.bad("applied", "must be of epoch, as the last answer said both")
        place = Place(*epoch, applied.seq)
    fields.done()
    return Renewal(session_id, place, request.close, request.stale)


def read_session_id(request: key_service_pb2.WatchWakeUpsRequest) -> str:
    """Whose client wants to be told."""
    fields = Fields()
    session_id = fields.text("session_id", request.session_id, characters_max=SESSION_ID_CHARACTERS_MAX, required=True)
    fields.done()
    return session_id


def epoch_text(epoch: UUID, timeline: str) -> str:
    """The epoch that clients are told: of the log of changes, and of the database that it is in."""
    return f"{epoch.hex}.{timeline}"


def _parse_epoch(text: str) -> tuple[UUID, str]:
    """Read what ``epoch_text`` wrote."""
    epoch, _, timeline = text.partition(".")
    try:
        if _TIMELINE.fullmatch(timeline) and epoch_text(UUID(epoch), timeline) == text:
            return UUID(epoch), timeline
    except ValueError:
        pass
    raise ValueError("must be the epoch of an answer of RenewLease")


class Memos:
    """Writes what clients need that remember answers.

    Parameters:
        tag_key: the deployment's tag key.
        epoch: of the lease that this server has now; None: it has none.
    """

    def __init__(self, tag_key: bytes, epoch: Callable[[], tuple[UUID, str] | None]) -> None:
        self._epoch = epoch
        self._subject_id = lru_cache(maxsize=16_384)(lambda id_: subject_id(tag_key, id_))

    def epoch(self) -> str:
        """The epoch under which may be remembered what is judged now; empty: none."""
        epoch = self._epoch()
        return "" if epoch is None else epoch_text(*epoch)

    def write(self, answer: Answer, caller: Caller, epoch: str) -> bytes:
        """The memo of an answer, on the wire, to be appended to it; nothing where it must not be remembered.

        What has not been proved is not remembered, so that a flood of texts that are no keys fills nobody's memory; and
        what is still being revoked is not, so that the end of that needs no revision of its own.

        Parameters:
            epoch: from before the answer was judged. If that has passed since, the answer may be in no log that lives.
        """
        record = answer.record
        if record is None or not epoch or epoch != self.epoch() or answer.verdict is Verdict.REVOKING:
            return b""
        subjects = [UUID(int=record.key_id), record.home.id]
        if not caller.name.startswith(CERTIFICATE_PREFIX):
            subjects.append(UUID(caller.name))
        elif caller.workspaces:
            return b""  # no change tells when the file of callers limits it to others
        memo = verify_pb2.Memo(
            epoch=epoch,
            subject_ids=map(self._subject_id, subjects),
            for_address=bool(record.ip_ranges),
            end_time=timestamp(_end_of(answer.verdict, record)),
        )
        return verify_pb2.VerifyResponse(memo=memo).SerializeToString()

    def granted_message(self, grant: Grant) -> key_service_pb2.RenewLeaseResponse:
        """The answer to a renewal."""
        log = grant.log
        message = key_service_pb2.RenewLeaseResponse(
            ttl=duration(timedelta(seconds=grant.lease_seconds)),
            stale_ttl=duration(timedelta(seconds=grant.stale_seconds) or None),
            epoch=epoch_text(log.epoch, log.timeline),
            revision=str(Revision(log.epoch, log.seq)),
            database_time=timestamp(grant.at),
        )
        changed_ids = self._changed_ids(grant.changes)
        message.flush = changed_ids is None
        message.changed_ids.extend(changed_ids or ())
        return message

    def wake_up_message(self, wake_up: WakeUp) -> key_service_pb2.WatchWakeUpsResponse:
        """What a client hears in between."""
        epoch, timeline, seq = wake_up.place
        message = key_service_pb2.WatchWakeUpsResponse(revision=str(Revision(epoch, seq)))
        changed_ids = self._changed_ids(wake_up.changes)
        if changed_ids is not None and wake_up.after is not None:
            message.epoch = epoch_text(epoch, timeline)
            message.after = str(Revision(epoch, wake_up.after))
            message.changed_ids.extend(changed_ids)
        return message

    def _changed_ids(self, changes: Collection[Change] | None) -> list[str] | None:
        """What answers depend on that these changes have ended; None: everything has to be forgotten."""
        if changes is None or any(change.kind not in _DROPPED | _UNREMEMBERED for change in changes):
            return None
        ids = {id_: None for change in changes if change.kind in _DROPPED for id_ in change.subject_ids}
        return [self._subject_id(id_) for id_ in ids]


def _end_of(verdict: Verdict, record: Record) -> datetime | None:
    """When an answer is over if nothing changes; None: never."""
    is_over = verdict is Verdict.EXPIRED or record.ends_at == NEVER
    return None if is_over else record.ends_at
