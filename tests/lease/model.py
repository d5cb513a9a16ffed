"""The lease protocol as steps of its parts: one key, its database, one or two holders, perhaps a client of theirs.

Time is relative: a lease is what remains of it, a message has an age, and both end at the longest lease. So there are
finitely many states, and all of them can be visited, with no horizon. A process that hangs, a message that is slow and
a network that is cut are one thing here: a step that is not taken while the clock goes on.

All machines share one clock. That clocks run at different rates (by less than the factor A1 allows) is not modelled:
whoever waits, waits that factor longer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import NamedTuple


class Feature(StrEnum):
    """What may happen in a configuration, besides renewals, look-ups, and a change."""

    SLOW_LOOK_UPS = "the answer of the database to a look-up takes its time"
    REFUSALS = "REVOKED is remembered like VALID"
    LATE_RENEWALS = "a renewal that its holder gave up is executed after the next one"
    JOINING = "members join at any time, and leave"
    CRASHES = "members die, and their rows stay"
    REJOINING = "members join again under a new id"
    COLLECTOR = "rows whose beat stands still are collected"
    AGAIN = "the revoker may die; a sweeper or a repeated Revoke begins a barrier of its own"
    OVERLAP = "a second change of the same key, as Suspend and Resume are"
    LOST_COMMITS = "the connection may be lost before the answer to a commit"
    RESTARTS = "the database may crash and come back"
    PROMOTION = "a standby takes over that may lack rows of members"
    CLOSING = "the client closes its sessions"
    HANDOVER = "the client goes to another holder, and closes its session with the old one; holders remember nothing"
    REAPED = "a supervisor deletes the rows of a member that died, unless they grant leases"
    PUSHES = "holders tell the client of changes between its renewals"


class Mistake(Enum):
    """Ways to get it wrong; each must be found."""

    # of the holder
    FILL_UNCHECKED = "an answer of the database is remembered whatever its revision"
    READ_JOINED = "a Verify joins any read that is in flight"
    JOINED_WITHOUT_LEASE = "a Verify joins a read in flight because of its revision, without a lease"
    DEADLINE_FROM_RECEIPT = "the lease is counted from the answer to the renewal"
    EXTENDED_BEFORE_APPLIED = "the lease is extended before the changes are applied"
    ACKNOWLEDGED_UNAPPLIED = "the renewal acknowledges what the clock says, and not what was applied"
    LEASE_BEFORE_ROW = "the first lease begins before the member's row is there"
    MEMORY_SURVIVES_JOIN = "memory is emptied before the joining transaction, and not when it is answered"
    ROW_DELETED_FIRST = "who leaves deletes the row before it stops to answer"
    FETCH_EXTENDS = "a fetch of the changes extends the lease like a renewal"
    NO_ROW_IGNORED = "a renewal that found no row is taken for one that did"
    # of the collector and the database
    COLLECTED_EARLY = "rows are collected before their lease is over"
    COLLECTED_UNCHECKED = "the collector's DELETE does not look at the beat again"
    ONE_AGE_FOR_ALL = "rows are collected by one age, and not by their own lease"
    JOIN_NOT_DURABLE = "the commit of a join is asynchronous"
    RENEWAL_NOT_DURABLE = "the commit of a renewal is asynchronous, and the collector counts on through a restart"
    # of the revoker
    MEMBERS_BEFORE_COMMIT = "the members are read before the commit"
    WAIT_TOO_SHORT = "the timer is shorter than a lease"
    TIMER_FROM_SENDING = "the timer counts from the sending of the commit"
    WAIT_OF_ONE = "the timer is the shortest lease, and not the longest"
    LOST_COMMIT_READ_BACK = "a lost commit is looked for, and what is not there is called not changed"
    LOST_COMMIT_ASSUMED = "a lost commit is taken for made"
    PROMOTION_IGNORED = "right after a promotion, rows that are not there count as members that are not there"
    TIMER_BY_ROWS_LEFT = "after a promotion the timer goes by the rows that are left"
    REPEAT_AT_ONCE = "a repeated Revoke finds the key revoked, and returns without a barrier"
    # of what is said
    FINAL_AT_ONCE = "a key is said to be REVOKED as soon as the change is visible"
    REVOKING_REMEMBERED = "REVOKING is remembered, as if it were final"
    MARKED_EARLY = "the change is marked final before its barrier is complete"
    # of clients
    PUSH_AS_LEASE = "a client counts its lease from the answer"
    OVER_CLIENTS = "a holder acknowledges what its clients have not"
    ANSWERED_IS_APPLIED = "a holder takes what it has answered to a client for what the client has applied"
    PUSHED_IS_APPLIED = "a holder takes what it has pushed to a client for what the client has applied"
    REJOINED_OVER_CLIENTS = "a new row acknowledges what the clients have not, and replaces the old one"
    CLIENT_FILL_UNCHECKED = "a client remembers an answer whatever its revision"
    CLIENT_READ_JOINED = "a Verify in a client joins any call that is in flight"
    CLIENT_GOES_BACK = "a client takes over a lower revision"
    GRANTED_TOO_LONG = "a holder grants a client a whole lease, and not what remains of its own"
    GRANTED_WITHOUT_LEASE = "a holder grants a client a lease without having one"
    CLOSED_WITH_LEASE = "a client closes the session with a holder that it leaves, and keeps its lease"
    HANDED_OVER_WITH_LEASE = "a client that goes to another holder keeps what the one that it leaves has granted"
    CLOSED_WITH_RENEWAL = "a client closes its session, and still hears the answer to an earlier renewal"
    LEFT_UNDER_CLIENTS = "who leaves does not wait for the leases of its clients"
    REAPED_UNDER_CLIENTS = "a supervisor deletes the row of a dead member at once, though it granted leases"
    GRANTED_UNANNOUNCED = "a holder grants leases before its row says that it does"
    REJOINED_UNANNOUNCED = "a new row does not say that clients have leases from before"


@dataclass(frozen=True)
class Configuration:
    """What is explored together.

    Parameters:
        leases: the length of each holder's lease; as many holders.
        client: whether there is a client that renews with any of them.
    """

    name: str
    leases: tuple[int, ...]
    client: bool = False
    features: frozenset[Feature] = field(default_factory=frozenset)

    @property
    def longest(self) -> int:
        """The longest lease, which no age needs to exceed."""
        return max(self.leases)


class Phase(Enum):
    """Where a change is, for the process that makes it."""

    IDLE = auto()
    MEMBERS_READ = auto()  # before the commit, which is a mistake
    SENT = auto()  # the commit is, and the timer runs, which is a mistake
    LOST = auto()  # the connection is; the commit may still land
    LANDED = auto()  # it did, and the changer does not know
    ROLLED_BACK = auto()
    DENIED = auto()  # answered that nothing was changed
    COMMITTED = auto()
    BARRIER = auto()
    RETURNED = auto()
    DEAD = auto()


class Change(NamedTuple):
    """A restrictive change.

    Parameters:
        revision: that it got.
        age: how long its barrier has lasted.
        waits: for no member, because the list was empty when it was read too early.
    """

    phase: Phase = Phase.IDLE
    revision: int = 0
    age: int = 0
    waits: bool = True


class World(NamedTuple):
    """The database, except for the rows of members, and who changes the key.

    Parameters:
        revision: of the last change; each is of the key.
        final: whether the revocation is marked final.
        told: whether somebody was told that the key is finally REVOKED.
        promoted: how long ago a standby was promoted; None: never.
    """

    revision: int = 0
    final: bool = False
    told: bool = False
    promoted: int | None = None
    changes: tuple[Change, ...] = (Change(),)


class Record(NamedTuple):
    """What Verify judges: the key as it was at a revision. Of a revocation, 0 is VALID and 1 REVOKING or REVOKED."""

    revision: int
    final: bool


class Row(NamedTuple):
    """The row of a member.

    Parameters:
        acknowledged: the revision.
        watched: for how long the collector has seen this beat; None: it does not look, or must begin again.
        doomed: the collector has made up its mind, and will not look again (a mistake).
        renewed: the beat has moved, but a crash would undo it (a mistake).
        known: the member that now has another row knows that this one was its own.
        late: what a renewal would acknowledge that was sent for this row and is still on its way.
        grants: it says that clients may have leases.
    """

    acknowledged: int
    watched: int | None = None
    doomed: bool = False
    renewed: bool = False
    known: bool = False
    late: int | None = None
    grants: bool = False


class Sent(NamedTuple):
    """A renewal on its way to the database.

    Parameters:
        tells: what it acknowledges or, of a client, the revision it has applied.
    """

    age: int
    tells: int


class Answered(NamedTuple):
    """A renewal that has been answered, and nobody has heard it yet.

    Parameters:
        age: since it was sent.
        grants: for how long, from then on; 0: there was no row.
        by: the length of the leases of the holder that answered, as its name.
    """

    age: int
    revision: int
    grants: int
    by: int = 0


class Membership(Enum):
    """What a holder believes to be."""

    OUTSIDE = auto()
    JOINING = auto()  # the transaction has its snapshot, and nobody sees its row yet
    INSERTED = auto()  # the row is there, and the holder has not heard of it
    MEMBER = auto()
    LEAVING = auto()


class Holder(NamedTuple):
    """One process that answers from memory, and its rows.

    Parameters:
        length: of its leases.
        lease: what remains of the current one.
        joining: the snapshot of the joining transaction, and what its row acknowledges.
        reading: what the database has answered to a look-up, and the holder has not heard yet.
        row: under its present id.
        old: under an earlier id; at most one is modelled.
        bound: what remains of the lease that it granted to the client's session.
        reported: the revision that the client told last.
    """

    length: int
    membership: Membership = Membership.OUTSIDE
    applied: int = 0
    lease: int = 0
    memory: Record | None = None
    joining: tuple[int, int] = (0, 0)
    renewal: Sent | Answered | None = None
    reading: Record | None = None
    row: Row | None = None
    old: Row | None = None
    bound: int = 0
    reported: int = 0

    @property
    def rows(self) -> tuple[Row, ...]:
        """All its rows that others see."""
        return tuple(row for row in (self.row, self.old) if row)


class Answer(NamedTuple):
    """The answer of a holder to a client's Verify, with its revision."""

    record: Record
    revision: int


class Pushed(NamedTuple):
    """Changes on their way to the client, for as long as the network likes.

    Parameters:
        after: they are all changes after this revision.
        revision: and up to this one.
    """

    after: int
    revision: int


class Client(NamedTuple):
    """A process that answers from memory under leases that it gets from holders.

    Parameters:
        pushed: at most one push is on its way at a time.
        by: the holder whose lease it has, by the length of its own.
        left: the one whose lease it had before, with which its session is not closed yet.
    """

    applied: int = 0
    lease: int = 0
    memory: Record | None = None
    renewal: Sent | Answered | None = None
    reading: Answer | None = None
    pushed: Pushed | None = None
    by: int = 0
    left: int = 0


class Settled(NamedTuple):
    """Which changes need not wait for a holder, each as a set of their numbers.

    Parameters:
        absent: it has no row.
    """

    acknowledged: frozenset[int]
    over: frozenset[int]
    absent: bool


Part = World | Holder | Client


def _less(left: int) -> int:
    return max(0, left - 1)


class Protocol:
    """The steps of the parts, and what must never be true of them.

    A part moves by itself, with the world, or together with another one; whoever explores puts them together.
    """

    def __init__(self, configuration: Configuration, mistake: Mistake | None = None) -> None:
        self._configuration = configuration
        self._features = configuration.features
        self._mistake = mistake
        self._longest = configuration.longest
        self._is_revocation = Feature.OVERLAP not in self._features

    def start(self) -> tuple[World, Client, tuple[Holder, ...]]:
        """All parts at the beginning. Where members do not join, they are there from the start."""
        changes = 2 if self._features & {Feature.AGAIN, Feature.OVERLAP} else 1
        holders = tuple(Holder(length) for length in self._configuration.leases)
        if Feature.JOINING not in self._features:
            holders = tuple(each._replace(membership=Membership.MEMBER, row=Row(0)) for each in holders)
        return World(changes=(Change(),) * changes), Client(), holders

    # Time -----------------------------------------------------------------------------------------------------------

    def _older(self, age: int) -> int:
        return min(self._longest, age + 1)

    def _aged(self, renewal: Sent | Answered | None) -> Sent | Answered | None:
        return renewal and renewal._replace(age=self._older(renewal.age))

    def _aged_row(self, row: Row | None) -> Row | None:
        return row if row is None or row.watched is None else row._replace(watched=self._older(row.watched))

    def tick(self, part: Part) -> Part:
        """A part when one unit of time has passed."""
        if isinstance(part, World):
            changes = tuple(
                each._replace(age=self._older(each.age)) if self._is_timed(each) else each for each in part.changes
            )
            promoted = None if part.promoted is None else self._older(part.promoted)
            return part._replace(changes=changes, promoted=promoted)
        if isinstance(part, Client):
            return self._client_without_useless(
                part._replace(lease=_less(part.lease), renewal=self._aged(part.renewal))
            )
        bound = _less(part.bound)
        aged = part._replace(
            lease=_less(part.lease),
            renewal=self._aged(part.renewal),
            row=self._aged_row(part.row),
            old=self._aged_row(part.old),
            bound=bound,
            reported=part.reported if bound else 0,
        )
        return self._without_useless(aged)

    def _is_timed(self, change: Change) -> bool:
        early = self._mistake is Mistake.TIMER_FROM_SENDING and change.phase in {Phase.SENT, Phase.COMMITTED}
        return early or change.phase is Phase.BARRIER

    # Who changes the key --------------------------------------------------------------------------------------------

    def world_moves(self, world: World) -> Iterator[tuple[str, World]]:
        """What happens at the database and to those who change the key, whatever the members do."""
        for number, change in enumerate(world.changes):
            for step, revision, moved in self._change_moves(number, change, world):
                changes = (*world.changes[:number], moved, *world.changes[number + 1 :])
                yield f"{self._name(number)} {step}", world._replace(revision=revision, changes=changes)
        if not self._is_revocation:
            return
        complete = any(each.phase is Phase.RETURNED for each in world.changes)
        early = self._mistake is Mistake.MARKED_EARLY and world.revision > 0
        if (complete or early) and not world.final:
            yield "the change is marked final", world._replace(final=True)
        at_once = self._mistake is Mistake.FINAL_AT_ONCE and world.revision > 0
        if (world.final or at_once) and not world.told:
            yield "somebody who asks the database is told REVOKED", world._replace(told=True)

    def _name(self, number: int) -> str:
        if self._is_revocation:
            return ("revoker", "sweeper")[number]
        return ("first changer", "second changer")[number]

    def _change_moves(self, number: int, change: Change, world: World) -> Iterator[tuple[str, int, Change]]:
        """Each with the revision of the database after it."""
        now = world.revision
        if number and self._is_revocation:
            may_return = world.final or (now and self._mistake is Mistake.REPEAT_AT_ONCE)
            if change.phase is Phase.IDLE and may_return:
                yield "finds the key revoked, and returns", now, Change(Phase.RETURNED, now)
            elif change.phase is Phase.IDLE and now:
                yield "finds the revocation, and begins its own barrier", now, Change(Phase.BARRIER, now)
            return
        if change.phase is Phase.IDLE and self._mistake is Mistake.TIMER_FROM_SENDING:
            yield "sends its commit", now, Change(Phase.SENT)
        elif change.phase in {Phase.IDLE, Phase.SENT, Phase.MEMBERS_READ, Phase.ROLLED_BACK}:
            yield "commits", now + 1, change._replace(phase=Phase.COMMITTED, revision=now + 1)
        if change.phase is Phase.COMMITTED:
            yield "hears of its commit, and begins the barrier", now, change._replace(phase=Phase.BARRIER)
        if Feature.AGAIN in self._features and change.phase in {Phase.COMMITTED, Phase.BARRIER}:
            yield "dies", now, Change(Phase.DEAD)
        if Feature.LOST_COMMITS in self._features:
            yield from self._lost_commits(change, now)

    def _lost_commits(self, change: Change, now: int) -> Iterator[tuple[str, int, Change]]:
        match change.phase:
            case Phase.IDLE:
                yield "sends its commit, and loses the connection", now, Change(Phase.LOST)
            case Phase.LOST:
                yield "had sent a commit that lands now", now + 1, Change(Phase.LANDED, now + 1)
                yield "had sent a commit that is rolled back now", now, Change(Phase.ROLLED_BACK)
                if self._mistake is Mistake.LOST_COMMIT_READ_BACK:
                    yield "reads back, finds nothing, answers that nothing was changed", now, Change(Phase.DENIED)
                if self._mistake is Mistake.LOST_COMMIT_ASSUMED:
                    yield "begins the barrier", now, Change(Phase.BARRIER, now + 1)
            case Phase.LANDED:
                # Only now: its UPDATE waits for the row lock of the lost transaction.
                yield (
                    "runs the transaction again, finds it committed, and begins the barrier",
                    now,
                    change._replace(phase=Phase.BARRIER),
                )
            case Phase.DENIED if not change.revision:
                yield "had sent a commit that lands now", now + 1, change._replace(revision=now + 1)
            case _:
                pass

    # The barrier ----------------------------------------------------------------------------------------------------

    def settled(self, world: World, holder: Holder) -> Settled:
        """Which changes need not wait for this holder, as a statement finds it that begins now."""
        acknowledged, over = set(), set()
        for number, change in enumerate(world.changes):
            if change.phase is Phase.BARRIER:
                behind = [row for row in holder.rows if row.acknowledged < change.revision]
                if not behind:
                    acknowledged.add(number)
                if not behind or change.age >= self._wait(holder.length):
                    over.add(number)
        return Settled(frozenset(acknowledged), frozenset(over), absent=not holder.rows)

    def _wait(self, length: int) -> int:
        """How long a lease must be waited for. What a row says is enough, since no other holder matters here."""
        match self._mistake:
            case Mistake.WAIT_TOO_SHORT:
                return length - 1
            case Mistake.WAIT_OF_ONE:
                return min(self._configuration.leases)
            case _:
                return length

    def barrier_moves(self, world: World, all_settled: Settled) -> Iterator[tuple[str, World]]:
        """What can be done by who has read the rows of all members.

        Parameters:
            all_settled: what is true of every holder.
        """
        for number, change in enumerate(world.changes):
            moved = None
            if change.phase is Phase.BARRIER:
                by_acknowledgement = number in all_settled.acknowledged and self._may_trust_rows(world)
                if not change.waits:
                    moved = "returns: it knew of no members"
                elif by_acknowledgement:
                    moved = "returns (ACK)"
                elif number in all_settled.over and self._is_timer_over(world, change):
                    moved = "returns (TIMER)"
            if moved:
                yield self._with_change(world, number, moved, change._replace(phase=Phase.RETURNED, age=0, waits=True))
            early = self._mistake is Mistake.MEMBERS_BEFORE_COMMIT and change.phase is Phase.IDLE
            if early and all_settled.absent:
                yield self._with_change(
                    world, number, "reads that there are no members", Change(Phase.MEMBERS_READ, waits=False)
                )

    def _with_change(self, world: World, number: int, step: str, change: Change) -> tuple[str, World]:
        changes = (*world.changes[:number], change, *world.changes[number + 1 :])
        return f"{self._name(number)} {step}", world._replace(changes=changes)

    def _may_trust_rows(self, world: World) -> bool:
        """Whether a member that has no row holds no lease: a promotion can lose rows."""
        if world.promoted is None or self._mistake is Mistake.PROMOTION_IGNORED:
            return True
        return world.promoted >= self._longest

    def _is_timer_over(self, world: World, change: Change) -> bool:
        """Whether no row can be missing whose lease would be longer than those that were waited for."""
        if world.promoted is None or self._mistake in {Mistake.PROMOTION_IGNORED, Mistake.TIMER_BY_ROWS_LEFT}:
            return True
        return change.age >= self._longest

    # A holder -------------------------------------------------------------------------------------------------------

    def holder_moves(self, world: World, holder: Holder) -> Iterator[tuple[str, World, Holder]]:
        """What a holder does, its rows and messages included."""
        for step, moved in self._all_holder_moves(world, holder):
            yield step, world, self._without_useless(moved)
        if holder.lease and holder.memory and holder.memory.final and not world.told:
            yield "says REVOKED from memory", world._replace(told=True), holder

    def _all_holder_moves(self, world: World, holder: Holder) -> Iterator[tuple[str, Holder]]:
        yield from self._renewals(world, holder)
        if Feature.HANDOVER not in self._features:
            yield from self._look_ups(world, holder)
        if Feature.JOINING in self._features:
            yield from self._joins(world, holder)
            yield from self._leaves(holder)
        yield from self._endings(holder)
        if Feature.COLLECTOR in self._features:
            for name, row in (("row", holder.row), ("old", holder.old)):
                for step, moved in self._collecting(row, holder.length) if row else ():
                    yield f"'s {'old ' * (name == 'old')}row {step}", holder._replace(**{name: moved})

    def _without_useless(self, holder: Holder) -> Holder:
        """Without an answer that changes nothing when it is heard: that is as good as lost, now and later."""
        if isinstance(holder.renewal, Answered) and holder.membership is Membership.MEMBER:
            lost = holder._replace(renewal=None)
            return lost if self._renewal_heard(holder, holder.renewal)[1] == lost else holder
        return holder

    def _acknowledgement(self, holder: Holder, revision: int) -> int:
        """What the holder may acknowledge if it has applied a revision: not more than a client with a lease from it."""
        if holder.bound and self._mistake is not Mistake.OVER_CLIENTS:
            return min(revision, holder.reported)
        return revision

    def _renewals(self, world: World, holder: Holder) -> Iterator[tuple[str, Holder]]:
        is_member = holder.membership is Membership.MEMBER
        match holder.renewal:
            case None if is_member:
                unapplied = self._mistake is Mistake.ACKNOWLEDGED_UNAPPLIED
                tells = self._acknowledgement(holder, world.revision if unapplied else holder.applied)
                yield "sends a renewal", holder._replace(renewal=Sent(0, tells))
            case Sent(age, tells):
                found = holder.row is not None or self._mistake is Mistake.NO_ROW_IGNORED
                answered = Answered(age, world.revision, holder.length if found else 0)
                row = holder.row and self._renewed(holder.row, tells)
                yield (
                    "'s renewal is executed" if holder.row else "'s renewal finds no row",
                    holder._replace(renewal=answered, row=row),
                )
                yield "'s renewal is lost", holder._replace(renewal=None)
                if holder.row and Feature.LATE_RENEWALS in self._features:
                    row = holder.row._replace(late=tells)
                    yield "gives up its renewal, which is on its way", holder._replace(renewal=None, row=row)
            case Answered() as answered:
                yield "'s renewal is answered too late, or never", holder._replace(renewal=None)
                if is_member:
                    yield self._renewal_heard(holder, answered)
            case _:
                pass
        if Feature.REAPED in self._features and is_member and holder.row and not holder.row.grants:
            yield "'s row says that it grants leases", holder._replace(row=holder.row._replace(grants=True))
        # After a wake-up. It extends no lease: it does not show that the row is still there.
        if is_member and world.revision > holder.applied:
            yield "fetches and applies the changes", holder._replace(applied=world.revision, memory=None)
        if is_member and self._mistake is Mistake.FETCH_EXTENDS:
            fetched = holder._replace(applied=world.revision, lease=holder.length)
            memory = None if fetched.applied > holder.applied else holder.memory
            yield "fetches, and extends its lease", fetched._replace(memory=memory)

    def _renewed(self, row: Row, tells: int) -> Row:
        """A row after a renewal. Who read a higher acknowledgement before may still act on it, so it does not sink."""
        acknowledged = max(row.acknowledged, tells)
        if self._mistake is Mistake.RENEWAL_NOT_DURABLE and row.watched is not None:
            return row._replace(acknowledged=acknowledged, renewed=True)
        return row._replace(acknowledged=acknowledged, watched=None)

    def _renewal_heard(self, holder: Holder, answered: Answered) -> tuple[str, Holder]:
        if not answered.grants:
            outside = holder._replace(membership=Membership.OUTSIDE, applied=0, lease=0, memory=None, renewal=None)
            return "hears that it is no member, and flushes", outside
        late = 0 if self._mistake is Mistake.DEADLINE_FROM_RECEIPT else answered.age
        renewed = holder._replace(renewal=None, lease=max(holder.lease, answered.grants - late))
        if answered.revision > holder.applied and self._mistake is not Mistake.EXTENDED_BEFORE_APPLIED:
            renewed = renewed._replace(applied=answered.revision, memory=None)
        return "hears its renewal, and applies what it brings", renewed

    def _memorable(self, world: World) -> Record | None:
        """What may be remembered of what the database says now.

        REVOKING is remembered by nobody, so that marking the change final needs no revision. An answer that nobody may
        remember, and that is no VALID, does not matter, whatever becomes of it.
        """
        record = Record(world.revision, world.final)
        if not self._is_revocation or not record.revision:
            return record
        if self._mistake is Mistake.REVOKING_REMEMBERED:
            return record._replace(final=True)
        return record if record.final and Feature.REFUSALS in self._features else None

    def _look_ups(self, world: World, holder: Holder) -> Iterator[tuple[str, Holder]]:
        """Sending one changes nothing that anybody sees, so that a look-up begins with its snapshot."""
        record = self._memorable(world)
        if holder.reading:
            heard = holder._replace(reading=None)
            if holder.reading.revision >= holder.applied or self._mistake is Mistake.FILL_UNCHECKED:
                yield "hears its look-up, and remembers", heard._replace(memory=holder.reading)
            else:
                yield "hears its look-up, and does not remember", heard
        elif record and Feature.SLOW_LOOK_UPS in self._features:
            yield "'s look-up is executed", holder._replace(reading=record)
        elif record and record.revision >= holder.applied:
            yield "looks up, and remembers", holder._replace(memory=record)

    def _joins(self, world: World, holder: Holder) -> Iterator[tuple[str, Holder]]:
        match holder.membership:
            case Membership.OUTSIDE if self._mistake is Mistake.LEASE_BEFORE_ROW:
                yield (
                    "grants itself a lease, and then joins",
                    holder._replace(
                        membership=Membership.INSERTED,
                        applied=world.revision,
                        lease=holder.length,
                        memory=None,
                        joining=(world.revision, world.revision),
                    ),
                )
            case Membership.OUTSIDE:
                over = self._mistake is Mistake.REJOINED_OVER_CLIENTS
                acknowledges = world.revision if over else self._acknowledgement(holder, world.revision)
                joining = holder._replace(membership=Membership.JOINING, joining=(world.revision, acknowledges))
                yield "'s joining transaction has its snapshot", joining
            case Membership.JOINING:
                grants = holder.bound > 0 and self._mistake is not Mistake.REJOINED_UNANNOUNCED
                row = Row(holder.joining[1], grants=grants and Feature.REAPED in self._features)
                inserted = holder._replace(membership=Membership.INSERTED, row=row)
                if holder.old and holder.old.known:
                    # The new row acknowledges no more than the client has, so the old one may go, and may stay.
                    yield "'s joining transaction commits, and replaces its old row", inserted._replace(old=None)
                    inserted = inserted._replace(old=holder.old._replace(known=False))
                yield "'s joining transaction commits", inserted
            case Membership.INSERTED if self._mistake is Mistake.LEASE_BEFORE_ROW:
                joined = holder._replace(membership=Membership.MEMBER, row=Row(holder.joining[1]), joining=(0, 0))
                yield "'s row is there", joined
            case Membership.INSERTED:
                joined = holder._replace(
                    membership=Membership.MEMBER, applied=holder.joining[0], memory=None, joining=(0, 0)
                )
                if self._mistake is Mistake.MEMORY_SURVIVES_JOIN:
                    joined = joined._replace(memory=holder.memory)
                yield "hears that it has joined", joined
            case _:
                pass

    def _leaves(self, holder: Holder) -> Iterator[tuple[str, Holder]]:
        if holder.membership is Membership.MEMBER:
            if self._mistake is not Mistake.ROW_DELETED_FIRST:
                leaving = holder._replace(membership=Membership.LEAVING, lease=0, memory=None, renewal=None)
                yield "stops to answer from memory, to leave", leaving
            elif holder.row:
                yield "deletes its row, to leave", holder._replace(row=None)
        waits = holder.bound and self._mistake is not Mistake.LEFT_UNDER_CLIENTS
        if holder.membership is Membership.LEAVING and not waits:
            yield "deletes its row, and has left", Holder(holder.length, old=holder.old)

    def _endings(self, holder: Holder) -> Iterator[tuple[str, Holder]]:
        """How a row comes to have no member: at most one such row is modelled."""
        if holder.membership is not Membership.MEMBER or holder.old:
            return
        sent = holder.renewal if isinstance(holder.renewal, Sent) else None
        left = holder.row and holder.row._replace(late=sent and sent.tells)
        if Feature.CRASHES in self._features:
            yield "dies", Holder(holder.length, old=left)
            if Feature.REAPED in self._features and left:
                grants = left.grants and self._mistake is not Mistake.REAPED_UNDER_CLIENTS
                if not grants:
                    yield "dies, and its supervisor deletes its row", Holder(holder.length)
        if Feature.REJOINING in self._features:
            yield (
                "must join again, and flushes",
                holder._replace(
                    membership=Membership.OUTSIDE,
                    lease=0,
                    memory=None,
                    renewal=None,
                    row=None,
                    old=left and left._replace(known=True),
                ),
            )

    # The collector, and the database as a machine -------------------------------------------------------------------

    def _collecting(self, row: Row, length: int) -> Iterator[tuple[str, Row | None]]:
        if row.late is not None:
            yield "is renewed by a statement that was given up", self._renewed(row, row.late)._replace(late=None)
        if row.doomed:
            yield "is deleted by the collector", None
        elif row.watched is None:
            yield "is observed by the collector", row._replace(watched=0)
        elif row.watched >= self._collecting_age(length) and not row.renewed:
            if self._mistake is Mistake.COLLECTED_UNCHECKED:
                yield "is found unchanged by the collector", row._replace(doomed=True)
            else:
                yield "is deleted by the collector", None

    def _collecting_age(self, length: int) -> int:
        match self._mistake:
            case Mistake.COLLECTED_EARLY:
                return length - 1
            case Mistake.ONE_AGE_FOR_ALL:
                return min(self._configuration.leases)
            case _:
                return length

    def has_restarts(self) -> bool:
        """Whether the database may crash and come back."""
        return Feature.RESTARTS in self._features

    def restarted(self, part: Part) -> Part:
        """A part when the database has come back: what was not durable is lost, and observations start anew."""
        if not isinstance(part, Holder):
            return part
        row, old = part.row, part.old
        if self._mistake is Mistake.JOIN_NOT_DURABLE:
            row = None
        elif self._mistake is Mistake.RENEWAL_NOT_DURABLE:
            row = row and row._replace(renewed=False, late=None)
        else:
            row = row and row._replace(watched=None, late=None)
        old = old and old._replace(watched=None, late=None)
        membership = Membership.OUTSIDE if part.membership is Membership.JOINING else part.membership
        renewal = None if isinstance(part.renewal, Sent) else part.renewal
        return part._replace(row=row, old=old, membership=membership, renewal=renewal)

    def has_promotion(self, world: World) -> bool:
        """Whether a standby may be promoted now; once is enough."""
        return Feature.PROMOTION in self._features and world.promoted is None

    def promoted(self, part: Part, *, loses: bool) -> Part:
        """A part when a standby has been promoted. Changes are durable there (A3); rows of members need not be."""
        if isinstance(part, World):
            changes = tuple(each._replace(age=0) for each in part.changes)
            return part._replace(promoted=0, changes=changes)
        if isinstance(part, Client):
            return part
        restarted = self.restarted(part)
        return restarted._replace(row=None, old=None) if loses else restarted

    # A client -------------------------------------------------------------------------------------------------------

    def client_moves(self, world: World, client: Client) -> Iterator[tuple[str, World, Client]]:
        """What a client does by itself."""
        for step, moved in self._own_client_moves(client):
            yield step, world, self._client_without_useless(moved)
        record = self._memorable(world)
        if client.reading is None and record:
            answered = client._replace(reading=Answer(record, world.revision))
            yield "'s Verify is answered by a holder that asked the database", world, answered
        if client.lease and client.memory and client.memory.final and not world.told:
            yield "says REVOKED from memory", world._replace(told=True), client

    def _client_without_useless(self, client: Client) -> Client:
        if client.pushed and client.pushed.revision <= client.applied:
            client = client._replace(pushed=None)
        if isinstance(client.renewal, Answered):
            lost = client._replace(renewal=None)
            return lost if self._client_renewal_heard(client, client.renewal) == lost else client
        return client

    def _client_renewal_heard(self, client: Client, answered: Answered) -> Client:
        age, revision, grants, _ = answered
        late = 0 if self._mistake is Mistake.PUSH_AS_LEASE else age
        back = self._mistake is Mistake.CLIENT_GOES_BACK
        heard = client._replace(
            renewal=None,
            lease=max(client.lease, grants - late),
            applied=revision if back else max(client.applied, revision),
            memory=None if revision > client.applied else client.memory,
        )
        if answered.by == client.by:
            return heard
        if self._mistake is not Mistake.HANDED_OVER_WITH_LEASE:
            heard = heard._replace(lease=max(0, grants - late))
        return heard._replace(by=answered.by, left=client.by)

    @staticmethod
    def _client_push_heard(client: Client, pushed: Pushed) -> Client:
        heard = client._replace(pushed=None)
        if pushed.after <= client.applied < pushed.revision:
            heard = heard._replace(applied=pushed.revision, memory=None)
        return heard

    def _own_client_moves(self, client: Client) -> Iterator[tuple[str, Client]]:
        if client.pushed:
            yield "hears what was pushed", self._client_push_heard(client, client.pushed)
            yield "hears nothing of what was pushed", client._replace(pushed=None)
        match client.renewal:
            case None:
                yield "sends a renewal", client._replace(renewal=Sent(0, client.applied))
            case Sent():
                yield "'s renewal is lost", client._replace(renewal=None)
            case Answered() as answered:
                yield "hears its renewal", self._client_renewal_heard(client, answered)
                yield "'s renewal is answered too late, or never", client._replace(renewal=None)
        if client.reading:
            record, revision = client.reading
            heard = client._replace(reading=None)
            if revision >= client.applied or self._mistake is Mistake.CLIENT_FILL_UNCHECKED:
                yield "hears an answer, and remembers", heard._replace(memory=record)
            else:
                yield "hears an answer, and does not remember", heard

    def client_holder_moves(self, client: Client, holder: Holder) -> Iterator[tuple[str, Client, Holder]]:
        """What a holder answers to a client. A client that moves asks any of them, so its messages name none."""
        if Feature.CLOSING in self._features and holder.bound:
            closed = client._replace(lease=0, renewal=None)
            if self._mistake is Mistake.CLOSED_WITH_LEASE:
                closed = closed._replace(lease=client.lease)
            elif self._mistake is Mistake.CLOSED_WITH_RENEWAL:
                closed = closed._replace(renewal=client.renewal)
            yield "hears that the client closes its session", closed, holder._replace(bound=0, reported=0)
        if client.left == holder.length:
            yield "hears that the client has left it", client._replace(left=0), holder._replace(bound=0, reported=0)
        if holder.membership is not Membership.MEMBER or not self._is_announced(holder):
            return
        grants = holder.lease
        if self._mistake is Mistake.GRANTED_WITHOUT_LEASE or (self._mistake is Mistake.GRANTED_TOO_LONG and grants):
            grants = holder.length
        if isinstance(client.renewal, Sent) and grants:
            age, reported = client.renewal
            if self._mistake is Mistake.ANSWERED_IS_APPLIED:
                reported = max(reported, holder.applied)
            by = holder.length if Feature.HANDOVER in self._features else 0
            left = client.left if client.left != by else 0  # what closes an earlier session with it closes no later one
            yield (
                "answers the renewal of the client",
                client._replace(renewal=Answered(age, holder.applied, grants, by), left=left),
                holder._replace(bound=max(holder.bound, grants), reported=reported),
            )
        yield from self._pushes(client, holder)
        if client.reading is None and holder.memory and holder.lease:
            answered = client._replace(reading=Answer(holder.memory, holder.applied))
            yield "answers a Verify of the client from memory", answered, holder

    def _pushes(self, client: Client, holder: Holder) -> Iterator[tuple[str, Client, Holder]]:
        """What a holder tells a client that has a session with it."""
        is_told = Feature.PUSHES in self._features and client.pushed is None and holder.bound
        if is_told and holder.reported < holder.applied:
            pushed = client._replace(pushed=Pushed(holder.reported, holder.applied))
            took = self._mistake is Mistake.PUSHED_IS_APPLIED
            yield "pushes changes to the client", pushed, holder._replace(reported=holder.applied) if took else holder

    def _is_announced(self, holder: Holder) -> bool:
        """Whether a holder may grant leases: its row must say so before, if its supervisor goes by that."""
        is_needed = Feature.REAPED in self._features and self._mistake is not Mistake.GRANTED_UNANNOUNCED
        return not is_needed or (holder.row is not None and holder.row.grants)

    # What must never be ---------------------------------------------------------------------------------------------

    def _is_wrong(self, world: World, record: Record) -> str | None:
        """Why nobody may be told this by a Verify that starts now."""
        due = max((each.revision for each in world.changes if each.phase is Phase.RETURNED), default=0)
        if record.revision < due:
            return f"(S): judged at revision {record.revision} after the receipt of revision {due}"
        if world.told and not record.revision:
            return "(A): VALID after somebody was told REVOKED"
        return None

    def wrong_in_world(self, world: World) -> str | None:
        """What is wrong at the database or with what a changer was told."""
        if any(each.phase is Phase.DENIED and each.revision for each in world.changes):
            return "(E): a change was made whose caller was told that nothing was changed"
        found = self._is_wrong(world, Record(world.revision, world.final))
        return found and f"{found}, by the database"

    def wrong_in_holder(self, world: World, holder: Holder) -> str | None:
        """What is wrong with what a holder may say to a Verify that starts now."""
        if holder.lease and holder.memory and (found := self._is_wrong(world, holder.memory)):
            return f"{found}, by a holder from memory"
        joins = holder.reading is not None and (
            self._mistake is Mistake.READ_JOINED
            or (
                (holder.lease or self._mistake is Mistake.JOINED_WITHOUT_LEASE)
                and holder.reading.revision >= holder.applied
            )
        )
        if joins and holder.reading and (found := self._is_wrong(world, holder.reading)):
            return f"{found}, by a holder from a look-up that was in flight"
        return None

    def wrong_in_client(self, world: World, client: Client) -> str | None:
        """What is wrong with what a client may say to a Verify that starts now."""
        if client.lease and client.memory and (found := self._is_wrong(world, client.memory)):
            return f"{found}, by a client from memory"
        joins = client.reading is not None and (
            self._mistake is Mistake.CLIENT_READ_JOINED or (client.lease and client.reading.revision >= client.applied)
        )
        if joins and client.reading and (found := self._is_wrong(world, client.reading.record)):
            return f"{found}, by a client from an answer that was in flight"
        return None
