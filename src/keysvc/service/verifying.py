"""Verifies presentations: from memory while there is a lease, else by a look-up; the core says the verdict."""

import asyncio
from datetime import datetime
from enum import StrEnum, auto
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, NamedTuple, TypeAlias

from keysvc.core.errors import FailedPrecondition, Unavailable
from keysvc.core.keystring import KeyString, find_secret_id
from keysvc.core.pepper import Peppers
from keysvc.core.revision import Revision
from keysvc.core.usage import Meter
from keysvc.core.verdict import Presentation, Record, Snapshot, Verdict, judge
from keysvc.lease.holder import Footing, Holder, Standing
from keysvc.lease.memory import Memory
from keysvc.service.peppering import Rehashing
from keysvc.service.ports import SecretFinder

KEY_STRING_CHARACTERS_MAX: Final = 128
"""No key string is longer; a text that is need not be hashed."""


MARK_BYTES: Final = 15
"""As short as never to be met twice by chance; with one byte more Python takes 16 more."""


class Basis(StrEnum):
    """Where an answer came from."""

    MEMORY = auto()
    DATABASE = auto()
    STALE = auto()


Ground: TypeAlias = Footing
"""What answers from memory rest on at a moment, to those who need not know of leases."""


class Answer(NamedTuple):
    """What Verify says.

    Parameters:
        record: whom the key stands for; None where the secret was not proved.
        missing_scopes: with INSUFFICIENT_SCOPE.
        revision: that the answer is true at; None where no record was needed.
        at: the database's clock when it was judged.
    """

    verdict: Verdict
    record: Record | None = None
    missing_scopes: tuple[str, ...] = ()
    revision: Revision | None = None
    basis: Basis = Basis.DATABASE
    at: datetime | None = None


class Unknown(NamedTuple):
    """A presentation that memory has no answer to: its text has the shape and the tag of a key string.

    Parameters:
        secret_id: what to look up.
        mark: what the text is remembered by.
    """

    presentation: Presentation
    secret_id: str
    mark: bytes


_BASES: Final = {
    Standing.STALE: Basis.STALE,
    Standing.NOTHING: Basis.DATABASE,
}


def basis_of(ground: Ground) -> Basis:
    """What an answer that rests on it comes from."""
    standing = ground.standing
    return Basis.MEMORY if standing is Standing.LEASE else _BASES[standing]


class Verifying:
    """Verifies presentations of key strings.

    Parameters:
        secrets: where secrets are found.
        holder: whether we may answer from memory, and what is in it.
        peppers: of this server.
        tag_key: the deployment's tag key.
        hash_key: of this process: key strings are remembered by their keyed hash.
        rehashing: is told of secrets under an older pepper.
        meter: counts every Verify, callers' own included.
    """

    def __init__(  # noqa: PLR0913 (one for each thing that a verification needs)
        self,
        secrets: SecretFinder,
        holder: Holder,
        peppers: Peppers,
        *,
        tag_key: bytes,
        hash_key: bytes,
        meter: Meter,
        rehashing: Rehashing,
    ) -> None:
        self._secrets = secrets
        self._holder = holder
        self._meter = meter
        self._peppers = peppers
        self._tag_key = tag_key
        self._hashing = blake2b(digest_size=MARK_BYTES, key=hash_key)
        self._rehashing = rehashing
        self.hits = 0
        self.misses = 0

    async def verify(self, presentation: Presentation, workspaces: tuple[str, ...] = ()) -> Answer:
        """Judge one presentation, on a state that has every change whose receipt was COMPLETE before this call began.

        Parameters:
            workspaces: keys of others do not exist for this caller; empty: it may see all.

        Raises:
            Unavailable: no judgement could be made.
            FailedPrecondition: ``at_least`` is of another database, or beyond this one's clock.
        """
        answer = self.recall(presentation, workspaces, self._holder.footing())
        if isinstance(answer, Unknown):
            return await self.look_up(answer, workspaces)
        self.count(answer.verdict, answer.record, answer.at)
        return answer

    async def verify_batch(self, presentations: list[Presentation], workspaces: tuple[str, ...] = ()) -> list[Answer]:
        """As ``verify``, for each; their look-ups travel together."""
        footing = self._holder.footing()
        recalled = [self.recall(presentation, workspaces, footing) for presentation in presentations]
        unknown = [each for each in recalled if isinstance(each, Unknown)]
        found = iter(await asyncio.gather(*(self.look_up(each, workspaces) for each in unknown)))
        for each in recalled:
            if isinstance(each, Answer):
                self.count(each.verdict, each.record, each.at)
        return [next(found) if isinstance(each, Unknown) else each for each in recalled]

    @property
    def memory(self) -> Memory:
        """What ``recall`` looks in; only while there is a footing."""
        return self._holder.memory

    def ground(self) -> Ground | None:
        """What ``recall`` rests on; good until the next ``await``."""
        return self._holder.footing()

    def recall(
        self, presentation: Presentation, workspaces: tuple[str, ...], footing: Footing | None
    ) -> Answer | Unknown:
        """An answer that needs no look-up, not counted yet: from memory, or that the text is no key string.

        Parameters:
            footing: of just now.
        """
        key_string, _, _, _, _, at_least, strong = presentation
        text = key_string.reveal()
        mark = self.mark(text)
        if footing is not None and not strong:
            holder = self._holder
            if at_least is None or (footing.standing is Standing.LEASE and holder.includes(at_least)):
                memory = holder.memory
                record = memory.find(mark)
                if record is not None or memory.is_refused(mark):
                    return _answer(record, presentation, workspaces, footing)
        secret_id = find_secret_id(text, self._tag_key)
        return Unknown(presentation, secret_id, mark) if secret_id else Answer(Verdict.MALFORMED)

    def count(self, verdict: Verdict, record: Record | None, at: datetime | None) -> None:
        """Count an answer of ``recall`` that is given."""
        self.hits += 1
        self._meter.count(verdict, record, at)

    async def look_up(self, unknown: Unknown, workspaces: tuple[str, ...]) -> Answer:
        """The answer to what ``recall`` has none to, counted; what is found is remembered, if that is right.

        Raises:
            Unavailable, FailedPrecondition: see ``verify``.
        """
        presentation, secret_id, mark = unknown
        self.misses += 1
        asked_as = self._holder.member_id
        snapshot = await self._read(secret_id)
        if presentation.at_least is not None:
            _check_includes(snapshot.revision, presentation.at_least)
        record = self._prove(presentation.key_string, snapshot)
        self._holder.remember(mark, record, snapshot.revision, asked_as)
        footing = Footing(Standing.NOTHING, snapshot.at, snapshot.revision)
        answer = _answer(record, presentation, workspaces, footing)
        self._meter.count(answer.verdict, answer.record, answer.at)
        return answer

    def mark(self, text: str) -> bytes:
        """What a key string is remembered by; nothing is remembered by that of a text that cannot be one."""
        if len(text) > KEY_STRING_CHARACTERS_MAX or not text.isascii():
            return b""
        return self.hash(text.encode())

    def hash(self, text: bytes) -> bytes:
        """A hash that nobody else can compute: what must not be kept is known again by it."""
        hashing = self._hashing.copy()
        hashing.update(text)
        return hashing.digest()

    async def _read(self, secret_id: str) -> Snapshot:
        """What the database says, not from before what we know already."""
        for _ in range(2):
            if self._holder.standing() is Standing.STALE:
                # The database was found away, so nobody waits to find that out again.
                raise Unavailable("the database cannot be reached, and this key is not remembered")
            snapshot = await self._secrets.find(secret_id)
            if self._holder.standing() is not Standing.LEASE or not self._holder.is_behind(snapshot.revision):
                return snapshot
        raise Unavailable("the database is behind what this server knows")

    def _prove(self, key_string: KeyString, snapshot: Snapshot) -> Record | None:
        """The record, if the key string is the whole secret. An unknown id costs the same digest."""
        digest = self._peppers.digest(key_string, snapshot.pepper or self._peppers.signing)
        if digest is None:
            raise Unavailable("this server lacks the pepper of this key")
        if not compare_digest(digest, snapshot.digest):
            return None
        if snapshot.record is not None and snapshot.pepper != self._peppers.signing:
            self._rehashing.want(snapshot.record.secret_id, snapshot.pepper, self._peppers.prove(key_string))
        return snapshot.record


def _answer(record: Record | None, presentation: Presentation, workspaces: tuple[str, ...], footing: Footing) -> Answer:
    """Judge."""
    _, at, revision = footing
    basis = basis_of(footing)
    if record is None or (workspaces and record.profile.home.name not in workspaces):
        return Answer(Verdict.NOT_FOUND, None, (), revision, basis)
    verdict, missing_scopes = judge(record, presentation, at)
    return Answer(verdict, record, missing_scopes, revision, basis, at)


def _check_includes(revision: Revision, at_least: Revision) -> None:
    """Raise ``FailedPrecondition`` unless ``revision`` includes ``at_least``."""
    if at_least.epoch != revision.epoch:
        raise FailedPrecondition("consistency.at_least is a revision of another database")
    if at_least.seq > revision.seq:
        raise FailedPrecondition("consistency.at_least is a revision that this database has not reached")
