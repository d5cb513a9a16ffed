"""What the database of a simulation keeps besides the lease protocol: keys, workspaces, and what they were before."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from keysvc.core.address import pack_ranges, parse_range
from keysvc.core.audit import Stamp
from keysvc.core.key import Key, Secret
from keysvc.core.keystring import Environment, KeyString, mint
from keysvc.core.pepper import Peppers
from keysvc.core.revision import Revision
from keysvc.core.verdict import Profile, Record, Snapshot, WorkspaceRecord, refusal_of
from keysvc.core.workspace import Workspace
from tests.lease.simulation.network import LostError
from tests.lease.simulation.virtual import Loop
from tests.lease.twin import BlockedError, Twin

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
PEPPERS = Peppers([b"p" * 32])
TAG_KEY = b"t" * 32


class State(NamedTuple):
    """All keys and workspaces at one revision. Nothing in it is ever changed.

    Parameters:
        hidden: keys that Verify does not find: not imported yet, or under a pepper that is retired.
    """

    keys: dict[UUID, Key]
    homes: dict[str, Workspace]
    hidden: frozenset[UUID]


@dataclass(frozen=True)
class Place:
    """A key of a simulation, and where it can be found."""

    name: str
    key_id: UUID
    secret_id: str
    key_string: KeyString
    home: str


@dataclass
class Staged:
    """What a transaction has written and not committed.

    Parameters:
        kind, subject_ids, is_restrictive: its entry in the log.
        state: everything, as it will be.
    """

    revision: Revision
    kind: str
    subject_ids: tuple[UUID, ...]
    is_restrictive: bool
    state: State


class Writer(Protocol):
    """Who holds all locks there are, but that of the clock."""

    stamp: Stamp
    at: datetime
    staged: Staged | None

    @property
    def loop(self) -> Loop:
        """Of its process."""
        ...


class Content:
    """Keys and workspaces.

    Parameters:
        twin: has the log that their changes go through.
        homes: the workspace of each key.
        hidden: how many of the keys are not imported yet.
    """

    def __init__(self, twin: Twin, homes: tuple[str, ...], hidden: int = 0) -> None:
        self.twin = twin
        self._start = Revision(twin.epoch, 0)
        self.places = tuple(_place(number, home) for number, home in enumerate(homes))
        self._secrets = {place.secret_id: place for place in self.places}
        workspaces = {
            name: Workspace(UUID(int=0xA00 + number), name, BEGIN, BEGIN, self._start)
            for number, name in enumerate(dict.fromkeys(homes))
        }
        absent = frozenset(place.key_id for place in self.places[len(homes) - hidden :])
        self.state = State({place.key_id: self._key(place) for place in self.places}, workspaces, absent)
        self.history: dict[Revision, State] = {self._start: self.state}
        self.events: dict[UUID, Revision] = {}
        self.writer: Writer | None = None
        self.unblock: Callable[[], None] = lambda: None
        """Lets statements go on that have waited for a lock."""

    def _key(self, place: Place) -> Key:
        secret = Secret(place.secret_id, "", BEGIN, self._start)
        name = place.name
        return Key(
            *(place.key_id, place.home, name, Environment.LIVE, "test", BEGIN, BEGIN, BEGIN, self._start),
            owner=name,
            secrets=(secret,),
        )

    def is_open(self, seq: int) -> bool:
        """Whether a change is not final."""
        entry = self.twin.log.get(seq)
        return entry is not None and not entry.final

    def find(self, secret_ids: list[str]) -> dict[str, Snapshot]:
        """What Verify asks for: one statement, one snapshot."""
        log = self.twin.where()
        revision = Revision(log.epoch, log.seq)
        found = {}
        for secret_id in secret_ids:
            place = self._secrets[secret_id]
            if place.key_id in self.state.hidden:
                found[secret_id] = Snapshot(revision, log.at)
                continue
            proof = PEPPERS.prove(place.key_string)
            record = self.record(place, self.state)
            found[secret_id] = Snapshot(revision, log.at, record, proof.digest, proof.pepper)
        return found

    def record(self, place: Place, state: State) -> Record:
        """What Verify judges, as it was then; whether a revocation is final, as it is now."""
        key = state.keys[place.key_id]
        home = state.homes[key.workspace]
        revoke = key.revocation and key.revocation.revision
        is_open = revoke is not None and self.is_open(revoke.seq)
        is_revoked = revoke is not None and not is_open
        place_of = WorkspaceRecord(home.id, home.name, home.suspended, home.allowed_scopes, {}, home.revision.seq)
        return Record(
            Profile(place_of, key.environment, key.role, key.scopes, ()),
            key.id.int,
            place.secret_id,
            about=key.owner.encode(),
            ip_ranges=pack_ranges(map(parse_range, key.ip_allowlist)),
            refusal=refusal_of(revoking=is_open, revoked=is_revoked, suspended=key.suspended),
            changed_seq=key.revision.seq,
        )

    def read_key(self, key_id: UUID) -> Key:
        """A key as services read it."""
        key = self.state.keys[key_id]
        revocation = key.revocation
        # Revisions are of the epoch that there is now.
        dated = replace(key.revision, epoch=self.twin.epoch)
        if revocation is not None and revocation.revision is not None:
            seq = revocation.revision.seq
            revocation = replace(revocation, final=not self.is_open(seq), revision=replace(dated, seq=seq))
        return replace(key, at=self.twin.where().at, revocation=revocation, revision=dated)

    # Transactions ---------------------------------------------------------------------------------------------------

    def lock(self, writer: Writer) -> datetime:
        """Take all locks, and tell the time; raise ``BlockedError`` while somebody else has them."""
        if self.writer not in {None, writer}:
            raise BlockedError
        self.writer = writer
        return self.twin.where().at

    def take(self) -> Revision:
        """Take the next revision: from here on nobody joins, as nobody else takes one."""
        self.twin.is_clock_locked = True
        return Revision(self.twin.epoch, self.twin.seq + 1)

    def commit(self, writer: Writer) -> None:
        """Let everybody see what a transaction has written."""
        staged = writer.staged
        if staged is not None:
            if self.writer is not writer:
                raise LostError  # rolled back, with the connection that it had
            self._begin_epoch(staged.revision.epoch)
            self.twin.change(staged.kind, staged.subject_ids, restrictive=staged.is_restrictive, at=writer.at)
            self.state = self.history[staged.revision] = staged.state
            self.events[writer.stamp.event_id] = staged.revision
        self.release(writer)

    def _begin_epoch(self, epoch: UUID) -> None:
        """Count on from where an earlier epoch was."""
        if epoch != self.twin.epoch:
            self.history |= {replace(each, epoch=epoch): state for each, state in self.history.items()}
            self.twin.epoch = epoch

    def release(self, writer: Writer | None) -> None:
        """Let go of all locks."""
        if writer is None or self.writer is not writer:
            return
        self.writer = None
        self.twin.is_clock_locked = False
        self.unblock()

    def go_back(self, seq: int) -> None:
        """Be as at an earlier revision, as if nothing had happened since."""
        self.twin.go_back(seq)
        self.history = {revision: state for revision, state in self.history.items() if revision.seq <= seq}
        self.state = max(self.history.items(), key=lambda each: each[0].seq)[1]


def _place(number: int, home: str) -> Place:
    """A key like every other one."""
    minted = mint(Environment.LIVE, TAG_KEY, lambda length: bytes([number + 1]) * length)
    return Place(f"k{number}", UUID(int=0xB00 + number), minted.id, minted.key_string, home)
