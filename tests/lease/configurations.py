"""What is explored together, and where each mistake is found.

Everything together has too many states. What a configuration leaves out does not happen in it at all.
"""

from typing import Final

from tests.lease.model import Configuration, Feature, Mistake

_MEMBERS: Final = {
    *(Feature.JOINING, Feature.CRASHES, Feature.REJOINING, Feature.COLLECTOR, Feature.LATE_RENEWALS),
}


def _one(name: str, *features: Feature, client: bool = False, lease: int = 2) -> Configuration:
    return Configuration(name, (lease,), client, frozenset(features))


def _two(name: str, *features: Feature, client: bool = False, leases: tuple[int, int] = (2, 2)) -> Configuration:
    return Configuration(name, leases, client, frozenset(features))


LOOK_UPS: Final = _one("a holder", Feature.SLOW_LOOK_UPS, Feature.REFUSALS, Feature.LOST_COMMITS)
MEMBERS: Final = _one("a member that comes and goes", Feature.SLOW_LOOK_UPS, Feature.REFUSALS, *_MEMBERS)
RESTARTS: Final = _one("restarts of the database", Feature.JOINING, Feature.COLLECTOR, Feature.RESTARTS)
OVERLAP: Final = _one("overlapping changes", Feature.SLOW_LOOK_UPS, Feature.JOINING, Feature.OVERLAP)
TWO: Final = _two("two holders", Feature.SLOW_LOOK_UPS, Feature.REFUSALS, Feature.JOINING)
SWEEPER: Final = _two("two holders and a sweeper", Feature.REFUSALS, Feature.AGAIN)
LEASES: Final = _two("leases of two lengths", Feature.CRASHES, Feature.COLLECTOR, leases=(1, 2))
PROMOTION: Final = _two("a promotion", Feature.JOINING, Feature.PROMOTION, leases=(1, 2))
CLIENT: Final = _one("a client", Feature.CLOSING, client=True)
CLIENT_OF_MEMBER: Final = _one("a client of a member", Feature.JOINING, Feature.REJOINING, Feature.CLOSING, client=True)
CLIENT_OF_DEAD: Final = _one("a client of one that dies", Feature.CRASHES, Feature.COLLECTOR, client=True)
CLIENT_OF_REAPED: Final = _one(
    "a client of one that is reaped",
    *(Feature.JOINING, Feature.CRASHES, Feature.REAPED, Feature.REJOINING),
    client=True,
)
CLIENT_TOLD: Final = _one("a client that is told between renewals", *(Feature.CLOSING, Feature.PUSHES), client=True)
MOVING: Final = _two("a client that moves", client=True, leases=(1, 1))
LEAVING: Final = _two("a client that leaves a holder in order", Feature.HANDOVER, client=True, leases=(1, 2))

USUAL: Final = (
    *(LOOK_UPS, MEMBERS, RESTARTS, OVERLAP, TWO, SWEEPER, LEASES, PROMOTION),
    *(CLIENT, CLIENT_OF_MEMBER, CLIENT_OF_DEAD, CLIENT_OF_REAPED, CLIENT_TOLD, MOVING),
)
"""Those of every run of the tests."""

MORE: Final = (
    LEAVING,
    _two("a client that moves, lease 2", client=True),
    _one("a member, lease 3", Feature.SLOW_LOOK_UPS, *(_MEMBERS - {Feature.LATE_RENEWALS}), lease=3),
    _two("two holders, lease 3", Feature.SLOW_LOOK_UPS, Feature.JOINING, leases=(3, 3)),
    _two("two holders, overlapping changes", Feature.OVERLAP),
    _one("a client and slow look-ups", *(Feature.JOINING, Feature.SLOW_LOOK_UPS, Feature.REFUSALS), client=True),
    _one("a client, lease 3", *(Feature.JOINING, Feature.REJOINING, Feature.CLOSING), client=True, lease=3),
    _one("a client and all of a member", *(_MEMBERS - {Feature.LATE_RENEWALS}), Feature.CLOSING, client=True),
    _one("a client and a promotion", *(Feature.JOINING, Feature.REJOINING, Feature.PROMOTION), client=True),
    _one("a client and overlapping changes", *(Feature.JOINING, Feature.OVERLAP), client=True),
    _one("a client that is told, of a member", *(Feature.JOINING, Feature.REJOINING, Feature.PUSHES), client=True),
    _two("a client that moves and is told", Feature.PUSHES, client=True),
    _two("a client that moves and closes", Feature.CLOSING, client=True),
    _two("a client that moves, members that come and go", Feature.JOINING, client=True),
)
"""Those of `make model`, besides: longer leases, more that happens together, and what has millions of states."""

FOUND: Final = {
    LOOK_UPS: (
        *(Mistake.READ_JOINED, Mistake.JOINED_WITHOUT_LEASE, Mistake.FILL_UNCHECKED, Mistake.DEADLINE_FROM_RECEIPT),
        *(Mistake.EXTENDED_BEFORE_APPLIED, Mistake.ACKNOWLEDGED_UNAPPLIED, Mistake.WAIT_TOO_SHORT),
        *(Mistake.TIMER_FROM_SENDING, Mistake.LOST_COMMIT_READ_BACK, Mistake.LOST_COMMIT_ASSUMED),
        *(Mistake.FINAL_AT_ONCE, Mistake.MARKED_EARLY),
    ),
    MEMBERS: (
        *(Mistake.LEASE_BEFORE_ROW, Mistake.MEMORY_SURVIVES_JOIN, Mistake.ROW_DELETED_FIRST, Mistake.FETCH_EXTENDS),
        *(Mistake.NO_ROW_IGNORED, Mistake.COLLECTED_EARLY, Mistake.COLLECTED_UNCHECKED, Mistake.MEMBERS_BEFORE_COMMIT),
    ),
    RESTARTS: (Mistake.JOIN_NOT_DURABLE, Mistake.RENEWAL_NOT_DURABLE),
    SWEEPER: (Mistake.REVOKING_REMEMBERED, Mistake.REPEAT_AT_ONCE),
    LEASES: (Mistake.ONE_AGE_FOR_ALL, Mistake.WAIT_OF_ONE),
    PROMOTION: (Mistake.PROMOTION_IGNORED, Mistake.TIMER_BY_ROWS_LEFT),
    CLIENT: (
        *(Mistake.PUSH_AS_LEASE, Mistake.OVER_CLIENTS, Mistake.CLIENT_FILL_UNCHECKED, Mistake.CLIENT_READ_JOINED),
        *(Mistake.GRANTED_TOO_LONG, Mistake.GRANTED_WITHOUT_LEASE, Mistake.ANSWERED_IS_APPLIED),
    ),
    CLIENT_OF_MEMBER: (
        *(Mistake.REJOINED_OVER_CLIENTS, Mistake.LEFT_UNDER_CLIENTS),
        *(Mistake.CLOSED_WITH_LEASE, Mistake.CLOSED_WITH_RENEWAL),
    ),
    CLIENT_TOLD: (Mistake.PUSHED_IS_APPLIED,),
    CLIENT_OF_REAPED: (Mistake.REAPED_UNDER_CLIENTS, Mistake.GRANTED_UNANNOUNCED, Mistake.REJOINED_UNANNOUNCED),
    MOVING: (Mistake.CLIENT_GOES_BACK,),
    LEAVING: (Mistake.HANDED_OVER_WITH_LEASE,),
}
"""Where each mistake is found: the first configuration that has what it takes."""
