"""Verifies presentations: finds the secret, proves it, and asks the core for the verdict."""

import asyncio
from dataclasses import dataclass
from hmac import compare_digest

from keysvc.core.errors import FailedPrecondition, Unavailable
from keysvc.core.keystring import KeyString, find_secret_id
from keysvc.core.pepper import Peppers
from keysvc.core.revision import Revision
from keysvc.core.usage import Meter
from keysvc.core.verdict import Presentation, Record, Snapshot, Verdict, judge
from keysvc.service.ports import SecretFinder


@dataclass(frozen=True, slots=True)
class Answer:
    """What Verify says.

    Parameters:
        record: whom the key stands for; None where the secret was not proved.
        missing_scopes: with INSUFFICIENT_SCOPE.
        revision: that the answer is true at; None where no record was needed.
    """

    verdict: Verdict
    record: Record | None = None
    missing_scopes: tuple[str, ...] = ()
    revision: Revision | None = None


class Verifying:
    """Verifies presentations of key strings.

    Parameters:
        secrets: where secrets are found.
        peppers: of this server.
        signing: fingerprint of the pepper that an unknown secret is digested under.
        tag_key: the deployment's tag key.
        meter: counts every Verify, callers' own included.
    """

    def __init__(
        self, secrets: SecretFinder, peppers: Peppers, *, signing: bytes, tag_key: bytes, meter: Meter
    ) -> None:
        self._secrets = secrets
        self._meter = meter
        self._peppers = peppers
        self._signing = signing
        self._tag_key = tag_key

    async def verify(self, presentation: Presentation, workspaces: tuple[str, ...] = ()) -> Answer:
        """Judge one presentation, on a state read after this call began.

        Parameters:
            workspaces: keys of others do not exist for this caller; empty: it may see all.

        Raises:
            Unavailable: no judgement could be made.
            FailedPrecondition: ``at_least`` is of another database, or beyond this one's clock.
        """
        key_string = presentation.key_string
        secret_id = find_secret_id(key_string.reveal(), self._tag_key)
        if secret_id is None:
            self._meter.count(Verdict.MALFORMED)
            return Answer(Verdict.MALFORMED)
        snapshot = await self._secrets.find(secret_id)
        if presentation.at_least is not None:
            _check_includes(snapshot.revision, presentation.at_least)
        record = self._prove(key_string, snapshot)
        if record is None or (workspaces and record.workspace not in workspaces):
            self._meter.count(Verdict.NOT_FOUND)
            return Answer(Verdict.NOT_FOUND, revision=snapshot.revision)
        judgement = judge(record, presentation, snapshot.at)
        self._meter.count(judgement.verdict, record, snapshot.at)
        return Answer(judgement.verdict, record, judgement.missing_scopes, snapshot.revision)

    async def verify_batch(self, presentations: list[Presentation], workspaces: tuple[str, ...] = ()) -> list[Answer]:
        """As ``verify``, for each; their look-ups travel together."""
        return await asyncio.gather(*(self.verify(presentation, workspaces) for presentation in presentations))

    def _prove(self, key_string: KeyString, snapshot: Snapshot) -> Record | None:
        """The record, if the key string is the whole secret. An unknown id costs the same digest."""
        digest = self._peppers.digest(key_string, snapshot.pepper or self._signing)
        if digest is None:
            raise Unavailable("this server lacks the pepper of this key")
        return snapshot.record if compare_digest(digest, snapshot.digest) else None


def _check_includes(revision: Revision, at_least: Revision) -> None:
    """Raise ``FailedPrecondition`` unless ``revision`` includes ``at_least``."""
    if at_least.epoch != revision.epoch:
        raise FailedPrecondition("consistency.at_least is a revision of another database")
    if at_least.seq > revision.seq:
        raise FailedPrecondition("consistency.at_least is a revision that this database has not reached")
